"""The known optimum: what the benchmark says of it, and one short run that must come near (T26)."""

import importlib.util
import sys
from itertools import product
from math import exp, log
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("closed_form", HERE / "closed_form.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


REFERENCE = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64).log()
SCORES = torch.tensor([[0.5, -1.0, 2.0, 0.0], [-3.0, 1.0, 0.0, 4.0]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_the_sum_over_all_draws(bench, n):  # T27
    found = bench.best_of_n(REFERENCE, SCORES, n).exp()
    for row in range(2):
        expected = [0.0] * 4
        for drawn in product(range(4), repeat=n):
            best = max(drawn, key=lambda place: float(SCORES[row, place]))
            expected[best] += exp(sum(float(REFERENCE[row, place]) for place in drawn))
        assert found[row].tolist() == pytest.approx(expected)


def test_best_of_n_spends_less_than_its_bound_and_nearly_all_of_it_on_many_answers(bench):  # T27
    many = torch.full((1, 5000), -log(5000), dtype=torch.float64)
    scores = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    for n in (2, 4, 16):
        bound = log(n) - (n - 1) / n
        assert bench.bound_of_best_of_n(n) == pytest.approx(bound)
        spent = bench.kl_nats(bench.best_of_n(REFERENCE, SCORES, n), REFERENCE)
        assert 0 < spent < bound
        nearly = bench.kl_nats(bench.best_of_n(many, scores, n), many)
        assert bound - 0.01 < nearly < bound


def test_the_optimum_of_a_kl_spends_it_and_orders_odds_by_score(bench):
    found = bench.optimum_of_equal_kl(REFERENCE, SCORES, 0.3)
    assert bench.kl_nats(found, REFERENCE) == pytest.approx(0.3)
    weight = (SCORES.double() - SCORES[:, :1]) / (
        found - REFERENCE - (found - REFERENCE)[:, :1]
    )  # log odds grow by score / weight, with one weight
    assert torch.allclose(weight[:, 1:], weight[0, 1].expand(2, 3))


@pytest.mark.loop
def test_a_short_run_of_each_ends_near_the_optimum(bench, tmp_path, capsys):  # T26, T27
    short = ["--set", "steps=40", "--set", "rollouts_per_step=256", "--groups", "300"]
    assert bench.main(["--folder", str(tmp_path), "--seeds", "0", *short]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 0 ")]
    ppo, rloo, best = ([each.strip() for each in row.split("|")] for row in rows)
    for run in (ppo, rloo):
        before, apart, spent, wanted = map(float, run[3:7])
        assert before > 0.35
        assert apart < before / 2
        assert 0.6 * wanted < spent < 1.2 * wanted
    chance = 39 / (2 * 300)  # half the degrees of freedom over the number drawn
    assert float(best[3].split()[-1]) < 2 * chance
