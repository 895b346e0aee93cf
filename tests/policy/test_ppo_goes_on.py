"""Whole PPO runs on models of one layer that are cut off, run away or meet what is no number.

They resume bit for bit, keep their KL budget, go back to a good step, or end with a sentence.
"""

import json
import math
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from policy.backbone import load_causal_lm, save_model
from policy.checkpoint import load_tensors
from policy.config import BadInput, Diverged, Stopped
from tests.policy.short_ppo import (
    SMALL,
    assert_same_run,
    metrics_of,
    share_of_wanted,
    terminate_at,
)


class Crash(Exception):
    """Stands for a kill between two steps."""


def crash_at(step: int):
    def on_step(done, metrics):
        if done == step:
            raise Crash

    return on_step


ADAPTIVE = {"steps": 6, "kl_target_nats": 0.3, "kl_horizon": 40}


def test_a_run_that_crashed_goes_on_elsewhere_and_ends_bit_equal(ppo):
    whole = ppo(out="whole", **ADAPTIVE)
    assert len({row["kl_coef"] for row in metrics_of(whole)}) == 6, "the coefficient must move"
    with pytest.raises(Crash):
        ppo(out="attempt-1", on_step=crash_at(5), **ADAPTIVE)
    first = whole.parent / "attempt-1"
    assert (first / "rollouts" / "step-00005.jsonl").is_file()  # after the checkpoint of step 4
    resumed = ppo(out="attempt-2", resume_from=[first], **ADAPTIVE)
    assert [row["step"] for row in metrics_of(resumed)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((resumed / "run.json").read_text())["resumed_at_step"] == 4
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}])
def test_a_run_asked_to_stop_goes_on_in_place_and_ends_bit_equal(ppo, more):
    whole = ppo(out="whole", **ADAPTIVE, **more)

    with pytest.raises(Stopped, match="step 3"):
        ppo(on_step=terminate_at(3), **ADAPTIVE, **more)
    assert_same_run(whole, ppo(**ADAPTIVE, **more))


def test_training_ends_at_the_kl_budget_with_the_last_policy_within_it(ppo, tmp_path):
    settings = {"steps": 30, "epochs": 4, "kl_coef": 0.0, "lr_peak": 1e-2, "approx_kl_limit": 9.0}
    out = ppo(kl_stop_nats=0.5, kl_smoothing=0.0, **settings)
    (stop,) = metrics_of(out, "kl_stop")
    rows = metrics_of(out)
    assert stop["kl_nats"] > 0.5
    assert stop["step"] == len(rows) + 1 < 30
    assert all(row["kl_nats"] <= 0.5 for row in rows)
    assert metrics_of(out, "final") == []
    # What is published is the policy that the last logged rollouts came from.
    policy, _ = load_causal_lm(out)
    shard = out / "rollouts" / f"step-{len(rows):05d}.jsonl"
    row = json.loads(shard.read_text().splitlines()[0])
    assert_sampled_from(policy, row)


def assert_sampled_from(policy, row) -> None:
    """The row's log-probs are this policy's."""
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([row["tokens"]])).logits[0]
    logits[:, policy.config.pad_token_id] = -1e9
    tokens = row["tokens"][row["response_start"] :]
    logprobs = logits.log_softmax(-1)[row["response_start"] - 1 : -1]
    found = logprobs[range(len(tokens)), tokens]
    torch.testing.assert_close(found, torch.tensor(row["logprobs"]), atol=1e-5, rtol=0)


def test_a_head_on_the_trunk_goes_back_with_its_policy(ppo):
    """A run that breaks the budget, and one that stops with the policy that the first goes back to:
    the rollouts that broke it are of the policy two updates later."""
    settings = {"value": "head", "kl_stop_nats": 0.5, "kl_smoothing": 0.0, "steps": 30}
    settings |= {"epochs": 4, "kl_coef": 0.0}
    out = ppo(**settings)
    (stop,) = metrics_of(out, "kl_stop")
    with pytest.raises(Stopped):
        ppo(out="other", on_step=terminate_at(stop["step"] - 2), **settings)
    (saved,) = (out.parent / "other/checkpoints").glob(f"step-{stop['step'] - 2:06d}")
    policy = load_file(saved / "policy.safetensors")
    assert all(torch.equal(policy[k], v) for k, v in load_file(out / "model.safetensors").items())
    head = load_file(saved / "value.safetensors")["weight"]
    published = load_file(out / "value/model.safetensors")["score.weight"]
    assert head.abs().max() > 0
    assert torch.equal(published, head)


def test_the_budget_holds_across_a_resume(ppo):
    """Stopped after the update that breaks the budget: the policy to go back to is on disk only."""
    settings = {"steps": 30, "epochs": 4, "kl_coef": 0.0, "kl_stop_nats": 0.5}
    whole = ppo(out="whole", **settings)
    (stop,) = metrics_of(whole, "kl_stop")
    with pytest.raises(Stopped):
        ppo(on_step=terminate_at(stop["step"] - 1), **settings)
    resumed = ppo(**settings)
    assert metrics_of(resumed, "kl_stop") == [stop]
    first, second = (load_file(one / "model.safetensors") for one in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_kl_is_measured_from_the_reference_that_is_named(ppo, tiny_policy):
    same = metrics_of(ppo(out="same", steps=1))[0]
    other = tiny_policy(seed=9, name="root")
    with torch.no_grad():  # a reference that is clearly another distribution
        model, tokenizer = load_causal_lm(other)
        model.get_input_embeddings().weight.mul_(4.0)
        save_model(model, tokenizer, other)
    apart = metrics_of(ppo(out="apart", steps=1, reference=other, kl_stop_nats=None))[0]
    assert abs(same["kl_nats"]) < 1e-5
    assert apart["kl_nats_k3"] > 0.5
    assert apart["baseline"] != same["baseline"]  # the reference's answers, not the policy's


def test_a_score_that_is_not_a_number_ends_the_run_and_publishes_nothing(ppo, tmp_path):
    def broken(prompts, completions):
        return [float("nan")] * len(completions)

    with pytest.raises(Diverged, match="score is not finite"):
        ppo(score_fn=broken)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def spoiled_in(*steps: int):
    """share_of_wanted, with one score that is no number in these steps; the reference is not
    asked, so a step is a call."""
    calls = []

    def score(prompts, completions):
        calls.append(1)
        scores = share_of_wanted(prompts, completions)
        return [float("nan"), *scores[1:]] if len(calls) in steps else scores

    return score


def test_steps_that_are_not_numbers_are_skipped_and_then_undone(ppo, tmp_path):
    settings = {"steps": 8, "baseline_samples": 0, "checkpoint_every": 2}
    out = ppo(score_fn=spoiled_in(5, 6, 7), **settings)
    assert [row["step"] for row in metrics_of(out)] == [1, 2, 3, 4, 8]
    skipped = metrics_of(out, "skipped")
    assert [row["rolled_back_to"] for row in skipped] == [-1, -1, 4]
    assert skipped[-1]["num_skipped"] == 3
    told = json.loads((out / "skipped" / "step-000006.json").read_text())
    assert told["why"].startswith("score is not finite")
    assert len(told["prompts"]) == SMALL["rollouts_per_step"]
    # Step 8 goes on as the checkpoint of step 4 stood, which is where another run stops.
    with pytest.raises(Stopped):
        ppo(out="other", on_step=terminate_at(4), score_fn=spoiled_in(), **settings)
    policy, _ = load_causal_lm(tmp_path / "init")
    (saved,) = (tmp_path / "other" / "checkpoints").glob("step-000004")
    load_tensors(policy, load_file(saved / "policy.safetensors"))
    for row in (out / "rollouts" / "step-00008.jsonl").read_text().splitlines():
        assert_sampled_from(policy, json.loads(row))


def test_skipped_steps_push_no_good_checkpoint_out(ppo):
    settings = {"steps": 7, "baseline_samples": 0, "checkpoint_every": 1}
    out = ppo(score_fn=spoiled_in(4, 5, 6), **settings)
    assert [row["rolled_back_to"] for row in metrics_of(out, "skipped")] == [-1, -1, 3]
    assert [row["step"] for row in metrics_of(out)] == [1, 2, 3, 7]


def test_a_checkpoint_of_a_stop_among_skipped_steps_is_none_to_go_back_to(ppo):
    settings = {"steps": 7, "baseline_samples": 0, "checkpoint_every": 1}
    spoiled = spoiled_in(4)

    def asked_to_stop(prompts, completions):
        scores = spoiled(prompts, completions)
        if any(math.isnan(score) for score in scores):
            os.kill(os.getpid(), signal.SIGTERM)
        return scores

    with pytest.raises(Stopped):
        ppo(score_fn=asked_to_stop, **settings)
    out = ppo(score_fn=spoiled_in(1, 2), **settings)  # steps 5 and 6
    assert [row["rolled_back_to"] for row in metrics_of(out, "skipped")] == [-1, -1, 3]


def test_one_bad_step_costs_no_more_than_itself(ppo):
    settings = {"steps": 5, "baseline_samples": 0}
    whole = ppo(out="whole", score_fn=spoiled_in(3), **settings)
    assert [row["step"] for row in metrics_of(whole)] == [1, 2, 4, 5]
    with pytest.raises(Stopped):  # after step 4; what comes then is the first call of a new process
        ppo(on_step=terminate_at(4), score_fn=spoiled_in(3), **settings)
    resumed = ppo(score_fn=spoiled_in(), **settings)
    assert_same_run(whole, resumed)
    assert metrics_of(resumed, "skipped") == metrics_of(whole, "skipped")


def test_a_score_of_the_reference_that_is_no_number_is_not_kept(ppo, tmp_path):
    def broken(prompts, completions):
        calls.append(1)
        return [float("nan") if len(calls) == 2 else 1.0] * len(completions)

    calls: list[int] = []
    out = ppo(score_fn=broken, steps=2)
    assert [row["step"] for row in metrics_of(out)] == [2]
    assert "NaN" not in "".join(path.read_text() for path in (out / "baselines").iterdir())


def test_a_disk_without_room_is_told_of_before_the_first_step(ppo, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(BadInput, match=r"has 0\.0 MB free, and this run will need .* 3 x "):
        ppo(steps=6)
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == ""


def falling_and_then(last: float):
    """Scores that fall from step to step, so that the best policy is the one it began with; and
    what that policy is given on the prompts of the last look, where the last policy had -4."""
    scores = iter([-1.0, -2.0, -3.0, -4.0, last])
    return lambda prompts, completions: [next(scores)] * len(completions)


def test_the_best_policy_is_published_beside_the_last(ppo):
    out = ppo(score_fn=falling_and_then(-3.5), steps=3, lr_peak=1e-2, baseline_samples=0)
    first, best, last = (
        load_file(folder / "model.safetensors")
        for folder in (out.parent / "init", out / "best", out)
    )
    assert all(torch.equal(first[name], best[name]) for name in first)
    assert not all(torch.equal(last[name], best[name]) for name in first)
    load_causal_lm(out / "best")
    (kept,) = metrics_of(out, "kept")
    assert (kept["step"], kept["kept_step"], kept["score"]) == (3, 0, -1.0)


def test_a_policy_that_only_had_easier_prompts_is_not_the_best(ppo):
    out = ppo(score_fn=falling_and_then(-4.0), steps=3, lr_peak=1e-2, baseline_samples=0)
    assert not (out / "best").exists()
    assert metrics_of(out, "kept") == []


def test_an_alarm_is_a_number_of_its_step_and_a_line_in_the_log(ppo, caplog):
    out = ppo(steps=2, lr_peak=0.5, epochs=4, kl_stop_nats=None)
    rows = metrics_of(out, "alarms")
    assert rows[0]["approxkl"] > 0.03
    counts = {row["step"]: len(row) - 2 for row in rows}
    assert {row["step"]: row["alarms"] for row in metrics_of(out)} == counts
    assert "approxkl is" in caplog.text
    assert "lower lr_peak or epochs" in caplog.text


def test_weights_that_are_not_numbers_end_the_run(ppo, tiny_policy, tmp_path):
    broken = tiny_policy(name="broken")
    model, tokenizer = load_causal_lm(broken)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    save_model(model, tokenizer, broken)
    with pytest.raises(Diverged, match="ref_logprobs is not finite"):
        ppo(reference=broken, baseline_samples=0)
