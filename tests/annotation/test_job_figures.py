"""A job's figures: which stand first, which are a table, and what they are called."""

import pytest

from annotation.models import JobKind, JobMetric, TrainingJob
from annotation.pages.job_figures import KL_COEF, KL_TARGET_NATS, figures_of, target_of
from annotation.pages.measures import Figure, figures, name_of, phase_of
from policy.ppo_config import PPOConfig


def job_of(cast, kind, *rows, **more):
    job = TrainingJob.objects.create(project=cast.project, kind=kind, **more)
    for phase, step, values in rows:
        JobMetric.objects.create(job=job, phase=phase, step=step, values=values)
    return job


def test_ppo_shows_score_kl_entropy_length_clipping_and_values_first(cast):
    keys = "value_loss explained_variance clipfrac approxkl response_tokens entropy kl_nats score"
    rows = [("ppo", n, dict.fromkeys([*keys.split(), "lr"], n / 7)) for n in (1, 2, 3)]
    found = figures_of(job_of(cast, JobKind.PPO, *rows))
    assert [chart.name for chart in found.leading] == [
        *("score", "kl_nats", "entropy", "response_tokens", "clipfrac", "explained_variance"),
        "value_loss",
    ]
    [more] = found.more
    assert {chart.name for chart in more.charts} == {"approxkl", "lr"}
    assert found.singles == []
    targets = {chart.name: chart.target and chart.target.text for chart in found.leading}
    assert targets.pop("kl_nats") == "6"
    assert set(targets.values()) == {None}


@pytest.mark.parametrize("kind", [JobKind.REWARD, JobKind.JUDGE])
def test_a_reward_model_shows_its_losses_before_anything_else(cast, kind):
    rows = [
        ("data", 0, {"train_num_used": 60, "bf16": 0}),
        ("train", 1, {"lr": 0.1, "loss": 0.7, "accuracy": 0.5}),
        ("train", 2, {"lr": 0.2, "loss": 0.6, "accuracy": 0.6}),
        ("dev", 1, {"accuracy": 0.5, "log_loss": 0.7}),
        ("dev", 2, {"accuracy": 0.5, "log_loss": 0.6}),
    ]
    found = figures_of(job_of(cast, kind, *rows))
    assert [chart.title for chart in found.leading] == [
        "Training: Loss",
        "On the dev split: Log loss",
        "Training: Accuracy on pairs",
    ]
    assert [phase.name for phase in found.singles] == ["On the dev split", "Data"]
    singles = {phase.name: phase.singles for phase in found.singles}
    assert singles["Data"] == [  # by name
        Figure("bf16", "Half precision (bf16)", "no"),
        Figure("train_num_used", "Train: Comparisons used", "60"),
    ]
    # it never changed, so no chart of it
    assert singles["On the dev split"] == [Figure("accuracy", "Accuracy on pairs", "0.5")]
    assert [[chart.name for chart in phase.charts] for phase in found.more] == [["lr"]]


def test_a_kind_with_no_order_of_its_own_has_all_its_charts_behind_more(cast):
    rows = [("any", 1, {"x": 1}), ("any", 2, {"x": 2})]
    found = figures_of(job_of(cast, JobKind.SAMPLE, *rows))
    assert (found.leading, [phase.name for phase in found.more]) == ([], ["any"])


def test_the_page_folds_what_does_not_come_first(cast, enter):
    rows = [("ppo", n, {"score": n / 3, "lr": n}) for n in (1, 2)]
    job = job_of(cast, JobKind.PPO, *rows, ("prompts", 0, {"prompts": 816}))
    html = enter(cast.reviewer).get(f"/p/shop/jobs/{job.pk}/").content.decode()
    before, _, rest = html.partition('<details id="more-charts" data-stays>')
    more, _, table = rest.partition('<details id="single-figures" data-stays open>')
    assert [part.count("<figure") for part in (before, more, table)] == [1, 1, 0]
    assert ("Learning rate" in more, "816" in table) == (True, True)


@pytest.mark.parametrize(
    ("config", "target"),
    [
        ({}, 6.0),
        ({"kl_target_nats": 3}, 3),
        ({"kl_target_nats": None}, None),
        ({"kl_coef": 0}, None),
    ],
)
def test_kl_has_a_target_where_the_job_steers_towards_one(config, target):
    assert target_of(TrainingJob(kind=JobKind.PPO, config=config)) == target


def test_the_settings_known_here_are_the_laboratorys_own():
    assert (PPOConfig().kl_target_nats, PPOConfig().kl_coef) == (KL_TARGET_NATS, KL_COEF)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("kl_nats", "KL to the reference, nats per answer"),
        ("dev_calibrated_ece", "Dev: Calibration error, calibrated"),
        ("accuracy_difference.mean", "Accuracy, difference · mean"),
        ("part_length", "Part of the score: Length"),
        ("new_mean_tokens", "The new one: Tokens per answer"),
        ("of_tomorrow", "of_tomorrow"),
        ("dev_of_tomorrow", "dev_of_tomorrow"),
    ],
)
def test_a_key_has_a_name_or_stands_for_itself(key, name):
    assert name_of(key) == name


def test_phases_have_names_those_of_members_too():
    assert phase_of("member-1 dev") == "Member 1: On the dev split"
    assert phase_of("a phase of tomorrow") == "a phase of tomorrow"


def test_figures_are_flat_and_readable():
    values = {
        "gain": {"mean": 0.25, "interval": [0.1, 0.4]},
        "other_groups": True,
        "accuracy": None,
        "against": "sft-1",
        "compiled": 1,
    }
    assert [(each.key, each.value) for each in figures(values)] == [
        ("gain.mean", "0.25"),
        ("gain.interval", "0.1, 0.4"),
        ("other_groups", "yes"),
        ("accuracy", "–"),
        ("against", "sft-1"),
        ("compiled", "yes"),
    ]
