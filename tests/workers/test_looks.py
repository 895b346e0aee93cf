"""Three verdicts by one difference, with the looks at dev counted."""

import math

import numpy as np
import pytest
from scipy import stats

from annotation.models import ModelVersion, TrainingJob
from rewardmodel.bootstrap import PairRow
from workers.looks import FAMILY_LEVEL, Difference, find, level_of_look
from workers.reward_gate import looks_before, reward_against

SPREAD = np.random.default_rng(5).normal(size=60)
SPREAD = (SPREAD - SPREAD.mean()) / SPREAD.std(ddof=1)  # mean 0, deviation 1


def difference(mean: float, deviation: float, count: int = 60) -> Difference:
    return Difference(mean=mean, deviation=deviation, groups=count)


def test_an_interval_is_students():
    values = [0.3, -0.2, 0.5, 0.1, 0.0]
    found = Difference.of([(str(n), value, 2.0) for n, value in enumerate(values)])
    wanted = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert found.interval(0.05) == pytest.approx(wanted)
    assert Difference.of([("a", 1.0, 1.0)]).interval(0.05) == (-math.inf, math.inf)
    assert Difference.of([]).groups == 0


def test_a_groups_weight_is_its_share():
    rows = [("a", 1.0, 3.0), ("b", 0.0, 1.0)]
    found = Difference.of(rows)
    assert found.mean == 0.75
    shares = [1.5, 0.5]  # of two groups, mean 1
    slow = sum((share * (value - 0.75)) ** 2 for share, value in zip(shares, (1, 0), strict=True))
    assert found.deviation == pytest.approx(math.sqrt(slow / 1))


def test_the_looks_together_spend_five_percent():
    assert sum(level_of_look(k) for k in range(1, 200_001)) == pytest.approx(FAMILY_LEVEL, abs=1e-6)
    assert level_of_look(1) == pytest.approx(0.0304, abs=1e-4)


@pytest.mark.parametrize(
    ("mean", "deviation", "finding"),
    [
        (-0.10, 0.2, "better"),  # -0.10 +- 0.057
        (0.00, 0.05, "not_worse"),  # 0 +- 0.0143
        (0.015, 0.01, "not_worse"),  # certainly above 0, and within the margin
        (0.00, 0.2, "undecided"),
        (0.015, 0.05, "undecided"),  # 0.0007 to 0.0293: a plain 5 % starts at 0.0021
        (0.03, 0.2, "undecided"),
        (0.07, 0.2, "undecided"),  # from 0.0128
        (0.08, 0.2, "worse"),  # from 0.0228
        (0.10, 0.2, "worse"),
    ],
)
def test_four_verdicts(mean, deviation, finding):
    assert find(difference(mean, deviation), look=1).finding == finding


def test_more_looks_make_every_claim_harder():
    for mean, claim in [(-0.06, "better"), (0.10, "worse")]:
        found = [find(difference(mean, 0.2), look=k).finding for k in (1, 9)]
        assert found == [claim, "undecided"]


@pytest.mark.parametrize("mean", [-0.03, 0.0, 0.01, 0.015, 0.025, 0.05])
def test_more_answers_never_turn_a_refusal_into_a_pass_or_a_pass_into_a_refusal(mean):
    ranks = {"undecided": 0, "not_worse": 1, "better": 2, "worse": 1}
    found = [
        find(difference(mean, 0.2, count), look=2).finding
        for count in (10, 30, 100, 300, 1000, 3000, 10_000, 100_000)
    ]
    assert [ranks[one] for one in found] == sorted(ranks[one] for one in found)
    assert ("worse" in found) == (mean > 0.02)
    assert found[-1] == ("worse" if mean > 0.02 else "better" if mean < 0 else "not_worse")


@pytest.mark.parametrize(("mean", "finding"), [(0.0, "not_worse"), (0.05, "worse")])
def test_as_many_more_groups_as_it_says_do_decide_it_at_the_next_look(mean, finding):
    undecided = find(difference(mean, 0.2), look=2)
    assert (undecided.finding, undecided.more_groups is None) == ("undecided", False)
    more = undecided.more_groups
    assert find(difference(mean, 0.2, 60 + more), look=3).finding == finding
    assert find(difference(mean, 0.2, 60 + int(0.9 * more)), look=3).finding == "undecided"


def test_what_lies_at_the_margin_is_not_foretold():
    for mean in (0.02, 0.02001):
        found = find(difference(mean, 0.2), look=2)
        assert (found.finding, found.more_groups) == ("undecided", None)


def test_of_many_looks_at_equals_hardly_any_project_hears_of_a_better_one():
    """Twenty candidates that are as good as what is in force, in 400 projects."""
    generator = np.random.default_rng(0)
    fooled = plainly = 0
    for _ in range(400):
        means = generator.normal(size=20) / math.sqrt(60)
        found = [find(difference(mean, 1.0), look=k + 1).finding for k, mean in enumerate(means)]
        fooled += "better" in found
        plainly += any(difference(mean, 1.0).interval(0.05)[1] < 0 for mean in means)
    assert fooled / 400 <= 0.05
    assert plainly / 400 > 0.3  # what uncounted looks would do


def rows(loss: float, spread: float = 0.0) -> list[PairRow]:
    return [PairRow(str(n), loss + spread * one, 1.0, 1.0) for n, one in enumerate(SPREAD)]


def test_the_gate_of_a_reward_model_answers_with_the_numbers():
    said = {
        name: reward_against(rows(loss, spread), rows(0.6), "old", look=3)
        for name, loss, spread in [
            ("better", 0.5, 0.1),
            ("undecided", 0.6, 0.2),
            ("never", 0.62001, 0.2),
            ("worse", 0.7, 0.1),
        ]
    }
    assert [(one.verdict, one.passed) for one in said.values()] == [
        ("passed", True),
        ("undecided", False),
        ("undecided", False),
        ("failed", False),
    ]
    more = said["undecided"].numbers["look"]["more_groups"]
    assert said["undecided"].why.startswith(f"Undecided: about {more} more answered dev groups")
    assert "Against old on 60 groups of dev, look 3" in said["undecided"].why
    assert said["never"].why.startswith("Undecided, and it looks no better")
    assert said["worse"].why.startswith("Worse.")


@pytest.mark.django_db
def test_looks_are_those_in_which_dev_was_asked(project):
    def make(name: str, **numbers: object) -> ModelVersion:
        job = TrainingJob.objects.create(project=project, kind="reward")
        metrics = {"gate": {"passed": True, "numbers": numbers}} if numbers else {}
        return ModelVersion.objects.create(
            kind="reward", stage="reward", name=name, path=name, job=job, metrics=metrics
        )

    make("first", accuracy=0.7)
    make("second", log_loss_difference={"mean": 0.0})
    version = make("third")
    assert looks_before(version, project) == 1
    version.metrics = {"gates_before": [{"numbers": {"log_loss_difference": {}}}, {"numbers": {}}]}
    version.save()
    assert looks_before(version, project) == 2
