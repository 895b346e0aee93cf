"""The best policy within the KL budget, by hand."""

import pytest
import torch
from torch import nn

from policy.best import Best


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
