"""A score as a sum of parts: hand-made answers, and what a run keeps of them."""

import json
import shutil

import pytest
import torch

from policy.backbone import save_model, score_model_from
from policy.config import BadInput
from policy.ensemble import Ensemble, Member, Scored
from policy.ppo import train
from policy.ppo_config import PPOConfig
from policy.reward import Reward, RewardModel, foreign_letters, rules_of
from policy.rollout import PromptTokens
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer

END = 2


def model(name, weight, *scores, spread=None):
    return RewardModel(
        name, weight, lambda prompts, completions: [Scored(s, spread) for s in scores]
    )


def asked(text: str) -> PromptTokens:
    return PromptTokens("p", [{"role": "user", "content": text}], [1])


def test_models_add_up_with_their_weights_and_a_weight_of_zero_only_watches():
    models = [
        model("helpful", 1.0, 1.0, 2.0),
        model("safe", 0.5, 3.0, -1.0, spread=0.25),
        model("judge", 0.0, 9.0, 9.0),
    ]
    judged = Reward(models, {"rule": lambda prompt, ids: 0.125 * len(ids)}).judge(
        [asked("a")] * 2, [[7, END], [7, 7, 7, END]]
    )
    assert judged.scores == [1.0 + 1.5 - 0.25, 2.0 - 0.5 - 0.5]
    assert judged.parts == {"helpful": [1.0, 2.0], "safe": [1.5, -0.5], "rule": [-0.25, -0.5]}
    assert judged.seen == {"safe_spread": [0.25, 0.25], "judge": [9.0, 9.0]}


def test_an_answer_pays_for_tokens_above_the_limit(letters):
    rule = rules_of(PPOConfig(length_limit=3, length_cost=0.5), letters)["length"]
    assert rule(asked("a"), [7, 7, 7, END]) == 0.0
    assert rule(asked("a"), [7, 7, 7, 7, 7, END]) == 1.0


@pytest.mark.parametrize(
    ("prompt", "answer", "share"),
    [
        (["How are you?"], "Well, thanks.", 0.0),
        (["How are you?"], "我很好。", 1.0),
        (["你好吗?"], "我很好 OK", 2 / 5),
        (["你好 in English?"], "我很好 OK", 0.0),
        (["Что?"], "what", 1.0),
        (["1 + 1 = ?"], "two", 0.0),  # no letter to go by
        (["one"], "2", 0.0),
    ],
)
def test_letters_of_another_script_are_counted(prompt, answer, share):
    assert foreign_letters(prompt, answer) == pytest.approx(share)


def test_only_user_turns_say_which_script_is_wanted(letters):
    rule = rules_of(PPOConfig(script_cost=2.0), letters)["script"]
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "Что?"}]
    ids = letters.convert_tokens_to_ids(["b", "c", letters.eos_token])
    assert rule(PromptTokens("p", turns, [1]), ids) == 2.0


def test_runs_of_four_that_have_been_there_are_repetition(letters):
    rule = rules_of(PPOConfig(repetition_cost=3.0), letters)["repetition"]
    assert rule(asked("a"), [5, 5, 5, 5, 5, 5]) == pytest.approx(2.0)  # one of three runs is new
    assert rule(asked("a"), [5, 6, 7, 8, END]) == 0.0
    assert rule(asked("a"), [5, END]) == 0.0


def test_rules_are_off_unless_asked_for(letters):
    assert rules_of(PPOConfig(), letters) == {}


@pytest.fixture
def reward_model(tiny_policy, tmp_path):
    def make(seed: int):
        directory = tmp_path / f"reward-{seed}"
        scorer, tokenizer = score_model_from(
            tiny_policy(seed=seed, name=f"trunk-{seed}"), seed=seed
        )
        with torch.no_grad():
            scorer.score.weight.normal_(generator=torch.Generator().manual_seed(seed))
        directory.mkdir()
        save_model(scorer, tokenizer, directory)
        return directory

    return make


def test_a_run_keeps_what_each_score_is_made_of(tiny_policy, reward_model, tmp_path):
    first, second = reward_model(5), reward_model(6)
    ensemble = tmp_path / "ensemble"
    for number in range(2):
        shutil.copytree(second, ensemble / f"member-{number}")
    members = tuple(
        Member(directory=f"member-{n}", mean=4.0 * n, deviation=1.0, nats=1.0, sha256="")
        for n in range(2)
    )
    Ensemble(rule="mean", uncertainty_weight=0.0, members=members, scale=ScoreScale()).save(
        ensemble
    )
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "p", "prompt": "a b"}\n')
    config = PPOConfig(
        steps=1, rollouts_per_step=4, max_response_tokens=6, kl_target_nats=None,
        baseline_samples=1, reward_weights=[1.0, 0.5], length_limit=2, length_cost=0.25,
    )  # fmt: skip
    out = tmp_path / "out"
    train(config, init=tiny_policy(), reward_model=[first, ensemble], prompts=prompts, out=out)
    scorers = [load_scorer(first), load_scorer(second)]
    end = scorers[0].tokenizer.eos_token_id
    rows = [json.loads(s) for s in (out / "rollouts/step-00001.jsonl").read_text().splitlines()]
    for row in rows:
        ids = row["tokens"] + ([] if row["finish"] == "end" else [end])
        answer = len(ids) - row["response_start"] - 1
        one, two = (scorer.score_ids([ids])[0] for scorer in scorers)
        expected = {
            "reward_model": one,
            "reward_model_2": 0.5 * (two - 2.0),
            "length": -0.25 * max(0, answer - 2),
        }
        assert row["parts"] == pytest.approx(expected, abs=1e-5)
        assert row["score"] == pytest.approx(sum(expected.values()), abs=1e-5)
        assert row["seen"] == pytest.approx({"reward_model_2_spread": 2.0})
    metrics = json.loads((out / "metrics.jsonl").read_text().splitlines()[1])
    lengths = [row["parts"]["length"] for row in rows]
    assert metrics["part_length"] == pytest.approx(sum(lengths) / 4)
    assert metrics["reward_model_2_spread"] == pytest.approx(2.0)


def test_weights_are_one_for_each_model(tiny_policy, reward_model, tmp_path):
    with pytest.raises(BadInput, match="reward_weights are 2, the reward models 1"):
        train(
            PPOConfig(reward_weights=[1.0, 2.0]),
            init=tiny_policy(),
            reward_model=reward_model(5),
            prompts=tmp_path / "none",
            out=tmp_path / "out",
        )
    with pytest.raises(BadInput, match="one of them at least not 0"):
        PPOConfig(reward_weights=[0.0])
    with pytest.raises(BadInput, match=r"reward_weights must be numbers.*nan"):
        PPOConfig(reward_weights=[1.0, float("nan")])
