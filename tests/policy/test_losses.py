"""PPO's losses against hand-made answers and the definition as loops."""

import math

import pytest
import torch
from torch import Tensor

from policy.losses import (
    clipped_policy_loss,
    clipped_response_loss,
    clipped_value_loss,
    dpo_loss,
    entropy,
    explained_variance,
    ipo_loss,
    masked_mean,
    token_logprobs,
)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def random_rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def policy_loss(logprobs, old, advantages, mask=None):
    mask = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask
    return clipped_policy_loss(
        logprobs, old, advantages, mask, clip=0.2, num_tokens=int(mask.sum())
    )


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 1.0, -1.2, 1),  # T10: no more is gained beyond the clip
        (-1.0, 1.0, -math.exp(-1), 0),  # T10: a good token made rarer still pulls back
        (1.0, -1.0, math.e, 0),  # a bad token made likelier is punished in full
        (-1.0, -1.0, 0.8, 1),
        (0.1, 1.0, -math.exp(0.1), 0),
        (0.0, 3.0, -3.0, 0),
    ],
)
def test_policy_loss_is_clipped_only_where_that_is_pessimistic(log_ratio, advantage, loss, clipped):
    result = policy_loss(row(log_ratio - 2), row(-2), row(advantage))
    assert result.loss.item() == pytest.approx(loss, abs=1e-12)
    assert result.num_clipped.item() == clipped
    assert result.approx_kl_sum.item() == pytest.approx(log_ratio**2 / 2)


def test_beyond_the_clip_there_is_no_gradient():
    logprobs = row(1.0, -1.0).requires_grad_()
    policy_loss(logprobs, row(0, 0), row(1, 1)).loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0, 0] == 0
    assert logprobs.grad[0, 1].item() == pytest.approx(-math.exp(-1) / 2)


def test_unchanged_policy_has_ratio_one_and_nothing_clipped():  # T9, on numbers alone
    logprobs = random_rows(1, 3, 5)
    result = policy_loss(logprobs, logprobs.clone(), random_rows(2, 3, 5))
    assert result.ratio_sum.item() == 15
    assert result.approx_kl_sum.item() == 0
    assert result.num_clipped.item() == 0


def test_pads_count_nowhere_even_when_they_are_not_numbers():
    mask = torch.tensor([[True, True, False]])
    logprobs = row(0.1, 0.3, float("inf")).requires_grad_()
    result = policy_loss(logprobs, row(0, 0, 0), row(1, -2, 5), mask)
    expected = policy_loss(row(0.1, 0.3), row(0, 0), row(1, -2))
    assert result.loss.item() == pytest.approx(expected.loss.item())
    result.loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad[0, 2] == 0
    assert torch.isfinite(logprobs.grad).all()


def test_ragged_parts_add_up_to_the_whole_loss_and_gradient():  # T14
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [2]])
    old, returns, advantages = random_rows(3, 4, 6), random_rows(4, 4, 6), random_rows(5, 4, 6)
    total = int(mask.sum())

    def losses(new: Tensor, rows: slice) -> Tensor:
        actor = clipped_policy_loss(
            new[rows], old[rows], advantages[rows], mask[rows], clip=0.2, num_tokens=total
        )
        critic = clipped_value_loss(
            new[rows], old[rows], returns[rows], mask[rows], clip=0.2, num_tokens=total
        )
        return actor.loss + critic

    whole = random_rows(6, 4, 6).requires_grad_()
    losses(whole, slice(0, 4)).backward()
    parts = whole.detach().clone().requires_grad_()
    for rows in (slice(0, 1), slice(1, 4)):
        losses(parts, rows).backward()
    torch.testing.assert_close(parts.grad, whole.grad)
    assert losses(whole, slice(0, 4)).item() == pytest.approx(
        sum(losses(parts, rows).item() for rows in (slice(0, 1), slice(1, 4)))
    )


def test_value_loss_takes_the_worse_of_the_free_and_the_held_value():
    mask = torch.tensor([[True, True, True, False]])
    values, old, returns = row(1.0, 0.1, -1.0, 9), row(0, 0, 0, 0), row(1.0, 1.0, 2.0, 0)
    # free errors: 0, .81, 9; held at .2, .1, -.2: .64, .81, 4.84 -> worse: .64, .81, 9
    loss = clipped_value_loss(values, old, returns, mask, clip=0.2, num_tokens=3)
    assert loss.item() == pytest.approx(0.5 * (0.64 + 0.81 + 9.0) / 3)


def test_masked_mean_divides_by_the_real_tokens():
    mask = torch.tensor([[True, False, True]])
    assert masked_mean(row(1, 100, 4), mask).item() == 2.5
    assert masked_mean(row(1, math.nan, 4), mask).item() == 2.5


def test_masked_mean_of_nothing_and_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="False everywhere"):
        masked_mean(row(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="differ in shape"):
        masked_mean(row(1, 2), torch.ones(1, 1, dtype=torch.bool))


def test_entropy_of_four_equal_tokens_is_two_bits():  # T12
    uniform = entropy(torch.zeros(2, 3, 4, dtype=torch.float64), temperature=0.7)
    torch.testing.assert_close(uniform / math.log(2), torch.full((2, 3), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(("temperature", "p"), [(1.0, 4 / 5), (2.0, 2 / 3)])
def test_entropy_follows_temperature_and_skips_impossible_tokens(temperature, p):
    logits = torch.tensor([math.log(4.0), 0.0, -math.inf], dtype=torch.float64)
    expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert entropy(logits, temperature=temperature).item() == pytest.approx(expected)


def test_token_logprobs_are_those_of_the_tempered_softmax():
    logits = random_rows(7, 2, 3, 5)
    tokens = torch.tensor([[0, 4, 2], [1, 1, 3]])
    found = token_logprobs(logits, tokens, temperature=0.7)
    for b in range(2):
        for t in range(3):
            weights = [math.exp(x / 0.7) for x in logits[b, t].tolist()]
            expected = math.log(weights[tokens[b, t]] / sum(weights))
            assert found[b, t].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1, 2, 3), 1.0), ((2, 2, 2), 0.0), ((3, 2, 1), -3.0), ((11, 12, 13), 1.0)],
)
def test_explained_variance_of_returns_one_two_three(values, expected):
    mask = torch.tensor([[True, True, True, False]])
    found = explained_variance(row(*values, 50), row(1, 2, 3, -50), mask)
    assert found == pytest.approx(expected)


def test_returns_that_do_not_vary_leave_nothing_to_explain():
    assert explained_variance(row(1, 5), row(2, 2), torch.tensor([[True, True]])) == 0.0


def test_a_whole_answer_has_one_ratio():
    """Answers of one and two tokens, the first 1.1 times as likely as it was, the second half."""
    new = torch.tensor([[math.log(1.1), 99.0], [-math.log(2) + 0.3, -0.3]])
    mask = torch.tensor([[True, False], [True, True]])
    loss = clipped_response_loss(
        new, torch.zeros(2, 2), torch.tensor([1.0, -1.0]), mask, clip=0.2, num_responses=2
    )
    assert loss.loss.item() == pytest.approx((-1.1 + 0.8) / 2)  # held at 0.8
    assert loss.num_clipped.item() == 2  # both tokens of the second
    squares = math.log(1.1) ** 2 + (0.3 - math.log(2)) ** 2 + 0.3**2
    assert loss.approx_kl_sum.item() == pytest.approx(squares / 2)


def test_an_answer_that_has_not_moved_learns_by_reinforce():
    logprobs = torch.full((2, 2), -1.5, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    loss = clipped_response_loss(
        logprobs, logprobs.detach(), torch.tensor([2.0, -3.0]), mask, clip=0.2, num_responses=2
    )
    loss.loss.backward()
    assert logprobs.grad.tolist() == [[-1.0, 0.0], [1.5, 1.5]]


@pytest.mark.parametrize(
    ("nats", "advantage", "loss", "gradient"),
    [
        (200.0, 2.0, -2.4, 0.0),  # the clip holds, however likely it has become
        (-200.0, -2.0, 1.6, 0.0),
        (200.0, 0.0, 0.0, 0.0),
        (-200.0, 2.0, 0.0, 0.0),  # exp(-200) is 0 in fp32
        (20.0, -2.0, 2 * math.exp(20), 2 * math.exp(20)),
        (30.0, -2.0, 2 * math.exp(30), 2 * math.exp(30)),
        (32.0, -2.0, 6 * math.exp(30), 2 * math.exp(30)),  # on exp's tangent in 30
    ],
)
def test_the_ratio_of_a_long_answer_overflows_nothing(nats, advantage, loss, gradient):
    """A thousand tokens in fp32, each a fraction of a nat likelier or rarer than it was."""
    logprobs = torch.full((1, 1024), nats / 1024, requires_grad=True)
    mask = torch.ones(1, 1024, dtype=torch.bool)
    found = clipped_response_loss(
        logprobs,
        torch.zeros(1, 1024),
        torch.tensor([advantage]),
        mask,
        clip=0.2,
        num_responses=1,
    )
    found.loss.backward()
    assert found.loss.item() == pytest.approx(loss, rel=1e-4)
    assert logprobs.grad.tolist() == [[pytest.approx(gradient, rel=1e-4)] * 1024]


def test_beyond_any_float_the_clipped_gradient_points_where_the_exact_one_does():
    """Three answers, the second of them bad and e^100 times as likely as it was."""
    mask = torch.ones(3, 500, dtype=torch.bool)
    advantages = torch.tensor([1.0, -1.0, 1.0])
    directions = []
    for kind in (torch.float32, torch.float64):
        logprobs = torch.tensor([[0.0], [0.2], [-0.1]], dtype=kind).repeat(1, 500).requires_grad_()
        if kind == torch.float32:
            clipped_response_loss(
                logprobs, torch.zeros(3, 500), advantages, mask, clip=0.2, num_responses=3
            ).loss.backward()
        else:  # the definition
            ratio = logprobs.sum(dim=1).exp()
            torch.maximum(
                -advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)
            ).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_([logprobs], 1.0)
        assert torch.isfinite(norm)
        directions.append(logprobs.grad.double())
    torch.testing.assert_close(*directions)


@pytest.mark.parametrize(
    ("first", "second", "target", "smoothing", "loss"),
    [
        (0.0, 0.0, 1.0, 0.0, math.log(2)),  # the policy is the reference
        (10.0, 0.0, 1.0, 0.0, math.log1p(math.exp(-1))),  # beta 0.1: a margin of 1
        (0.0, 10.0, 1.0, 0.0, math.log1p(math.exp(1))),
        (0.0, 10.0, 0.0, 0.0, math.log1p(math.exp(-1))),  # the vote was for the second
        (10.0, 0.0, 1.0, 0.1, 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1))),
        (0.0, 10.0, 0.0, 0.1, 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1))),
        (3.0, -1.0, 0.5, 0.0, (math.log1p(math.exp(-0.4)) + math.log1p(math.exp(0.4))) / 2),
        (1e5, 0.0, 0.0, 0.0, 1e4),  # no overflow
    ],
)
def test_dpo_of_a_hand_made_table(first, second, target, smoothing, loss):
    found = dpo_loss(
        row(first)[0], row(second)[0], row(target)[0], beta=0.1, label_smoothing=smoothing
    )
    assert found.item() == pytest.approx(loss, rel=1e-12)


def test_dpos_gradient_is_the_papers():
    """arXiv:2305.18290, section 4: -beta sigmoid(r_rejected - r_chosen), and its opposite."""
    first, second = row(4.0)[0].requires_grad_(), row(-2.0)[0].requires_grad_()
    dpo_loss(first, second, row(1.0)[0], beta=0.5).backward()
    expected = -0.5 / (1 + math.exp(0.5 * 6))
    assert first.grad.item() == pytest.approx(expected)
    assert second.grad.item() == pytest.approx(-expected)


def test_smoothed_dpo_rests_where_it_should():  # T23
    beta, smoothing = 0.1, 0.2
    difference = row(math.log((1 - smoothing) / smoothing) / beta)[0].requires_grad_()
    still = torch.zeros_like(difference)
    dpo_loss(
        difference, still, torch.ones_like(still), beta=beta, label_smoothing=smoothing
    ).backward()
    assert difference.grad.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "target", "smoothing", "loss"),
    [
        (0.0, 0.0, 1.0, 0.0, 25.0),  # beta 0.1: 5 nats apart are asked for
        (3.0, -2.0, 1.0, 0.0, 0.0),
        (3.0, -2.0, 0.0, 0.0, 100.0),
        (3.0, -2.0, 1.0, 0.25, 25.0),
        (8.0, 0.0, 1.0, 0.0, 9.0),  # further than wanted costs too
    ],
)
def test_ipo_of_a_hand_made_table(first, second, target, smoothing, loss):
    found = ipo_loss(
        row(first)[0], row(second)[0], row(target)[0], beta=0.1, label_smoothing=smoothing
    )
    assert found.item() == pytest.approx(loss, abs=1e-12)
