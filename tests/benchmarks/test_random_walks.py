"""The random walks: distances and scores by hand and by trying every walk; a run in small (T25)."""

import importlib.util
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("random_walks", HERE / "random_walks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_distances_are_those_of_the_shortest_of_all_walks(bench):  # T25
    graph = bench.Graph.draw(10, places=6, share=0.2)
    expected = {}
    for begin in range(1, 6):
        for steps in range(1, 6):
            walks = product(range(6), repeat=steps - 1)
            ways = ((begin, *walk, bench.GOAL) for walk in walks)
            if any(all(b in graph.edges[a] for a, b in pairwise(w)) for w in ways):
                expected[begin] = steps
                break
    assert graph.distances() == expected
    assert len(set(expected.values())) > 1


def test_a_walk_is_worth_how_much_shorter_it_is_than_the_longest(bench):  # T25
    graph = bench.Graph({0: [], 1: [2], 2: [0, 3], 3: [2]})
    assert graph.distances() == {1: 2, 2: 1, 3: 2}
    assert graph.optimality([1, 2, 0], 2) == 1.0
    assert graph.optimality([1, 2, 3, 2, 0], 2) == pytest.approx(6 / 8)
    assert graph.optimality([1, 0], 2) == 0.0  # there is no such edge
    assert graph.optimality([1, 2, 3], 2) == 0.0  # not at the goal
    assert graph.optimality([1, 2, 0, 2], 2) == 0.0  # beyond it
    assert graph.optimality([1], 2) == 0.0


def test_it_runs_in_small(bench, tmp_path, capsys):
    words = ["--folder", str(tmp_path / "out"), "--seeds", "0", "--walks", "64"]
    words += ["--set", "steps=2", "--set", "rollouts_per_step=8"]
    assert bench.main(words) == 0
    row = [float(x) for x in capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")]
    assert row[0] == 0
    assert all(0 <= share <= 1 for share in row[1:])
