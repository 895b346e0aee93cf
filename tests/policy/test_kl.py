"""KL estimators on a distribution that can be enumerated, the penalty, the two controllers."""

import math

import pytest
import torch

from policy.kl import AdaptiveKL, FixedKL, k1, k2, k3, penalised_rewards
from policy.kl_budget import KLBudget

POLICY = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
TRUE_KL = sum(p * math.log(p / q) for p, q in zip(POLICY.tolist(), REFERENCE.tolist(), strict=True))


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator):  # T12
    expected = (POLICY * estimator(POLICY.log(), REFERENCE.log())).sum().item()
    assert expected == pytest.approx(TRUE_KL, abs=1e-12)


def test_k2_is_biased_but_close_for_near_distributions():
    near = POLICY + torch.tensor([0.01, -0.01, 0.005, -0.005], dtype=torch.float64)
    estimate = (POLICY * k2(POLICY.log(), near.log())).sum().item()
    exact = (POLICY * (POLICY / near).log()).sum().item()
    assert estimate != pytest.approx(exact, rel=1e-6)
    assert estimate == pytest.approx(exact, rel=0.05)


def test_k1_may_be_negative_where_k2_and_k3_never_are():  # T12
    assert k1(POLICY.log(), REFERENCE.log()).min() < 0
    logprobs = torch.linspace(-8, 0, 81, dtype=torch.float64)
    assert (k2(logprobs[:, None], logprobs) >= 0).all()
    assert (k3(logprobs[:, None], logprobs) >= 0).all()


def test_all_are_zero_for_equal_distributions():
    for estimator in (k1, k2, k3):
        assert estimator(POLICY.log(), POLICY.log()).tolist() == [0, 0, 0, 0]


def test_the_score_joins_the_penalty_on_the_last_token():  # T11
    scores = torch.tensor([1.0, 2.0, 3.0])
    kl = torch.tensor([[-0.1] * 4, [-0.2] * 4, [-0.3] * 4])
    rewards = penalised_rewards(scores, kl, torch.ones(3, 4, dtype=torch.bool), kl_coef=0.5)
    torch.testing.assert_close(rewards[:, -1], torch.tensor([1.05, 2.1, 3.15]))
    torch.testing.assert_close(rewards[:, 0], torch.tensor([0.05, 0.1, 0.15]))


def test_the_score_sits_on_the_last_real_token_and_pads_get_nothing():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.tensor([[0.5, 0.5, 99.0], [0.0, 0.0, 1.0]])
    rewards = penalised_rewards(torch.tensor([2.0, -1.0]), kl, mask, kl_coef=0.1)
    expected = torch.tensor([[-0.05, 1.95, 0.0], [0.0, 0.0, -1.1]])
    torch.testing.assert_close(rewards, expected)


def test_a_response_without_tokens_is_refused():
    mask = torch.tensor([[True], [False]])
    with pytest.raises(ValueError, match="without a single token"):
        penalised_rewards(torch.zeros(2), torch.zeros(2, 1), mask, kl_coef=0.1)


@pytest.mark.parametrize(
    ("kl_nats", "expected"),
    [
        (6.0, 0.15),  # on target
        (6.6, 0.15 * (1 + 0.1 * 0.0256)),  # a tenth above
        (60.0, 0.15 * (1 + 0.2 * 0.0256)),  # far above: the error is clipped
        (0.0, 0.15 * (1 - 0.2 * 0.0256)),
        (-3.0, 0.15 * (1 - 0.2 * 0.0256)),
    ],
)
def test_adaptive_coefficient_follows_the_published_rule(kl_nats, expected):  # T13
    controller = AdaptiveKL(0.15, target_nats=6.0, horizon=10_000)
    controller.update(kl_nats, num_rollouts=256)
    assert controller.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("kl_nats", "factor"), [(0.0, 0.8), (600.0, 1.2)])
def test_a_step_larger_than_the_horizon_counts_as_the_whole_horizon(kl_nats, factor):
    controller = AdaptiveKL(0.05, target_nats=6.0, horizon=256)
    controller.update(kl_nats, num_rollouts=2048)
    assert controller.value == pytest.approx(0.05 * factor)


def test_fixed_coefficient_stays():
    controller = FixedKL(0.05)
    controller.update(100.0, num_rollouts=512)
    assert controller.value == 0.05


@pytest.mark.parametrize(
    ("measured", "spent_at", "kept"),
    [
        ([1.0, 2.0, 4.0], None, 2),
        # Smoothed by a half: 2, 5, 5.5, 8.75. What is kept was measured within 6 itself.
        ([2.0, 8.0, 6.0, 12.0], 3, 2),
        ([2.0, 8.0], None, 0),
        ([7.0], 0, None),
    ],
)
def test_the_budget_ends_a_run_with_the_newest_policy_within_it(measured, spent_at, kept):
    policy = torch.nn.Linear(1, 1, bias=False)
    budget = KLBudget(policy, limit_nats=6.0, past=0.5)
    with torch.no_grad():
        before = policy.weight.item()
        spent = []
        for step, kl_nats in enumerate(measured):
            policy.weight.fill_(float(step))
            spent.append(budget.is_spent(kl_nats))
    assert spent == [step == spent_at for step in range(len(measured))]
    assert budget.go_back()["kl_nats"] == measured[-1]
    assert policy.weight.item() == (before if kept is None else kept)
