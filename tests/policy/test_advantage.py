"""GAE and whitening against published answers, the definition as slow loops, and properties."""

import pytest
import torch
from torch import Tensor

from policy.advantage import gae, group_relative, leave_one_out, whiten


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def all_real(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def gae_by_definition(rewards, values, *, gamma, lam):
    """Sum over l of (gamma lam)^l delta_{t+l}, one row of plain floats, no recursion."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]


def test_terminal_reward_without_discount_or_lambda():  # T1
    values = row(1, 2, 3)
    advantages, _ = gae(row(0, 0, 5), values, all_real(values), gamma=1.0, lam=0.0)
    torch.testing.assert_close(advantages, row(1, 1, 2))


def test_one_step_advantages_at_half_discount():  # T2
    values = row(0, 1, 2, 3)
    advantages, _ = gae(row(0, 0, 1, 0), values, all_real(values), gamma=0.5, lam=0.0)
    torch.testing.assert_close(advantages, row(0.5, 0, 0.5, -3))


def test_returns_decay_by_gamma_and_lambda():  # T3
    values = row(0, 0, 0, 1)
    _, returns = gae(row(0, 0, 0, 1), values, all_real(values), gamma=0.9, lam=0.95)
    torch.testing.assert_close(returns, row(0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1))


def test_lambda_one_is_reward_to_go_minus_value():  # T4
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    values = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    advantages, returns = gae(rewards, values, all_real(values), gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(advantages, to_go - values)
    torch.testing.assert_close(returns, to_go)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0)])
def test_equals_the_definition(gamma, lam):  # T6
    generator = torch.Generator().manual_seed(5)
    rewards = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    values = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    advantages, _ = gae(rewards, values, all_real(values), gamma=gamma, lam=lam)
    for b in range(3):
        expected = gae_by_definition(rewards[b].tolist(), values[b].tolist(), gamma=gamma, lam=lam)
        torch.testing.assert_close(advantages[b].tolist(), expected)


def test_the_recursion_is_one_matrix_product():  # T6
    generator = torch.Generator().manual_seed(6)
    rewards, values = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    gamma, lam = 0.9, 0.8
    ahead = (torch.arange(8) - torch.arange(8)[:, None]).double()  # row t, column k: k - t
    discounts = torch.where(ahead >= 0, (gamma * lam) ** ahead.clamp(min=0), 0.0)
    deltas = rewards - values
    deltas[:, :-1] += gamma * values[:, 1:]
    advantages, _ = gae(rewards, values, all_real(values), gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, deltas @ discounts.T)


def test_padding_changes_nothing_and_comes_out_as_zero():
    short, _ = gae(row(0, 2), row(1, 1), all_real(row(1, 1)), gamma=1.0, lam=0.95)
    mask = torch.tensor([[True, True, False, False]])
    padded, returns = gae(row(0, 2, 7, -9), row(1, 1, 999, 5), mask, gamma=1.0, lam=0.95)
    torch.testing.assert_close(padded[:, :2], short)
    assert padded[0, 2:].tolist() == [0, 0]
    assert returns[0, 2:].tolist() == [0, 0]


def test_a_masked_gap_equals_the_row_without_it():  # T5
    mask = torch.tensor([[True, False, True, True]])
    gap, _ = gae(row(1, 50, 0, 2), row(1, 999, 2, 3), mask, gamma=0.9, lam=0.95)
    plain, _ = gae(row(1, 0, 2), row(1, 2, 3), all_real(row(1, 2, 3)), gamma=0.9, lam=0.95)
    torch.testing.assert_close(gap[mask], plain[0])


def test_shapes_that_differ_are_refused_with_the_shapes():
    with pytest.raises(ValueError, match=r"\(1, 2\), \(1, 3\)"):
        gae(row(1, 2), row(1, 2, 3), all_real(row(1, 2, 3)), gamma=1.0, lam=1.0)


def test_whitening_gives_mean_zero_and_variance_one_over_real_tokens():  # T7
    x = row(3, 5, 10, 1e6)
    mask = torch.tensor([[True, True, True, False]])
    whitened = whiten(x, mask)
    torch.testing.assert_close(whitened[mask].mean().item(), 0.0, atol=1e-12, rtol=0)
    torch.testing.assert_close(whitened[mask].var(correction=0).item(), 1.0)
    assert whitened[0, 3] == 0


def test_whitening_without_shift_keeps_the_mean():  # T7
    x = row(3, 5, 10, -1e6)
    mask = torch.tensor([[True, True, True, False]])
    whitened = whiten(x, mask, shift_mean=False)
    torch.testing.assert_close(whitened[mask].mean().item(), 6.0)
    torch.testing.assert_close(whitened[mask].var(correction=0).item(), 1.0)


def test_whitening_equal_numbers_gives_zeros():
    assert whiten(row(2, 2, 2), all_real(row(2, 2, 2))).tolist() == [[0, 0, 0]]


def test_whitening_nothing_is_refused():
    with pytest.raises(ValueError, match="False everywhere"):
        whiten(row(1, 2), torch.zeros(1, 2, dtype=torch.bool))


def test_an_answer_is_held_against_the_others_to_its_prompt():  # T8
    rewards = torch.tensor([1.0, 0.0, -3.0, 5.0])
    baselines = torch.tensor([2 / 3, 1.0, 2.0, -2 / 3])
    torch.testing.assert_close(leave_one_out(rewards, 4), rewards - baselines)


def test_each_prompt_has_a_group_of_its_own():
    found = leave_one_out(torch.tensor([2.0, 7.0, -1.0, 10.0, 10.0, 40.0]), 3)
    assert found.tolist() == [-1.0, 6.5, -5.5, -15.0, -15.0, 30.0]


def test_a_group_has_mean_0_and_deviation_1():
    rewards = torch.tensor([1.0, 2.0, 3.0, 10.0, 10.0, 16.0])
    found = group_relative(rewards, 3, divide_by_deviation=True)
    one, other = 1 + 1e-4, 12**0.5 + 1e-4  # deviations, K - 1 below, and what keeps them from 0
    expected = torch.tensor([-1 / one, 0.0, 1 / one, -2 / other, -2 / other, 4 / other])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    plain = group_relative(rewards, 3, divide_by_deviation=False)
    assert plain.tolist() == [-1.0, 0.0, 1.0, -2.0, -2.0, 4.0]


def test_equal_answers_have_no_advantage():
    same = torch.full((4,), 0.3)
    assert group_relative(same, 4, divide_by_deviation=True).tolist() == [0.0] * 4
