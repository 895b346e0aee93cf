"""One step's updates of the policy and of the value model from its rollouts.

Axes as in policy/rollout.py. Each model has its own loop: the policy's may end early.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policy.advantage import gae, whiten
from policy.kl import ESTIMATORS, penalised_rewards
from policy.losses import PolicyLoss, clipped_policy_loss, clipped_value_loss, token_logprobs
from policy.optim import clip_grad_norm, require_finite
from policy.ppo_config import PPOConfig
from policy.rollout import Rollouts, response_logits, response_values
from policy.run import generator_for


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses want of each response token; all (B, R), 0 in padding."""

    rewards: Tensor
    """Score units: the KL penalty everywhere, the score on the last real token."""
    advantages: Tensor
    """Whitened if the config says so."""
    returns: Tensor


def targets_of(rollouts: Rollouts, config: PPOConfig, *, kl_coef: float) -> Targets:
    """Rewards, advantages and returns of a step's rollouts, under this KL coefficient."""
    kl = ESTIMATORS[config.kl_estimator](rollouts.logprobs, rollouts.ref_logprobs)
    rewards = penalised_rewards(rollouts.rewards_before_kl, kl, rollouts.mask, kl_coef=kl_coef)
    advantages, returns = gae(
        rewards, rollouts.values, rollouts.mask, gamma=config.gamma, lam=config.lam
    )
    if config.whiten_advantages:
        advantages = whiten(advantages, rollouts.mask)
    return Targets(rewards, advantages, returns)


@dataclass(slots=True)
class PolicyUpdate:
    """What one step did to the policy. Means are over the real tokens of all its minibatches."""

    tokens: int = 0
    optimizer_steps: int = 0
    grad_norm: float = 0.0
    """Of the last optimizer step, before clipping."""
    ratio_first: float = 1.0
    """Mean ratio of the first minibatch; 1 unless sampler and trainer disagree."""
    stopped_early: bool = False
    """approxkl passed its limit before all epochs were done."""
    loss_sum: float = 0.0
    approx_kl_sum: float = 0.0
    clipped_sum: float = 0.0

    def metrics(self) -> dict[str, float]:
        tokens = max(1, self.tokens)
        return {
            "policy_loss": self.loss_sum / tokens,
            "approxkl": self.approx_kl_sum / tokens,
            "clipfrac": self.clipped_sum / tokens,
            "ratio_first": self.ratio_first,
            "policy_grad_norm": self.grad_norm,
            "policy_updates": self.optimizer_steps,
            "stopped_early": int(self.stopped_early),
        }


def minibatches(num_rollouts: int, config: PPOConfig, *, step: int) -> Iterator[list[int]]:
    """Rollout numbers of each optimizer step, epoch after epoch, shuffled by counter."""
    for epoch in range(config.epochs):
        generator = generator_for(config.seed, step, "minibatches", epoch)
        order = torch.randperm(num_rollouts, generator=generator)
        for part in order.tensor_split(config.minibatches):
            yield part.tolist()


def update_policy(
    policy: Any,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    targets: Targets,
    config: PPOConfig,
) -> PolicyUpdate:
    """Clipped updates until the epochs are done or approxkl is above its limit.

    Raises Diverged before the weights take in a number that is not finite.
    """
    done = PolicyUpdate()
    for rows in minibatches(len(rollouts), config, step=rollouts.step):
        optimizer.zero_grad(set_to_none=True)
        loss = policy_gradient(policy, rollouts, targets, rows, config)
        tokens = int(rollouts.mask[rows].sum())
        approx_kl = float(loss.approx_kl_sum) / tokens
        if done.optimizer_steps == 0:
            done.ratio_first = float(loss.ratio_sum) / tokens
        done.tokens += tokens
        done.loss_sum += float(loss.loss) * tokens
        done.approx_kl_sum += float(loss.approx_kl_sum)
        done.clipped_sum += float(loss.num_clipped)
        require_finite(policy_loss=loss.loss, approxkl=approx_kl)
        if approx_kl > config.approx_kl_limit:
            done.stopped_early = True
            break
        grad_norm = clip_grad_norm(policy, config.max_grad_norm)
        require_finite(policy_grad_norm=grad_norm)
        optimizer.step()
        done.optimizer_steps += 1
        done.grad_norm = float(grad_norm)
    optimizer.zero_grad(set_to_none=True)
    return done


def policy_gradient(
    policy: Any, rollouts: Rollouts, targets: Targets, rows: list[int], config: PPOConfig
) -> PolicyLoss:
    """Add the minibatch's gradient to the policy, micro-batch by micro-batch; its sums."""
    num_tokens = int(rollouts.mask[rows].sum())
    parts: list[PolicyLoss] = []
    for some in rollouts.micro_batches(rows, config.micro_batch_tokens):
        padded = rollouts.padded(some, policy.device)
        mask = padded.response_mask
        columns = mask.shape[1]
        logits = response_logits(policy, padded)
        logprobs = token_logprobs(logits, padded.response_ids, temperature=config.temperature)
        part = clipped_policy_loss(
            padded.in_rows(logprobs),
            rollouts.logprobs[some, :columns],
            targets.advantages[some, :columns],
            mask,
            clip=config.clip,
            num_tokens=num_tokens,
        )
        part.loss.backward()
        parts.append(part)
    return PolicyLoss(
        loss=torch.stack([part.loss.detach() for part in parts]).sum(),
        num_clipped=torch.stack([part.num_clipped for part in parts]).sum(),
        approx_kl_sum=torch.stack([part.approx_kl_sum for part in parts]).sum(),
        ratio_sum=torch.stack([part.ratio_sum for part in parts]).sum(),
    )


def update_value(
    model: Any,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    targets: Targets,
    config: PPOConfig,
) -> dict[str, float]:
    """All epochs of the clipped value loss; returns its mean per real token, and more, by name.

    Raises Diverged before the weights take in a number that is not finite.
    """
    loss_sum, tokens_seen, grad_norm = 0.0, 0, torch.zeros(())
    for rows in minibatches(len(rollouts), config, step=rollouts.step):
        optimizer.zero_grad(set_to_none=True)
        loss = value_gradient(model, rollouts, targets, rows, config)
        grad_norm = clip_grad_norm(model, config.max_grad_norm)
        require_finite(value_loss=loss, value_grad_norm=grad_norm)
        optimizer.step()
        tokens = int(rollouts.mask[rows].sum())
        loss_sum += loss * tokens
        tokens_seen += tokens
    optimizer.zero_grad(set_to_none=True)
    return {"value_loss": loss_sum / tokens_seen, "value_grad_norm": float(grad_norm)}


def value_gradient(
    model: Any, rollouts: Rollouts, targets: Targets, rows: list[int], config: PPOConfig
) -> float:
    """Add the minibatch's gradient to the value model; its loss per real token."""
    num_tokens = int(rollouts.mask[rows].sum())
    total = 0.0
    for some in rollouts.micro_batches(rows, config.micro_batch_tokens):
        padded = rollouts.padded(some, model.device)
        mask = padded.response_mask
        columns = mask.shape[1]
        loss = clipped_value_loss(
            response_values(model, padded),
            rollouts.values[some, :columns],
            targets.returns[some, :columns],
            mask,
            clip=config.value_clip or float("inf"),
            num_tokens=num_tokens,
        )
        loss.backward()
        total += float(loss.detach())
    return total
