"""The best policy within the KL budget, by hand."""

import math

import pytest
import torch
from torch import nn

from policy.best import Best
from policy.config import Diverged
from policy.kl_budget import KLBudget


def policy_saying(number: float) -> nn.Linear:
    policy = nn.Linear(1, 1, bias=False)
    nn.init.constant_(policy.weight, number)
    return policy


def test_the_best_smoothed_score_within_the_budget_is_kept():
    best = Best(policy_saying(-1.0), limit_nats=5.0, past=0.5)
    steps = [(1.0, 0.0), (2.0, 1.0), (0.0, 2.0), (1.75, 2.0), (9.0, 6.0), (3.0, 4.0), (2.0, 4.0)]
    kept = []
    for number, (score, kl_nats) in enumerate(steps):
        best.look(policy_saying(number), steps_done=number, score=score, kl_nats=kl_nats)
        kept.append((best.step, best.score, best.model.weight.item()))
    # smoothed: 1, 1.5, 0.75, 1.25, 5.125 (over the budget), 4.0625, 3.03125
    first, second, last = (0, 1.0, 0.0), (1, 1.5, 1.0), (5, 4.0625, 5.0)
    assert kept == [first, second, second, second, second, last, last]
    assert best.kl_nats == 4.0


def test_its_state_goes_on_where_it_was():
    one = Best(policy_saying(0.0), limit_nats=None, past=0.5)
    one.look(policy_saying(1.0), steps_done=3, score=2.0, kl_nats=99.0)
    other = Best(policy_saying(0.0), limit_nats=None, past=0.5)
    other.restore(one.state())
    other.look(policy_saying(5.0), steps_done=4, score=1.0, kl_nats=0.0)
    assert (other.step, other.smoothed) == (3, 1.5)
    assert torch.equal(other.model.weight, torch.zeros(1, 1))  # its weights are a checkpoint's
    assert other.score == pytest.approx(2.0)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_score_that_is_no_number_is_never_best_and_stops_no_later_one(score, first):
    best = Best(policy_saying(-1.0), limit_nats=5.0, past=0.5)
    steps = [score, 1.0, 2.0] if first else [1.0, score, 2.0]
    for number, each in enumerate(steps):
        best.look(policy_saying(number), steps_done=number, score=each, kl_nats=0.0)
    assert (best.step, best.score, best.model.weight.item()) == (2, 1.5, 2.0)


def test_a_kl_that_is_no_number_is_not_within_any_limit():
    best = Best(policy_saying(-1.0), limit_nats=None, past=0.0)
    best.look(policy_saying(0.0), steps_done=0, score=1.0, kl_nats=math.nan)
    assert best.score is None
    budget = KLBudget(policy_saying(0.0), limit_nats=1.0, past=0.5)
    with pytest.raises(Diverged, match="kl_nats is not finite"):
        budget.is_spent(math.nan)
    assert budget.is_spent(3.0)  # it still counts
