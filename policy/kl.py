"""KL between the policy and the reference: estimators per token, the penalty, its coefficient.

All estimators look at tokens that the policy sampled, so they estimate KL(policy || reference),
in nats. k1, k2 and k3 are those of Schulman, "Approximating KL divergence" (joschu.net, 2020).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

KLEstimator = Callable[[Tensor, Tensor], Tensor]
"""Log-probs of policy and reference at the sampled tokens -> nats, token by token."""


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log p - log q at the sampled tokens, any shape, nats: unbiased, may be negative."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log p - log q)^2 / 2: never negative, biased."""
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): never negative and unbiased."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3}


def penalised_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Per-token rewards: -kl_coef * KL on each real token, and the score on the last real one.

    scores: (B,) score units; kl: (B, R) nats; mask: (B, R) bool, True = real response token.
    The score sits on the last real token, not on the padding after it. Returns (B, R), 0 where
    mask is False. Raises ValueError for a row without a real token.
    """
    if not bool(mask.any(dim=1).all()):
        raise ValueError("a response without a single token has nowhere to put its score")
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    column = torch.arange(mask.shape[1], device=mask.device)  # (R,)
    last = torch.where(mask, column, -1).amax(dim=1, keepdim=True)  # (B, 1)
    return rewards.scatter_add(1, last, scores.unsqueeze(1).to(rewards.dtype))


class KLController(Protocol):
    """Holds the KL coefficient between steps; `value` is all of its state."""

    value: float

    def update(self, kl_nats: float, num_rollouts: int) -> None:
        """kl_nats: mean KL per response of the step that used the coefficient."""


class FixedKL:
    """A coefficient that stays where it is."""

    def __init__(self, value: float) -> None:
        self.value = value

    def update(self, kl_nats: float, num_rollouts: int) -> None:
        pass


class AdaptiveKL:
    """Log-space proportional controller (arXiv:1909.08593, section 2.2).

    Each step multiplies the coefficient by 1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon;
    target in nats per response, horizon in rollouts. A step of more rollouts than the horizon
    counts as the whole of it: five horizons at once would take the coefficient to zero and more
    below it, where KL is paid for.
    """

    def __init__(self, value: float, *, target_nats: float, horizon: int) -> None:
        self.value = value
        self.target_nats = target_nats
        self.horizon = horizon

    def update(self, kl_nats: float, num_rollouts: int) -> None:
        error = min(max(kl_nats / self.target_nats - 1.0, -0.2), 0.2)
        self.value *= 1.0 + error * min(num_rollouts / self.horizon, 1.0)
