"""PPO against a reward model on disk, as the command runs it."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model, score_model_from
from policy.config import BadInput
from policy.ensemble import Ensemble, Member
from policy.ppo import add_arguments, run_command, train
from policy.ppo_config import PPOConfig
from policy.ppo_models import Models, scored_fn_of
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from policy.text import render_prompt
from policy.tokenizer import train_tokenizer
from tests.policy.short_ppo import SMALL, metrics_of


@pytest.fixture
def reward_model(tiny_policy, tmp_path) -> Path:
    directory = tmp_path / "reward"
    model, tokenizer = score_model_from(tiny_policy(seed=5, name="trunk"), seed=5)
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(5))
    directory.mkdir()
    save_model(model, tokenizer, directory)
    return directory


def test_the_command_trains_against_a_reward_model(tiny_policy, reward_model, prompts, tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = tmp_path / "out"
    words = ["--init", tiny_policy(), "--reward-model", reward_model, "--prompts", prompts]
    sets = [
        word
        for k, v in (SMALL | {"steps": 2}).items()
        for word in ("--set", f"{k}={json.dumps(v)}")
    ]
    arguments = [*map(str, words), "--out", str(out), "--device", "cpu", *sets]
    assert run_command(parser.parse_args(arguments)) == 0
    assert [row["step"] for row in metrics_of(out)] == [1, 2]
    scorer = load_scorer(reward_model)
    rows = [json.loads(s) for s in (out / "rollouts/step-00001.jsonl").read_text().splitlines()]
    for row in rows:
        ids = row["tokens"] + ([] if row["finish"] == "end" else [scorer.tokenizer.eos_token_id])
        assert row["score"] == pytest.approx(scorer.score_ids([ids])[0], abs=1e-5)


def test_an_ensemble_is_a_reward_model(tiny_policy, reward_model, prompts, tmp_path):
    folder, out = tmp_path / "ensemble", tmp_path / "out"
    for number in range(2):
        shutil.copytree(reward_model, folder / f"member-{number}")
    members = tuple(
        Member(directory=f"member-{number}", mean=3.0 * number, deviation=1.0, nats=1.0, sha256="")
        for number in range(2)
    )
    Ensemble(rule="worst", uncertainty_weight=0.0, members=members, scale=ScoreScale()).save(folder)
    config = PPOConfig(**(SMALL | {"steps": 1}))
    train(config, init=tiny_policy(), reward_model=folder, prompts=prompts, out=out)
    scorer = load_scorer(reward_model)
    rows = [json.loads(s) for s in (out / "rollouts/step-00001.jsonl").read_text().splitlines()]
    for row in rows:
        ids = row["tokens"] + ([] if row["finish"] == "end" else [scorer.tokenizer.eos_token_id])
        assert row["score"] == pytest.approx(scorer.score_ids([ids])[0] - 3.0, abs=1e-5)


def test_ppo_reads_a_prompt_as_training_and_the_gate_do(tiny_policy, reward_model, tmp_path):
    turns = [
        {"role": role, "content": content}
        for role, content in (("user", "a b c d e"), ("assistant", "f g h i"), ("user", "j a b"))
    ]
    scorer = load_scorer(reward_model)
    scorer.tokenizer.model_max_length = 16
    save_model(scorer.model, scorer.tokenizer, reward_model)
    path = tmp_path / "turns.jsonl"
    path.write_text(json.dumps({"id": "p", "prompt": turns}) + "\n")
    out = tmp_path / "out"
    train(
        PPOConfig(**(SMALL | {"steps": 1})),
        init=tiny_policy(),
        reward_model=reward_model,
        prompts=path,
        out=out,
    )
    rows = [json.loads(s) for s in (out / "rollouts/step-00001.jsonl").read_text().splitlines()]
    end = [scorer.tokenizer.eos_token_id]
    for row in rows:
        answer = row["tokens"][row["response_start"] :] + (end if row["finish"] != "end" else [])
        prompt = render_prompt(scorer.tokenizer, turns, max_tokens=16 - len(answer))
        assert prompt.dropped_turns == 2  # whole turns, and not as many tokens as are too many
        expected = scorer.score_ids([[*prompt.ids, *answer]])[0]
        assert row["score"] == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_too_short_for_an_answer_is_refused_and_nothing_written(
    tiny_policy, reward_model, prompts, tmp_path
):
    scorer = load_scorer(reward_model)
    scorer.tokenizer.model_max_length = 11  # 8 sampled, the end token and 3 of an empty turn: 12
    save_model(scorer.model, scorer.tokenizer, reward_model)
    with pytest.raises(
        BadInput,
        match="max_response_tokens 8 is too long for the reward model: with the end token and the "
        "3 tokens of an empty turn it takes 12, the reward model 11",
    ):
        train(
            PPOConfig(**SMALL),
            init=tiny_policy(),
            reward_model=reward_model,
            prompts=prompts,
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_a_reward_model_that_may_be_a_coin_is_refused_unless_told_otherwise(
    tiny_policy, reward_model, prompts, tmp_path
):
    scorer = load_scorer(reward_model)
    dev = {"accuracy": 0.55, "accuracy_interval": [0.45, 0.65], "num_groups": 30}
    ScoreScale(dev=dev).keep_in(scorer.model)
    save_model(scorer.model, scorer.tokenizer, reward_model)
    init = tiny_policy()

    def run(**more):
        config = PPOConfig(**(SMALL | {"steps": 1} | more))
        out = tmp_path / "out"
        train(config, init=init, reward_model=reward_model, prompts=prompts, out=out)
        return json.loads((out / "run.json").read_text())

    with pytest.raises(
        BadInput, match=r"too weak to learn from: its accuracy on dev is 0\.550 \[0\.450, 0\.650\]"
    ):
        run()
    assert not (tmp_path / "out").exists()
    assert run(allow_weak_reward=True)["config"]["allow_weak_reward"] is True
    value = json.loads((tmp_path / "out" / "value" / "config.json").read_text())
    assert "concord_scores" not in value  # what was said of scores is not said of values


def test_the_value_model_starts_from_the_reward_model_where_it_fits(
    tiny_policy, reward_model, prompts
):
    init = tiny_policy()

    def trunk_of(**inputs):
        named = {"init": init, "reference": init, "reward_model": reward_model, **inputs}
        models = Models.load(PPOConfig(**SMALL), named, score_fn=None, device="cpu")
        assert models.value.score.weight.abs().max() == 0
        return models.value.get_input_embeddings().weight

    reward, _ = score_model_from(reward_model, seed=0)
    policy, _ = load_causal_lm(init)
    assert torch.equal(trunk_of(), reward.get_input_embeddings().weight)
    assert torch.equal(trunk_of(value_init=init), policy.get_input_embeddings().weight)
    llama = tiny_policy("llama", seed=7, name="llama")
    fallback = Models.load(
        PPOConfig(**SMALL),
        {"init": llama, "reference": llama, "reward_model": reward_model},
        score_fn=None,
        device="cpu",
    )
    assert fallback.value.config.model_type == "llama"


def test_llama_policies_train_too(tiny_policy, reward_model, prompts, tmp_path):
    train(
        PPOConfig(**(SMALL | {"steps": 2})),
        init=tiny_policy("llama", name="llama"),
        reward_model=reward_model,
        prompts=prompts,
        out=tmp_path / "out",
    )
    row = metrics_of(tmp_path / "out")[0]
    assert row["ratio_first"] == pytest.approx(1.0, abs=1e-6)


def test_a_reward_model_of_another_vocabulary_reads_the_text(reward_model, letters):
    scorer = load_scorer(reward_model)
    other = letters.__class__(tokenizer_object=letters.backend_tokenizer, eos_token="<|end|>")
    messages = [{"role": "user", "content": "a b"}]
    prompt = argparse.Namespace(id="p", messages=messages, ids=[0])
    ids = letters.convert_tokens_to_ids(["c", "d", "<|end|>"])
    found = scored_fn_of(scorer, other)([prompt], [ids])
    assert [each.score for each in found] == pytest.approx(scorer.score([messages], ["c d"]))


@pytest.fixture
def byte_reward(tmp_path):
    """A function that saves a reward model which reads bytes, so many with an empty turn."""
    tokenizer = train_tokenizer(["a"], vocab_size=270, context=64)
    trunk = new_gpt(tokenizer, GPTShape(width=16, layers=1, heads=1, context=64), seed=2)
    save_model(trunk, tokenizer, tmp_path / "bytes-trunk")

    def save(room: int) -> Path:
        model, own = score_model_from(tmp_path / "bytes-trunk", seed=2)
        own.model_max_length = len(render_prompt(own, [{"role": "user", "content": ""}]).ids) + room
        save_model(model, own, tmp_path / "bytes")
        return tmp_path / "bytes"

    return save


def test_an_answer_too_long_for_another_tokenizer_is_read_cut_and_counted(
    tiny_policy, byte_reward, prompts, tmp_path
):
    """The train prompts are 9 letters, 13 bytes with their blanks: 8 letters are taken for 12 bytes
    and the end token. They are 15, so that the last blank and letters are not read."""
    paths = {"init": tiny_policy(), "prompts": prompts, "out": tmp_path / "out"}
    config = PPOConfig(**(SMALL | {"steps": 1}))
    with pytest.raises(BadInput, match=r"max_response_tokens 8 is too long .* that is 12 of its"):
        train(config, reward_model=byte_reward(12), **paths)
    assert not (tmp_path / "out").exists()
    train(config, reward_model=byte_reward(13), **paths)
    shard = (tmp_path / "out/rollouts/step-00001.jsonl").read_text()
    rows = [json.loads(line) for line in shard.splitlines()]
    scorer = load_scorer(tmp_path / "bytes")
    for row in rows:
        text = row["text"].encode()
        assert row["seen"]["reward_model_cut"] == float(len(text) > 12)
        if len(text) > 12:  # an empty turn is all that is left of the prompt
            expected = scorer.score([[{"role": "user", "content": "a"}]], [text[:12].decode()])
            assert row["score"] == pytest.approx(expected[0], abs=1e-5)
    share = sum(len(row["text"]) > 12 for row in rows) / len(rows)
    assert share > 0
    assert metrics_of(tmp_path / "out")[0]["reward_model_cut"] == share
