"""Over-optimisation: gold by hand, laws recovered, best of n over all draws; a small run (T28)."""

import csv
import importlib.util
import math
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("overoptimisation", HERE / "overoptimisation.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "worth"),
    [("", 0.0), ("a", 0.6), ("a a", 1.2), ("a a a", 0.6), ("a b h", 0.5), ("h h h h", 0.0)],
)
def test_a_letter_is_worth_its_weight_twice_and_then_costs_it(bench, text, worth):
    assert bench.gold(text) == pytest.approx(worth)


@pytest.mark.parametrize("is_log", [True, False])
def test_a_law_with_a_known_curve_is_fitted(bench, is_log):  # T28
    distances = [0.0, 0.3, 0.8, 1.5, 2.5, 4.0]
    gains = [d * (1.7 - 0.4 * (math.log(d) if is_log else d)) if d else 0.0 for d in distances]
    law = bench.fitted(distances, gains, is_log=is_log)
    assert (law.alpha, law.beta) == pytest.approx((1.7, 0.4))
    assert law.explained == pytest.approx(1.0)
    assert [law.gain(d) for d in distances] == pytest.approx(gains)
    other = bench.fitted(distances, gains, is_log=not is_log)
    assert other.explained < 0.999


def test_the_best_of_n_is_a_mean_over_all_draws(bench):  # T27
    proxies, golds = [0.3, 2.0, -1.0, 0.9, 0.0], [1.0, -4.0, 2.0, 0.5, 3.0]
    for n in range(1, 6):
        best = [max(drawn, key=lambda at: proxies[at]) for drawn in combinations(range(5), n)]
        expected = fmean(proxies[at] for at in best), fmean(golds[at] for at in best)
        assert bench.expected_best(proxies, golds, n) == pytest.approx(expected)


def test_it_runs_in_small(bench, tmp_path, capsys):
    words = ["--folder", str(tmp_path / "out"), "--seeds", "0", "--votes", "40", "--answers", "8"]
    words += ["--set", "steps=3", "--set", "rollouts_per_step=16"]
    assert bench.main(words) == 0
    assert "| 0 | " in capsys.readouterr().out
    with (tmp_path / "out" / "curve.csv").open(encoding="utf-8") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert [kinds.count(kind) for kind in ("ppo", "best of n", "promoted")] == [3, 3, 1]
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000
