"""Means and their intervals against hand-made tables."""

import math

import pytest

from policy.intervals import Mean, bootstrap_mean


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
