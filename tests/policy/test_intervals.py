"""Means and their intervals against hand-made tables."""

import math

import numpy as np
import pytest

from policy import intervals
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


@pytest.mark.parametrize("at_once", [1, 90, 10_000, 10**9])
def test_blocks_of_any_size_draw_what_a_slow_definition_draws(monkeypatch, at_once):
    monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", at_once)
    rows = [(f"{n:02}", float(n % 7), 1.0 + n % 3) for n in range(31)]
    drawn = np.random.default_rng(5).integers(31, size=(2000, 31))
    means = []
    for one in drawn.tolist():
        chosen = [rows[place] for place in one]
        total = sum(weight * value for _, value, weight in chosen)
        means.append(total / sum(weight for _, _, weight in chosen))
    expected = np.percentile(means, (2.5, 97.5)).tolist()
    assert bootstrap_mean(rows, seed=5).interval == pytest.approx(expected, abs=1e-12)


def test_many_groups_are_never_drawn_all_at_once(monkeypatch):
    blocks = []

    class Counted:
        def __init__(self, seed):
            self.own = np.random.Generator(np.random.PCG64(seed))

        def integers(self, high, size):
            blocks.append(size)
            return self.own.integers(high, size=size)

    monkeypatch.setattr(intervals.np.random, "default_rng", Counted)
    monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", 1000)
    bootstrap_mean([(str(n), float(n), 1.0) for n in range(300)])
    assert sum(count for count, _ in blocks) == 2000
    assert max(count * groups for count, groups in blocks) <= 1000
