"""Learning rate, decay groups, and the check for finite numbers."""

import math

import pytest
import torch

from policy.config import Diverged
from policy.optim import adamw, clip_grad_norm, lr_at, optimizer_for, require_finite, set_lr


def test_the_rate_rises_then_falls_linearly_by_hand():
    rates = [lr_at(step, total=8, peak=4.0, warmup=3) for step in range(8)]
    assert rates == pytest.approx([1, 2, 3, 4, 3.2, 2.4, 1.6, 0.8])


def test_the_cosine_is_half_way_in_the_middle_and_ends_at_its_final_rate():
    curve = {
        step: lr_at(step, total=10, peak=3.0, shape="cosine", final=1.0) for step in (0, 5, 10)
    }
    assert curve == pytest.approx({0: 3.0, 5: 2.0, 10: 1.0})


def test_wsd_stays_and_then_falls_as_one_minus_a_square_root_by_hand():
    rates = [
        lr_at(step, total=10, peak=1.0, warmup=2, shape="wsd", final=0.1, decay=4)
        for step in range(11)
    ]
    plateau = [1 / 3, 2 / 3, 1.0, 1.0, 1.0, 1.0, 1.0]
    falling = [0.1 + 0.9 * (1 - (done / 4) ** 0.5) for done in (1, 2, 3, 4)]
    assert rates == pytest.approx(plateau + falling)


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


class Layered(torch.nn.Module):
    """An embedding, one numbered layer with a bias, a head."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 8)])
        self.head = torch.nn.Linear(8, 1)

    def forward(self, ids):
        return self.head(torch.tanh(self.layers[0](self.embedding(ids))))


def stepped(optimizer_name, steps=1, **settings):
    torch.manual_seed(0)
    model = Layered()
    optimizer = optimizer_for(optimizer_name, model, beta2=0.98, **settings)
    for _ in range(steps):
        one_step(model, optimizer)
    return model, optimizer


def one_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.arange(5)).pow(2).mean().backward()
    optimizer.step()


def test_muon_steps_along_every_direction_of_a_layers_matrix_alike():
    """U V^T of the gradient's singular value decomposition, times 0.2 sqrt(max(8, 4)) times the
    rate (arXiv:2502.16982); five Newton-Schulz steps come to within 0.68 to 1.13 of it."""
    torch.manual_seed(0)
    before = Layered().layers[0].weight.detach().clone()
    model, _ = stepped("muon", lr=0.1, weight_decay=0.0)
    change = before - model.layers[0].weight.detach()
    sizes = torch.linalg.svdvals(change) / (0.1 * 0.2 * 8**0.5)
    gradient = model.layers[0].weight.grad
    assert int((torch.linalg.svdvals(gradient) > 1e-6).sum()) == 4
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(change.flatten(), (u @ v).flatten(), dim=0)
    assert cosine > 0.95


def test_muon_leaves_embedding_head_and_biases_to_adamw():
    """The first step of AdamW has the size of its rate, whatever the gradient."""
    torch.manual_seed(0)
    before = Layered()
    model, optimizer = stepped("muon", lr=0.01, weight_decay=0.5)
    for name in ("embedding.weight", "head.weight", "head.bias", "layers.0.bias"):
        change = (before.get_parameter(name) - model.get_parameter(name)).abs()
        assert torch.allclose(change, torch.full_like(change, 0.01), rtol=1e-4), name
    set_lr(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimizer_that_was_saved_goes_on_as_if_it_had_not(name):
    settings = {"lr": 0.05, "weight_decay": 0.1}
    whole, _ = stepped(name, steps=4, **settings)
    half, optimizer = stepped(name, steps=2, **settings)
    again = optimizer_for(name, half, beta2=0.98, **settings)
    again.load_state_dict(optimizer.state_dict())
    one_step(half, again)
    one_step(half, again)
    for ours, theirs in zip(half.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


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
