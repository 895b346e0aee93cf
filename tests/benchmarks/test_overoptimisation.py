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


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return loaded("overoptimisation")


@pytest.fixture(scope="module")
def alarms():
    return loaded("overoptimisation_alarms")


SMALL = ["--votes", "40", "--answers", "8", "--demonstrations", "64"]
SMALL += ["--set", "steps=3", "--set", "rollouts_per_step=16"]


@pytest.mark.parametrize(
    ("text", "worth"),
    [("", 0.0), ("a", 1.0), ("a a", 1.75), ("a a a b h", 2.25), ("a a a a a a a a", 1.0)],
)
def test_a_letter_is_worth_its_weight_less_what_its_pairs_cost(bench, text, worth):
    assert bench.world.gold(text) == pytest.approx(worth)


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
    assert bench.main(["--folder", str(tmp_path / "out"), "--seeds", "0", *SMALL]) == 0
    assert "| 0 | " in capsys.readouterr().out
    with (tmp_path / "out" / "curve.csv").open(encoding="utf-8") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    counts = {"far": 3, "defaults": 3, "best of n": 3, "promoted": 1}
    assert {kind: kinds.count(kind) for kind in counts} == counts
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000


def test_an_alarm_is_held_against_the_steps_where_gold_was_highest(alarms):
    """Gold rises by 2 until step 3. Two runs lose half of it: one alarm is a step early, which
    counts as nothing lost, and two steps late. The third run keeps 95 %, and the fourth's proxy has
    fallen too, so that their alarms are false."""
    far, rising = [1.0, 2.0, 3.0, 2.5, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]
    runs = [
        alarms.Watched(far, rising, {"x": 2}),
        alarms.Watched(far, rising, {"x": 5, "y": 4}),
        alarms.Watched([1.0, 2.0, 3.0, 2.95, 2.9], rising, {"x": 4}),
        alarms.Watched(far, [0.0, 1.0, 2.0, 1.5, 1.0], {}),
    ]
    assert [run.went_too_far for run in runs] == [True, True, False, False]
    assert alarms.rows_of(runs) == [
        ["x", "2 of 2", "+0.5 [-1, +2]", "75 % [50]", "1 of 2"],
        ["y", "1 of 2", "+1 [+1, +1]", "75 % [75]", "0 of 2"],
    ]


def test_the_alarms_run_in_small(alarms, tmp_path, capsys):
    assert alarms.main(["--folder", str(tmp_path / "out"), "--seeds", "4", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "| alarm | raised |" in out
    assert "far: " in out
