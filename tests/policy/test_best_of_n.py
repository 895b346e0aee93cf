"""Best of n: the curve against all subsets, the bound, and demonstrations that sft reads."""

import json
import math
import statistics
from itertools import combinations

import pytest
import torch

from policy.__main__ import main
from policy.backbone import save_model, score_model_from
from policy.best_of_n import BestOfNConfig, _best, best_of_n, expected_best, kl_bound_nats
from policy.config import BadInput
from policy.data import read_demonstrations
from policy.rollout import PromptTokens
from policy.sample import Answer
from policy.sampling import Sampled


def test_the_best_of_k_is_the_mean_over_all_subsets():  # T27
    scores = [0.5, -2.0, 3.0, 1.0, 3.5, -1.0]
    worth = [1.0, 7.0, -3.0, 0.0, -8.0, 2.0]
    for k in range(1, 7):
        sets = list(combinations(range(6), k))
        best = [max(each, key=scores.__getitem__) for each in sets]
        expected = statistics.fmean(scores[at] for at in best)
        assert expected_best(scores, k) == pytest.approx(expected)
        by_other = statistics.fmean(worth[at] for at in best)
        assert expected_best(scores, k, worth) == pytest.approx(by_other)


def test_the_kl_of_many_equal_answers_is_the_bound_and_of_few_below_it():
    """Uniform over m answers with distinct scores: P(best is i-th) = (i^n - (i-1)^n) / m^n."""

    def kl(m, n):
        shares = [(i / m) ** n - ((i - 1) / m) ** n for i in range(1, m + 1)]
        return sum(p * math.log(p * m) for p in shares if p)

    assert kl_bound_nats(1) == 0.0
    assert kl_bound_nats(4) == pytest.approx(math.log(4) - 0.75)
    assert kl(100_000, 4) == pytest.approx(kl_bound_nats(4), abs=1e-3)
    assert kl(3, 4) < kl_bound_nats(4) - 0.05


def test_a_cut_or_blank_answer_is_no_demonstration():
    prompt = PromptTokens("p", [], [4])
    ways = [("a", "length"), ("", "end"), ("b", "end"), ("c", "end")]
    drawn = [
        Answer(prompt, n, n, Sampled([7], [0.0], finish), text)
        for n, (text, finish) in enumerate(ways)
    ]
    scores = [9.0, 8.0, 1.0, 2.0]
    assert _best(drawn, scores, range(4)) == 3
    assert _best(drawn, scores, range(2)) is None


@pytest.fixture
def setting(tiny_policy, tmp_path):
    """Folders of a policy that likes to end and of two reward models, and a file of prompts."""
    models = {"model": tiny_policy()}
    for seed, name in enumerate(("reward_model", "judge")):
        model, tokenizer = score_model_from(tiny_policy(seed=seed, name=f"{name}-trunk"), seed=seed)
        with torch.no_grad():
            model.score.weight.mul_(30)
        save_model(model, tokenizer, tmp_path / name)
        models[name] = tmp_path / name
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"p{i}", "prompt": "a b c d"[: 2 * i + 1]} | ({"split": split} if split else {})
        for i, split in enumerate(("train", None, "dev", "test"))
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**models, "prompts": prompts}


def test_the_best_become_demonstrations_that_sft_learns(setting, tmp_path, capsys):
    """Rejection-sampling fine-tuning: the two commands of the README."""
    out = tmp_path / "best"
    command = ["best-of-n", "--n", "6", "--out", str(out), "--set", "max_new_tokens=20"]
    command += ["--set", "temperature=1.0"]
    for name, path in setting.items():
        command += [f"--{name.replace('_', '-')}", str(path)]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    figures = json.loads((out / "best_of_n.json").read_text())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in samples] == ["p0"] * 6 + ["p1"] * 6
    assert said["num_prompts"] == 2
    assert said["num_cut"] == sum(row["finish"] == "length" for row in samples)
    means = [statistics.fmean(row["score"] for row in samples[at : at + 6]) for at in (0, 6)]
    assert figures["curve"][0]["reward_model"]["mean"] == pytest.approx(statistics.fmean(means))
    best = [max(row["score"] for row in samples[at : at + 6]) for at in (0, 6)]
    assert said["last"]["reward_model"]["mean"] == pytest.approx(statistics.fmean(best))
    judged = statistics.fmean(row["judge_score"] for row in samples)
    assert figures["curve"][0]["judge"]["mean"] == pytest.approx(judged)
    kept = read_demonstrations(out / "demonstrations.jsonl")
    assert len(kept) == said["num_demonstrations"] > 0
    for row in kept:
        ended = [
            one for one in samples
            if one["prompt_id"] == row.id and one["finish"] == "end" and one["text"].strip()
        ]  # fmt: skip
        assert row.completion == max(ended, key=lambda one: one["score"])["text"]
    sft = ["sft", "--data", str(out / "demonstrations.jsonl"), "--init", str(setting["model"])]
    assert main([*sft, "--out", str(tmp_path / "tuned"), "--set", "epochs=1"]) == 0


def test_what_cannot_be_is_refused(setting, tmp_path):
    with pytest.raises(BadInput, match="temperature 0"):
        BestOfNConfig(temperature=0)
    with pytest.raises(BadInput, match="split must be one of train, dev, test: None"):
        BestOfNConfig(split=None)
    setting["prompts"].write_text('{"id": "p", "split": "test", "prompt": "a"}\n')
    with pytest.raises(BadInput, match="no prompt of the split 'train'"):
        best_of_n(BestOfNConfig(max_new_tokens=4), **setting, out=tmp_path / "out")


@pytest.mark.parametrize("role", ["reward_model", "judge"])
def test_what_cannot_score_is_refused_before_a_word_is_sampled(
    setting, tmp_path, monkeypatch, role
):
    monkeypatch.setattr("policy.best_of_n.answers", None)  # calling it is a TypeError
    with pytest.raises(BadInput, match="max_new_tokens 31 is too long for the reward model"):
        best_of_n(BestOfNConfig(max_new_tokens=31), **setting, out=tmp_path / "out")
    absent = {**setting, role: tmp_path / "nowhere"}
    with pytest.raises(BadInput, match="nowhere"):
        best_of_n(BestOfNConfig(max_new_tokens=4), **absent, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
