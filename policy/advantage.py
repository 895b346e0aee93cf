"""From rewards to advantages: by a value model (GAE, whitening), or by other answers to the prompt.

B rows (one rollout each), R response columns, K answers to a prompt, which stand in K rows one
behind the other. A mask is (B, R) bool, True = real response token.
"""

import torch
from torch import Tensor


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, generalised advantage estimation (arXiv:1506.02438, section 3).

    rewards, values: (B, R) float in score units; mask: (B, R) bool, True = real response token.
    The value after the last real token is 0: the episode is over. A masked column inside a row is
    stepped over as if it were not there. Returns two (B, R) tensors, 0 where mask is False, not
    whitened. Raises ValueError if the shapes differ.
    """
    if not rewards.shape == values.shape == mask.shape:
        shapes = f"{tuple(rewards.shape)}, {tuple(values.shape)}, {tuple(mask.shape)}"
        raise ValueError(f"rewards, values and mask must have one shape: {shapes}")
    next_value = torch.zeros_like(values[:, 0])  # (B,)
    next_advantage = torch.zeros_like(next_value)  # (B,)
    advantages = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        real = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = torch.where(real, advantage, 0.0)
        next_value = torch.where(real, values[:, t], next_value)
        next_advantage = torch.where(real, advantage, next_advantage)
    returns = torch.where(mask, advantages + values, 0.0)
    return advantages, returns


def leave_one_out(rewards: Tensor, answers: int) -> Tensor:
    """Each reward less the mean of the other answers' to its prompt (RLOO, arXiv:2402.14740, 2.2).

    rewards: (B,), of whole answers; answers: K >= 2. Returns (B,).
    """
    groups = rewards.view(-1, answers)  # (B / K, K)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (answers - 1)
    return (groups - others).flatten()


def group_relative(
    rewards: Tensor, answers: int, *, divide_by_deviation: bool, eps: float = 1e-4
) -> Tensor:
    """Each reward less its prompt's mean, over their deviation (GRPO, arXiv:2402.03300, 4.1).

    The deviation is the sample's, divided by K - 1. divide_by_deviation False: arXiv:2503.20783.
    rewards: (B,), of whole answers; answers: K >= 2. Returns (B,).
    """
    groups = rewards.view(-1, answers)  # (B / K, K)
    apart = groups - groups.mean(dim=1, keepdim=True)
    if divide_by_deviation:
        apart = apart / (groups.std(dim=1, keepdim=True) + eps)
    return apart.flatten()


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """x scaled to variance 1 over the True entries of mask; 0 where mask is False.

    shift_mean=True also moves their mean to 0; False keeps the mean as it was (OpenAI's
    lm-human-preferences, utils/core.py: the mean is added back when shift_mean is False).
    The variance is that of the entries themselves (divided by n). Raises ValueError if mask
    is empty.
    """
    if x.shape != mask.shape:
        raise ValueError(f"x and mask differ in shape: {tuple(x.shape)}, {tuple(mask.shape)}")
    real = x[mask]
    if real.numel() == 0:
        raise ValueError("nothing to whiten: the mask is False everywhere")
    mean = real.mean()
    whitened = (x - mean) * torch.rsqrt(real.var(correction=0) + eps)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask, whitened, 0.0)
