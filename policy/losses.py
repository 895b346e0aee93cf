"""The losses of PPO (arXiv:1707.06347) and of DPO, and the masked reductions that they share.

B rows (rollouts), R response columns, V tokens of the vocabulary. A mask is (B, R) bool, True =
real response token. A loss is a sum over real tokens divided by `num_tokens`, the number of real
tokens in the whole minibatch: micro-batches then add up to the minibatch's own loss and gradient,
which a mean of their means would not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_RATIO_LIMIT = 30.0
"""Nats above which a ratio of probabilities goes on as a line: see ratio_of."""


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of x where mask is True; what stands elsewhere, NaN included, does not matter."""
    return torch.where(mask, x, 0.0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where mask is True. Raises ValueError if shapes differ or nothing is True."""
    if x.shape != mask.shape:
        raise ValueError(f"x and mask differ in shape: {tuple(x.shape)}, {tuple(mask.shape)}")
    count = mask.sum()
    if not count:
        raise ValueError("no mean: the mask is False everywhere")
    return masked_sum(x, mask) / count


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each token under softmax(logits / temperature).

    logits: (B, R, V), column t holds the prediction of tokens[:, t]; tokens: (B, R). The tempered
    distribution is the one that sampled, so it is the one that is scored. Returns (B, R) nats.
    """
    scaled = logits / temperature
    chosen = scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)  # (B, R)
    return chosen - scaled.logsumexp(dim=-1)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy of softmax(logits / temperature), (..., V) -> (...), nats.

    A token of probability 0 (logit -inf) adds 0.
    """
    probs = torch.softmax(logits / temperature, dim=-1)
    return -torch.xlogy(probs, probs).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss to differentiate, and sums over real tokens for the step's metrics."""

    loss: Tensor
    """Scalar: this part's share of the minibatch's mean."""
    num_clipped: Tensor
    """Tokens whose clipped term was the one that counted."""
    approx_kl_sum: Tensor
    """Sum of (log p - log p_old)^2 / 2, nats; its mean is the usual `approxkl`."""
    ratio_sum: Tensor
    value_loss: Tensor | None = None
    """This part's share of the value loss, where values come from a head on the policy's trunk;
    `loss` holds it already, with its coefficient."""


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    num_tokens: int,
) -> PolicyLoss:
    """max(-A ratio, -A clip(ratio, 1 - clip, 1 + clip)) over real tokens / num_tokens.

    logprobs carry the gradient; old_logprobs are those of the rollout. All (B, R).
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)  # a pad's may be anything
    ratio = ratio_of(log_ratio)
    plain, clipped = _clipped(ratio, advantages, clip)
    loss = masked_sum(torch.maximum(plain, clipped), mask) / num_tokens
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            num_clipped=(mask & (clipped > plain)).sum(),
            approx_kl_sum=masked_sum(0.5 * log_ratio.square(), mask),
            ratio_sum=masked_sum(ratio, mask),
        )


def clipped_response_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    num_responses: int,
) -> PolicyLoss:
    """The same with a whole answer as one action: one ratio and one advantage for each row, summed
    over the rows / num_responses. Where nothing has moved yet, its gradient is REINFORCE's.

    The differences of a thousand tokens add up, so that a ratio may be beyond any float: `ratio_of`
    says what it is then. Where the clip holds, value and gradient are the clip's all the same.

    advantages: (B,). The sums for the metrics are over tokens as above; each token of an answer
    whose clipped term counted is a clipped one.
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    plain, clipped = _clipped(ratio_of(log_ratio.sum(dim=1)), advantages, clip)  # (B,)
    loss = torch.maximum(plain, clipped).sum() / num_responses
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            num_clipped=(mask & (clipped > plain).unsqueeze(1)).sum(),
            approx_kl_sum=masked_sum(0.5 * log_ratio.square(), mask),
            ratio_sum=masked_sum(ratio_of(log_ratio), mask),
        )


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp of it up to LOG_RATIO_LIMIT, and from there on exp's tangent; any shape.

    exp itself is infinite in fp32 from 88.7 nats on, and spoils gradients that it has no part in.
    It counts only where the clip does not hold: for an answer that is worse than the others and has
    become e^30 times as likely. The tangent's gradient is then some 10^13 times that of others, so
    once its norm is clipped it points where exp's would.
    """
    beyond = (log_ratio - LOG_RATIO_LIMIT).relu()  # its slope at 0 is 0, unlike clamp's
    return log_ratio.clamp(max=LOG_RATIO_LIMIT).exp() * (1.0 + beyond)


def _clipped(ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The two terms of which the larger counts."""
    return -advantages * ratio, -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float,
    num_tokens: int,
) -> Tensor:
    """Half the squared error, the worse of the new value and of the new value held within +-clip
    of the rollout's, over real tokens / num_tokens. All (B, R), score units; returns a scalar.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.maximum((values - returns).square(), (near - returns).square())
    return 0.5 * masked_sum(error, mask) / num_tokens


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - var(returns - values) / var(returns) over real tokens: 1 is perfect, 0 a constant.

    0.0 where the returns do not vary: there is nothing to explain.
    """
    real = returns[mask]
    variance = real.var(correction=0)
    if not variance > 0:
        return 0.0
    return float(1.0 - (real - values[mask]).var(correction=0) / variance)


def dpo_loss(
    first: Tensor, second: Tensor, targets: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimisation (arXiv:2305.18290, equation 7), (P,) nats.

    first, second: (P,) log pi(y|x) - log ref(y|x) of the pair's two answers, each summed over its
    response tokens, nats. targets: (P,) the share of votes that put the first above the second.
    With one vote it is -log sigmoid(beta x (first - second)). label_smoothing: each vote is wrong
    with this probability (cDPO, ericmitchell.ai/cdpo.pdf); with e it is
    lowest at a difference of log((1 - e) / e) / beta.
    """
    logits = beta * (first - second)
    right = _smoothed(targets, label_smoothing)
    return -(right * logsigmoid(logits) + (1 - right) * logsigmoid(-logits))


def ipo_loss(
    first: Tensor, second: Tensor, targets: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Identity preference optimisation (arXiv:2310.12036, equation 17), (P,) nats squared.

    (d - 1 / (2 beta))^2 of the difference d = first - second, however clear the vote: lowest at a
    distance that a certain vote cannot push on for ever. Arguments as of dpo_loss; a vote for the
    second asks for -1 / (2 beta).
    """
    difference, wanted = first - second, 1 / (2 * beta)
    right = _smoothed(targets, label_smoothing)
    return right * (difference - wanted).square() + (1 - right) * (difference + wanted).square()


PREFERENCE_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


def _smoothed(targets: Tensor, label_smoothing: float) -> Tensor:
    return targets + label_smoothing * (1 - 2 * targets)
