"""Whole PPO runs on models of one layer: it learns, and says how."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from policy.config import BadInput, Stopped, load_config
from policy.ppo import Trainer
from policy.ppo_config import PPOConfig
from policy.ppo_models import Models, prompt_tokens
from policy.run import Run
from policy.update import targets_of
from tests.policy.short_ppo import SMALL, assert_same_run, metrics_of, terminate_at


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


def test_settings_come_from_words_too():
    config = load_config(PPOConfig, None, ["kl_target_nats=6", "missing_end=replace"])
    assert (config.kl_target_nats, config.missing_end) == (6.0, "replace")
