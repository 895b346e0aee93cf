"""rewardmodel.calibration: known answers, and definitions written as slow loops."""

import math
import random

import pytest
from scipy.optimize import minimize_scalar

from rewardmodel.calibration import (
    COOLEST,
    HOTTEST,
    LogOdds,
    calibration,
    fit_temperature,
    reliability,
)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def votes_drawn(count, *, seed, scale=1.0):
    """Pairs whose voters follow sigmoid(z), for a model that claims scale x z."""
    draw = random.Random(seed)
    z = [draw.gauss(0, 1.5) for _ in range(count)]
    return LogOdds.of(
        [scale * each for each in z],
        [float(draw.random() < sigmoid(each)) for each in z],
        [1.0] * count,
    )


def uneven(count, seed=3):
    """Shares of several votes, weights that differ, a few equal scores."""
    draw = random.Random(seed)
    z = [0.0 if i % 17 == 0 else draw.gauss(0.3, 2.0) for i in range(count)]
    shares = [draw.choice([0.0, 0.25, 0.5, 2 / 3, 1.0]) for _ in range(count)]
    return z, shares, [draw.uniform(0.1, 2.0) for _ in range(count)]


def test_a_calibrated_model_has_next_to_no_error():
    points = votes_drawn(20_000, seed=0)
    for equal in ("mass", "width"):
        # Ten bins of 2,000 votes: each bin's own noise is about 0.4 sqrt(p q / 2000) = 0.004.
        assert reliability(points, equal=equal).ece < 0.012
    assert fit_temperature(points) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_one_that_claims_too_much_or_too_little_is_brought_back_by_its_temperature(scale):
    points = votes_drawn(20_000, seed=1, scale=scale)
    temperature = fit_temperature(points)
    assert temperature == pytest.approx(scale, rel=0.05)
    found = calibration(points, temperature)
    assert found["ece"]["equal_mass"] > 0.08
    assert found["ece_calibrated"]["equal_mass"] < 0.012
    assert found["ece_calibrated"]["equal_width"] < 0.012
    assert found["pair_log_loss_calibrated"] < found["pair_log_loss"]


def test_the_temperature_is_that_of_lowest_log_loss():
    z, shares, weights = uneven(400)

    def loss(log_temperature):
        at = math.exp(log_temperature)
        return sum(
            w * (t * math.log1p(math.exp(-x / at)) + (1 - t) * math.log1p(math.exp(x / at)))
            for x, t, w in zip(z, shares, weights, strict=True)
        ) / sum(weights)

    found = minimize_scalar(loss, bounds=(-3, 5), method="bounded", options={"xatol": 1e-9})
    points = LogOdds.of(z, shares, weights)
    assert fit_temperature(points) == pytest.approx(math.exp(found.x), rel=1e-4)
    assert points.log_loss(2.0) == pytest.approx(loss(math.log(2.0)), rel=1e-12)


@pytest.mark.parametrize(
    ("log_odds", "shares", "expected"),
    [
        ([1.0, 2.0], [1.0, 1.0], COOLEST),  # every pair right: the surer the better
        ([1.0, 2.0], [0.0, 0.0], HOTTEST),  # an order that is wrong says nothing
        ([0.0, 0.0], [1.0, 0.0], HOTTEST),
    ],
)
def test_a_temperature_without_a_lowest_point_ends_at_its_bound(log_odds, shares, expected):
    points = LogOdds.of(log_odds, shares, [1.0] * len(log_odds))
    assert fit_temperature(points) == expected


def by_loops(z, shares, weights, *, equal, num_bins):
    """The error as the definition says it, pair by pair."""
    rows = []
    for x, t, w in zip(z, shares, weights, strict=True):
        right = 0.5 if x == 0 else t if x > 0 else 1 - t
        rows.append((sigmoid(abs(x)), right, w / sum(weights)))
    bins = [[] for _ in range(num_bins)]
    if equal == "width":
        for row in rows:
            bins[min(int((row[0] - 0.5) / (0.5 / num_bins)), num_bins - 1)].append(row)
    else:
        below = 0.0
        for row in sorted(rows, key=lambda row: row[0]):
            bins[min(int((below + row[2] / 2) * num_bins), num_bins - 1)].append(row)
            below += row[2]
    error = 0.0
    for held in bins:
        mass = sum(w for _, _, w in held)
        if mass:
            said = sum(w * c for c, _, w in held) / mass
            was = sum(w * a for _, a, w in held) / mass
            error += mass * abs(said - was)
    return error


@pytest.mark.parametrize("equal", ["mass", "width"])
@pytest.mark.parametrize("num_bins", [1, 7, 10])
def test_the_error_follows_the_definition(equal, num_bins):
    z, shares, weights = uneven(301)
    found = reliability(LogOdds.of(z, shares, weights), equal=equal, num_bins=num_bins)
    expected = by_loops(z, shares, weights, equal=equal, num_bins=num_bins)
    assert found.ece == pytest.approx(expected, abs=1e-9)
    assert sum(each.share for each in found.bins) == pytest.approx(1.0)
    assert sum(each.num_pairs for each in found.bins) == 301


def test_four_pairs_in_two_bins_by_hand():
    # Confidences 0.6, 0.6, 0.9, 0.9; right: one of two, and both. |0.5 - 0.6| and |1 - 0.9|.
    z = [math.log(0.6 / 0.4)] * 2 + [-math.log(0.9 / 0.1)] * 2
    points = LogOdds.of(z, [1.0, 0.0, 0.0, 0.0], [1.0] * 4)
    for equal in ("mass", "width"):
        found = reliability(points, equal=equal, num_bins=2)
        assert [each.accuracy for each in found.bins] == pytest.approx([0.5, 1.0])
        assert [each.confidence for each in found.bins] == pytest.approx([0.6, 0.9])
        assert found.ece == pytest.approx(0.1)
