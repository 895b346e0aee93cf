"""workers.statistics: means and their intervals against hand-made tables."""

import math

import pytest

from rewardmodel.bootstrap import PairRow
from workers.statistics import Mean, bootstrap_mean, paired_difference


def rows(*groups, log_loss=0.5):
    """(group, correct) pairs as PairRow."""
    return [PairRow(group, log_loss, correct, 1.0) for group, correct in groups]


def test_a_mean_weighs_rows_and_draws_groups():
    mean = bootstrap_mean([("a", 1.0, 1.0), ("a", 0.0, 1.0), ("b", 1.0, 2.0)])
    assert mean.mean == pytest.approx((1 + 0 + 2) / 4)
    assert mean.groups == 2
    assert mean.interval == pytest.approx((0.5, 1.0))  # all draws are aa, ab or bb


def test_one_group_has_no_interval_and_no_row_no_mean():
    assert bootstrap_mean([("a", 0.3, 1.0)]) == Mean(0.3, None, 1)
    assert bootstrap_mean([]) == Mean(0.0, None, 0)


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = [float(n % 2) for n in range(400)]
    mean = bootstrap_mean([(str(n), value, 1.0) for n, value in enumerate(values)])
    low, high = mean.interval
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / math.sqrt(400), rel=0.1)


def test_a_difference_is_paired_by_group_and_leaves_out_what_one_model_could_not_score():
    new = rows(("a", 1.0), ("a", 1.0), ("b", 0.0), ("c", 1.0))
    old = rows(("a", 1.0), ("a", 0.0), ("b", 1.0))
    difference = paired_difference(new, old, "correct")
    assert difference.groups == 2
    assert difference.mean == pytest.approx((1.0 - 1.0) / 3)
    half = [*old, PairRow("d", 0.5, 1.0, 1.0)]  # of d one model scored two, the other one
    whole = [*new, PairRow("d", 0.5, 0.0, 1.0), PairRow("d", 0.5, 0.0, 1.0)]
    assert paired_difference(whole, half, "correct") == difference
