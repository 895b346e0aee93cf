"""Online DPO: which answers become pairs, that it learns, keeps its budget and resumes."""

import json

import pytest
import torch
from safetensors.torch import load_file

from policy.__main__ import main
from policy.backbone import load_causal_lm, save_model, score_model_from
from policy.config import BadInput
from policy.online_dpo import Answers, OnlineDPOConfig, train
from policy.reader import Reader
from policy.response_logprobs import response_logprobs
from policy.rollout import PromptTokens
from policy.sampling import Sampled, sample

WANTED = 8  # the letter c
SMALL = {
    "steps": 4,
    "prompts_per_step": 8,
    "max_response_tokens": 8,
    "temperature": 1.0,
    "lr_peak": 3e-3,
    "checkpoint_every": 2,
    "warmup_steps": 0,
}


def share_of_wanted(prompts, completions):
    return [4.0 * ids.count(WANTED) / len(ids) for ids in completions]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "split": "test" if i == 5 else "train",
            "prompt": "a b c d e f"[: 2 * i + 1],
        }
        for i, split in enumerate(["train"] * 5 + ["test"])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def online(prompts, tiny_policy, tmp_path):
    init = tiny_policy()

    def run(out="out", on_step=None, **more):
        train(
            OnlineDPOConfig(**(SMALL | more)),
            init=init,
            prompts=prompts,
            out=tmp_path / out,
            score_fn=share_of_wanted,
            on_step=on_step,
        )
        return tmp_path / out

    return run


def rows_of(folder, phase):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def test_the_best_and_the_worst_are_the_pair_and_equal_scores_none():
    samples = [Sampled([7, 2], [-1.0, -2.0], "end")] * 9
    scores = [1.0, 3.0, 2.0, 5.0, 5.0, 5.0 + 1e-6, -1.0, -4.0, 0.0]
    answers = Answers(
        [PromptTokens("p", [], [4])] * 9,
        list(range(9)),
        samples,
        scores,
        [torch.tensor([-1.5, -1.5])] * 9,
    )
    assert answers.pairs(3) == [(1, 0), (8, 7)]
    assert answers.kl_nats == [0.0] * 9
    # per token: exp(q - p) - 1 - (q - p) with q - p = -0.5 and 0.5
    k3 = (2.718281828**-0.5 - 1 + 0.5) + (2.718281828**0.5 - 1 - 0.5)
    assert answers.kl_k3_nats[0] == pytest.approx(k3, abs=1e-6)


def test_it_learns_to_say_what_is_rewarded(online):
    out = online(
        steps=10, prompts_per_step=16, answers_per_prompt=4, kl_stop_nats=None, lr_peak=6e-3
    )
    steps = rows_of(out, "online-dpo")
    (final,) = rows_of(out, "final")
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the policy is the reference
    assert steps[0]["kl_nats"] == pytest.approx(0.0, abs=1e-4)
    assert steps[0]["score"] < 0.3
    assert final["score"] > 1.0


def test_a_run_that_was_interrupted_ends_bit_for_bit_the_same(online):
    def interrupt(step, metrics):
        if step == 3:
            raise KeyboardInterrupt

    whole = online("whole")
    with pytest.raises(KeyboardInterrupt):
        online("cut", on_step=interrupt)
    cut = online("cut")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()
    shards = [sorted((folder / "rollouts").iterdir()) for folder in (whole, cut)]
    assert len(shards[0]) == 4
    assert [path.read_text() for path in shards[0]] == [path.read_text() for path in shards[1]]


def test_beyond_the_budget_it_ends_with_the_last_weights_within(online, tiny_policy):
    out = online(steps=30, lr_peak=2e-2, kl_stop_nats=0.5, kl_smoothing=0.0)
    (stop,) = rows_of(out, "kl_stop")
    assert stop["kl_nats"] > 0.5
    assert stop["step"] < 31
    policy, tokenizer = load_causal_lm(out)
    root, _ = load_causal_lm(tiny_policy())
    ids = [[4, 7, 2, 5]] * 200
    found = sample(
        policy, tokenizer, ids, temperature=1.0, max_new_tokens=8, seeds=list(range(200))
    )
    tokens = [one.tokens for one in found]
    own, other = (response_logprobs(Reader(model), ids, tokens) for model in (policy, root))
    kl = sum(float((a - b).sum()) for a, b in zip(own, other, strict=True)) / 200
    assert kl < 0.8


def test_the_command_line(tiny_policy, prompts, tmp_path, capsys):
    model, tokenizer = score_model_from(tiny_policy(seed=2, name="trunk"), seed=2)
    with torch.no_grad():
        model.score.weight.mul_(30)
    save_model(model, tokenizer, tmp_path / "reward")
    command = ["online-dpo", "--init", str(tiny_policy()), "--prompts", str(prompts)]
    command += ["--reward-model", str(tmp_path / "reward"), "--out", str(tmp_path / "out")]
    command += ["--set", "steps=1", "--set", "prompts_per_step=4", "--set", "max_response_tokens=6"]
    assert main([*command, "--set", "answers_per_prompt=1"]) == 2
    assert "answers_per_prompt must be 2 or more: 1" in capsys.readouterr().err
    assert main(command) == 0
    (row,) = rows_of(tmp_path / "out", "online-dpo")
    assert row["pairs"] >= 1
    load_causal_lm(tmp_path / "out")
    with pytest.raises(BadInput, match="a reward model or a score function"):
        train(OnlineDPOConfig(), init=tmp_path / "init", prompts=prompts, out=tmp_path / "x")
