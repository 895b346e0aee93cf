"""Whole PPO runs on models of one layer: it learns, resumes bit for bit, keeps its KL budget."""

import argparse
import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model, score_model_from
from policy.checkpoint import load_tensors
from policy.config import BadInput, Diverged, Stopped, load_config
from policy.ensemble import Ensemble, Member
from policy.ppo import Trainer, add_arguments, run_command, train
from policy.ppo_config import PPOConfig
from policy.ppo_models import Models, prompt_tokens, scored_fn_of
from policy.run import Run
from policy.score_scale import ScoreScale
from policy.scoring import load_scorer
from policy.text import render_prompt
from policy.tokenizer import train_tokenizer
from policy.update import targets_of

WANTED = 8  # the letter c
SMALL = {
    "steps": 4,
    "rollouts_per_step": 8,
    "max_response_tokens": 8,
    "temperature": 1.0,
    "lr_peak": 3e-3,
    "value_lr_peak": 3e-3,
    "checkpoint_every": 2,
    "warmup_steps": 0,
    "kl_target_nats": None,
    "baseline_samples": 2,
}


def share_of_wanted(prompts, completions):
    """A score function: four times the share of the letter c."""
    return [4.0 * ids.count(WANTED) / len(ids) for ids in completions]


@pytest.fixture
def prompts(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "split": "test" if i == 5 else "train",
            "prompt": [{"role": "user", "content": " ".join("abcdefghij"[i : i + 1 + i % 3])}],
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def ppo(prompts, tiny_policy, tmp_path):
    """A function that trains into tmp_path/out with SMALL, changed as told, and returns it."""
    init = tiny_policy()

    def run(*, out: str = "out", on_step=None, resume_from=(), score_fn=share_of_wanted, **more):
        named = ("prompts", "reference", "value_init")
        paths = {"prompts": prompts} | {name: more.pop(name) for name in named if name in more}
        train(
            PPOConfig(**(SMALL | more)),
            init=init,
            out=tmp_path / out,
            score_fn=score_fn,
            on_step=on_step,
            resume_from=resume_from,
            **paths,
        )
        return tmp_path / out

    return run


def metrics_of(directory: Path, phase: str = "ppo") -> list[dict]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


def without_times(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def test_ppo_learns_to_say_what_is_rewarded(ppo):
    out = ppo(
        steps=12,
        rollouts_per_step=32,
        epochs=4,
        minibatches=1,
        lr_peak=6e-3,
        kl_coef=0.02,
        kl_stop_nats=None,
        missing_end="off",
    )
    rows = metrics_of(out)
    (final,) = metrics_of(out, "final")
    assert rows[0]["score"] < 0.6
    assert final["score"] > 2.0
    assert final["score_difference"] > 1.5
    assert rows[-1]["explained_variance"] > rows[0]["explained_variance"]


def test_first_step_says_that_nothing_has_moved_yet(ppo):  # T9
    (row,) = metrics_of(ppo(steps=1))
    assert row["ratio_first"] == pytest.approx(1.0, abs=1e-6)
    assert row["exp_abs_dlogp"] == pytest.approx(1.0, abs=1e-5)
    assert row["kl_nats"] == pytest.approx(0.0, abs=1e-5)
    assert row["value"] == 0.0  # the head starts at zero
    assert row["reward"] == pytest.approx(row["score_difference"] + row["missing_end"], abs=1e-5)
    assert row["kl_coef"] == SMALL.get("kl_coef", PPOConfig().kl_coef)
    seconds = {name for name in row if name.endswith("_seconds")}
    assert {"rollout_seconds", "score_seconds", "update_seconds"} <= seconds


def test_output_is_a_policy_and_a_value_model(ppo):
    out = ppo(steps=2)
    policy = AutoModelForCausalLM.from_pretrained(out)
    value = AutoModelForSequenceClassification.from_pretrained(out / "value")
    assert policy.config.model_type == "gpt2"
    assert value.score.weight.abs().max() > 0
    assert json.loads((out / "run.json").read_text())["finished"] is True


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_answers_to_one_prompt_are_compared_without_a_value_model(ppo, advantage):
    settings = {"advantage": advantage, "answers_per_prompt": 4, "steps": 3}
    settings |= {name: getattr(PPOConfig(), name) for name in ("value_lr_peak", "baseline_samples")}
    whole = ppo(out="whole", **settings)
    assert not (whole / "value").exists()
    assert not (whole / "baselines").exists()  # the reference's answers would cancel
    rows = [json.loads(s) for s in (whole / "rollouts/step-00001.jsonl").read_text().splitlines()]
    names = [row["prompt_id"] for row in rows]
    assert names == [names[0]] * 4 + [names[4]] * 4
    assert names[0] != names[4]
    assert len({tuple(row["tokens"]) for row in rows[:4]}) > 1
    first = metrics_of(whole)[0]
    assert first["ratio_first"] == pytest.approx(1.0, abs=1e-6)
    assert "value" not in first
    with pytest.raises(Stopped):
        ppo(on_step=terminate_at(2), **settings)
    assert_same_run(whole, ppo(**settings))


def test_a_head_on_the_policys_trunk_gives_the_values(ppo):
    settings = {"value": "head", "steps": 3}
    whole = ppo(out="whole", **settings)
    rows = metrics_of(whole)
    assert rows[0]["value"] == 0.0
    assert rows[2]["value"] != 0.0
    assert {"value_loss", "explained_variance"} <= rows[0].keys()
    value = AutoModelForSequenceClassification.from_pretrained(whole / "value")
    policy = AutoModelForCausalLM.from_pretrained(whole)
    trunks = (dict(model.base_model.named_parameters()) for model in (value, policy))
    assert all(torch.equal(a, b) for a, b in zip(*(t.values() for t in trunks), strict=True))
    assert value.score.weight.abs().max() > 0
    with pytest.raises(Stopped):
        ppo(on_step=terminate_at(2), **settings)
    assert_same_run(whole, ppo(**settings))


def test_the_policy_waits_while_the_value_model_warms_up(ppo):
    first, second = metrics_of(ppo(steps=2, value_warmup_steps=1, kl_stop_nats=None))
    assert "policy_loss" not in first
    assert first["value_loss"] > 0
    assert second["kl_nats"] == pytest.approx(0.0, abs=1e-5)
    assert second["value"] != 0.0
    assert "policy_loss" in second


def test_while_the_policy_waits_its_schedules_wait_too(ppo):
    waited = metrics_of(ppo(steps=5, value_warmup_steps=3, warmup_steps=1, kl_target_nats=6.0))
    assert [row["kl_coef"] for row in waited[:4]] == [waited[0]["kl_coef"]] * 4
    peak = PPOConfig().lr_peak if "lr_peak" not in SMALL else SMALL["lr_peak"]
    rates = [row["lr"] for row in waited[:5]]
    assert rates == pytest.approx([0, 0, 0, peak / 2, peak])


def test_only_train_prompts_are_drawn_and_each_step_has_its_shard(ppo):
    out = ppo(steps=3)
    shards = sorted((out / "rollouts").iterdir())
    assert [one.name for one in shards] == [f"step-{step:05d}.jsonl" for step in (1, 2, 3)]
    assert sorted(one.name for one in (out / "texts").iterdir()) == [one.name for one in shards]
    rows = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    assert len(rows) == 3 * SMALL["rollouts_per_step"]
    assert {row["prompt_id"] for row in rows} == {"p0", "p1", "p2", "p3", "p4"}
    assert metrics_of(out, "prompts") == [
        {"step": 0, "phase": "prompts", "prompts": 5, "prompts_cut": 0}
    ]
    assert len({row["seed"] for row in rows}) == len(rows)


def test_policy_that_still_is_the_reference_gains_nothing_on_average(tiny_policy, tmp_path):  # T24
    def score(prompts, completions):
        """Some prompts are far easier than others, which is what the baseline takes away."""
        return [
            50.0 * prompt.ids[1] + sum(ids) / 10
            for prompt, ids in zip(prompts, completions, strict=True)
        ]

    path, init = tmp_path / "prompts.jsonl", tiny_policy()
    rows = [
        {"id": str(n), "prompt": " ".join("abcdefghij"[int(c)] for c in f"{n:03}")}
        for n in range(1000)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PPOConfig(**(SMALL | {"rollouts_per_step": 250, "baseline_samples": 4}))
    inputs = {"init": init, "reference": init}
    models = Models.load(config, inputs, score_fn=score, device="cpu")
    drawn_from = prompt_tokens(path, models.tokenizer, config, context=32)
    with Run(tmp_path / "out", command="ppo", config=config, inputs=inputs) as run:
        rollouts = Trainer(run, models, drawn_from, config).collect(1)
    gains = targets_of(rollouts, config, kl_coef=0.3).rewards.sum(dim=1)
    assert rollouts.scores.mean() > 300
    assert gains.std() > 0.1
    half_width = 2.576 * gains.std() / len(gains) ** 0.5  # 99 %
    assert abs(gains.mean()) < half_width


# Resume


def assert_same_run(one: Path, other: Path) -> None:
    models = ["model.safetensors"]
    models += ["value/model.safetensors"] if (one / "value").is_dir() else []
    for name in models:
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    for phase in ("ppo", "final"):
        assert without_times(metrics_of(one, phase)) == without_times(metrics_of(other, phase))
    for folder in ("rollouts", "texts", "baselines"):
        if not (one / folder).is_dir():
            continue
        files = {path.name: path.read_text() for path in (one / folder).iterdir()}
        assert files == {path.name: path.read_text() for path in (other / folder).iterdir()}
    ended, expected = (json.loads((each / "run.json").read_text()) for each in (other, one))
    assert ended["fingerprints"] == expected["fingerprints"]
    assert {"policy_weights", "optimizers", "kl_coef"} <= ended["fingerprints"].keys()


class Crash(Exception):
    """Stands for a kill between two steps."""


def crash_at(step: int):
    def on_step(done, metrics):
        if done == step:
            raise Crash

    return on_step


def terminate_at(step: int):
    def on_step(done, metrics):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

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


# KL


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


# Bad input and bad numbers


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_estimator": "k9"}, "kl_estimator must be one of k1, k2, k3: 'k9'"),
        ({"missing_end": "drop"}, "missing_end must be one of subtract, replace, off: 'drop'"),
        ({"clip": 1.5}, r"clip must be in \(0, 1\): 1.5"),
        ({"minibatches": 9, "rollouts_per_step": 8}, "9 minibatches cannot be made of 8"),
        ({"advantage": "reinforce"}, "advantage must be one of gae, rloo, grpo: 'reinforce'"),
        ({"advantage": "rloo"}, "answers_per_prompt must be >= 2 for advantage rloo: 1"),
        ({"answers_per_prompt": 3}, "must be a multiple of answers_per_prompt: 64 and 3"),
        (
            {"advantage": "grpo", "answers_per_prompt": 4, "kl_estimator": "k1"},
            "k1 holds nothing back in grpo's loss",
        ),
        (
            {"advantage": "rloo", "answers_per_prompt": 4, "loss_per": "token"},
            "rloo takes an answer as one action: 'token'",
        ),
        ({"value": "none"}, "value must be one of separate, head: 'none'"),
        ({"value": "head", "value_warmup_steps": 2}, "are for a separate value model"),
        ({"kl_stop_nats": 0.0}, "kl_stop_nats must be above 0 or null: 0.0"),
        ({"temperature": 0.0}, "temperature must be above 0: 0.0"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings, message):
    with pytest.raises(BadInput, match=message):
        PPOConfig(**settings)


def test_a_response_longer_than_the_context_is_refused_and_nothing_written(ppo, tmp_path):
    with pytest.raises(BadInput, match="max_response_tokens 32 leaves no room"):
        ppo(max_response_tokens=32)
    assert not (tmp_path / "out").exists()


def test_prompts_too_long_lose_their_beginning_and_are_counted(ppo):
    out = ppo(steps=1, max_prompt_tokens=5)
    assert metrics_of(out, "prompts")[0]["prompts_cut"] == 1  # c d e of p2; two letters fit
    shard = (out / "rollouts/step-00001.jsonl").read_text()
    rows = [json.loads(line) for line in shard.splitlines()]
    assert max(row["response_start"] for row in rows) == 5


def test_a_file_without_train_prompts_is_refused(ppo, prompts, tmp_path):
    prompts.write_text('{"id": "x", "split": "dev", "prompt": "a"}\n')
    with pytest.raises(BadInput, match="no prompt of the train split"):
        ppo()
    assert not (tmp_path / "out").exists()


# With a reward model on disk


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


def test_settings_come_from_words_too():
    config = load_config(PPOConfig, None, ["kl_target_nats=6", "missing_end=replace"])
    assert (config.kl_target_nats, config.missing_end) == (6.0, "replace")
