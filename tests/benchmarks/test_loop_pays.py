"""The loop against all labels at once: the line at an equal KL, the interval; a run in small."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("loop_pays", HERE / "loop_pays.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_gold_at_a_kl_is_read_from_the_line_between_its_neighbours(bench):
    points = [bench.Measured(6.0, 2.0), bench.Measured(4.0, 1.0), bench.Measured(8.0, 1.6)]
    assert bench.at_kl(points, 5.0) == pytest.approx(1.5)
    assert bench.at_kl(points, 7.5) == pytest.approx(1.7)
    assert bench.at_kl(points, 9.0) == pytest.approx(1.6)  # beyond them, the nearest


def test_the_interval_is_that_of_students_t(bench):
    """Two degrees of freedom: 4.3027 (a table's) x 1 / sqrt(3) = 2.484."""
    assert bench.with_interval([1.0, 2.0, 3.0]) == "+2.000 [-0.484, +4.484]"
    assert bench.with_interval([1.0]) == "+1.000"


def test_it_runs_in_small(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "EPOCHS", 1)
    words = ["--folder", str(tmp_path / "out"), "--seeds", "3", "--labels", "16", "--steps", "1"]
    words += ["--answers", "6", "--measured-on", "4", "--demonstrations", "64"]
    assert bench.main([*words, "--set", "rollouts_per_step=8"]) == 0
    assert "ramp - offline at equal KL: " in capsys.readouterr().out
    with (tmp_path / "out" / "points.csv").open(encoding="utf-8") as file:
        ways = [row["way"] for row in csv.DictReader(file)]
    assert [ways.count(way) for way in ("online", "ramp", "offline")] == [2, 2, 3]
    of_seed = tmp_path / "out" / "seed-3"
    for way, labels in (("online-1", 16), ("online-2", 32), ("ramp-2", 32), ("offline", 32)):
        votes = (of_seed / way / "reward.jsonl").read_text(encoding="utf-8").splitlines()
        assert len({json.loads(vote)["id"] for vote in votes}) == labels
    inputs = [
        json.loads((of_seed / way / "policy" / "run.json").read_text())["inputs"]
        for way in ("online-1", "online-2", "ramp-2", "offline-1.0")
    ]
    assert len({one["reference"] for one in inputs}) == 1  # by hash: the root in every round
    assert [one["init"] == one["reference"] for one in inputs] == [True, False, False, True]
