"""Learning rate, decay groups, and the check for finite numbers."""

import math

import pytest
import torch

from policy.config import Diverged
from policy.optim import adamw, clip_grad_norm, lr_at, require_finite, set_lr


def test_the_rate_rises_then_falls_linearly_by_hand():
    rates = [lr_at(step, total=8, peak=4.0, warmup=3) for step in range(8)]
    assert rates == pytest.approx([1, 2, 3, 4, 3.2, 2.4, 1.6, 0.8])


def test_the_cosine_is_half_way_in_the_middle_and_ends_at_its_final_rate():
    curve = {
        step: lr_at(step, total=10, peak=3.0, shape="cosine", final=1.0) for step in (0, 5, 10)
    }
    assert curve == pytest.approx({0: 3.0, 5: 2.0, 10: 1.0})


def test_a_constant_rate_stays_and_warm_up_may_be_longer_than_the_run():
    assert lr_at(7, total=8, peak=2.0, shape="constant") == 2.0
    assert lr_at(1, total=2, peak=4.0, warmup=3) == 2.0


def test_matrices_decay_and_biases_do_not():
    layer = torch.nn.Linear(2, 2)
    layer.weight.data.fill_(1.0)
    layer.bias.data.fill_(1.0)
    optimizer = adamw(layer, lr=0.1, weight_decay=0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(layer.weight, torch.full((2, 2), 0.95))  # 1 - lr * decay
    assert torch.equal(layer.bias, torch.ones(2))
    set_lr(optimizer, 0.3)
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}


def test_clipping_returns_the_norm_before():
    layer = torch.nn.Linear(1, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert clip_grad_norm(layer, 1.0).item() == pytest.approx(5.0)
    assert layer.weight.grad.item() == pytest.approx(0.6, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, torch.tensor([1.0, math.nan])])
def test_a_number_that_is_not_finite_is_named(bad):
    require_finite(loss=1.0, other=torch.ones(3))
    with pytest.raises(Diverged, match="grad_norm is not finite"):
        require_finite(loss=torch.tensor(1.0), grad_norm=bad)
