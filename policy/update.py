"""One step's updates of the policy and of the value model from its rollouts.

Axes as in policy/rollout.py. Each model has its own loop: the policy's may end early.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from policy.advantage import gae, group_relative, leave_one_out, whiten
from policy.kl import ESTIMATORS, penalised_rewards
from policy.losses import (
    PolicyLoss,
    clipped_policy_loss,
    clipped_response_loss,
    clipped_value_loss,
    masked_sum,
    token_logprobs,
)
from policy.optim import clip_grad_norm, require_finite
from policy.ppo_config import PPOConfig
from policy.processes import ALONE, Processes
from policy.ptx import Pretraining
from policy.reader import Reader
from policy.rollout import (
    Rollouts,
    response_logits,
    response_logits_and_values,
    response_values,
)
from policy.run import generator_for
from policy.value import ValueHead


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses want of each response token; all (B, R), 0 in padding."""

    rewards: Tensor
    """Score units: the KL penalty everywhere, the score on the last real token."""
    advantages: Tensor
    """Whitened if the config says so; without a value model the same at each token of an answer."""
    returns: Tensor
    """The reward still to come, as GAE has it where there are values."""
    weights: Tensor
    """Of each token in the policy's loss, besides the number that it is divided by."""
    kl_loss_coef: float = 0.0
    """Of the KL to the reference in the policy's loss; 0 where it is in the reward."""


def targets_of(rollouts: Rollouts, config: PPOConfig, *, kl_coef: float) -> Targets:
    """Rewards, advantages and returns of a step's rollouts, under this KL coefficient."""
    mask, answers = rollouts.mask, config.answers_per_prompt
    in_reward = 0.0 if config.advantage == "grpo" else kl_coef
    kl = ESTIMATORS[config.estimator](rollouts.logprobs, rollouts.ref_logprobs)
    rewards = penalised_rewards(rollouts.rewards_before_kl, kl, mask, kl_coef=in_reward)
    lam = 1.0 if config.compares_answers else config.lam
    gamma = 1.0 if config.compares_answers else config.gamma
    advantages, returns = gae(rewards, rollouts.values, mask, gamma=gamma, lam=lam)
    if config.advantage == "rloo":
        advantages = leave_one_out(rewards.sum(dim=1), answers).unsqueeze(1) * mask
    elif config.advantage == "grpo":
        relative = group_relative(
            rewards.sum(dim=1), answers, divide_by_deviation=config.divide_by_deviation
        )
        advantages = relative.unsqueeze(1) * mask
    elif config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Targets(
        rewards,
        advantages,
        returns,
        weights=mask / mask.sum(dim=1, keepdim=True)
        if config.loss_unit == "response"
        else mask * 1.0,
        kl_loss_coef=kl_coef - in_reward,
    )


def loss_divisor(rollouts: Rollouts, rows: list[int], config: PPOConfig) -> int:
    """What the policy's loss over these rollouts is divided by."""
    match config.loss_unit:
        case "token":
            return int(rollouts.mask[rows].sum())
        case "constant":
            return len(rows) * config.max_response_tokens
    return len(rows)


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
    value_loss_sum: float | None = None
    """None where the values have a model of their own, or there are none."""
    ptx_losses: list[float] = field(default_factory=list)
    """Of each optimizer step, where text is learned along."""

    def metrics(self) -> dict[str, float]:
        tokens = max(1, self.tokens)
        beside = {} if self.value_loss_sum is None else {"value_loss": self.value_loss_sum / tokens}
        if self.ptx_losses:
            beside["ptx_loss"] = statistics.fmean(self.ptx_losses)
        return beside | {
            "policy_loss": self.loss_sum / tokens,
            "approxkl": self.approx_kl_sum / tokens,
            "clipfrac": self.clipped_sum / tokens,
            "ratio_first": self.ratio_first,
            "policy_grad_norm": self.grad_norm,
            "policy_updates": self.optimizer_steps,
            "stopped_early": int(self.stopped_early),
        }


def minibatches(num_rollouts: int, config: PPOConfig, *, step: int) -> Iterator[list[int]]:
    """Rollout numbers of each optimizer step, epoch after epoch, shuffled by counter.

    The answers to one prompt are shuffled together where whole prompts make the minibatches: the
    prompt is then read once for all of them.
    """
    each = config.answers_per_prompt
    if num_rollouts % (each * config.minibatches):
        each = 1
    for epoch in range(config.epochs):
        generator = generator_for(config.seed, step, "minibatches", epoch)
        order = torch.randperm(num_rollouts // each, generator=generator)
        for part in order.tensor_split(config.minibatches):
            yield [prompt * each + answer for prompt in part.tolist() for answer in range(each)]


def update_policy(
    policy: Reader,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    targets: Targets,
    config: PPOConfig,
    text: Pretraining | None = None,
    processes: Processes = ALONE,
) -> PolicyUpdate:
    """Clipped updates until the epochs are done or approxkl is above its limit.

    policy: a value head on its trunk learns along with it; the optimizer holds its weights too.
    text: is learned in every optimizer step. processes: all hold the same rollouts, targets and
    weights, and each computes its share of a minibatch's gradient; who stops is decided by sums
    over all. Raises Diverged before the weights take in a number
    that is not finite.
    """
    done = PolicyUpdate(value_loss_sum=None if policy.head is None else 0.0)
    for rows in minibatches(len(rollouts), config, step=rollouts.step):
        optimizer.zero_grad(set_to_none=True)
        loss = policy_gradient(policy, rollouts, targets, rows, config, processes)
        tokens = int(rollouts.mask[rows].sum())
        approx_kl = float(loss.approx_kl_sum) / tokens
        if done.optimizer_steps == 0:
            done.ratio_first = float(loss.ratio_sum) / tokens
        done.tokens += tokens
        done.loss_sum += float(loss.loss) * tokens
        done.approx_kl_sum += float(loss.approx_kl_sum)
        done.clipped_sum += float(loss.num_clipped)
        if done.value_loss_sum is not None and loss.value_loss is not None:
            done.value_loss_sum += float(loss.value_loss) * tokens
        require_finite(policy_loss=loss.loss, approxkl=approx_kl)
        if approx_kl > config.approx_kl_limit:
            done.stopped_early = True
            break
        if text is not None:
            update = done.optimizer_steps
            ptx_loss = text.gradient(
                policy.model, step=rollouts.step, update=update, processes=processes
            )
            done.ptx_losses.append(ptx_loss)
            require_finite(ptx_loss=ptx_loss)
        processes.sum_gradients(policy.modules)
        grad_norm = clip_grad_norm(policy.modules, config.max_grad_norm)
        require_finite(policy_grad_norm=grad_norm)
        optimizer.step()
        done.optimizer_steps += 1
        done.grad_norm = float(grad_norm)
    optimizer.zero_grad(set_to_none=True)
    return done


def policy_gradient(
    policy: Reader,
    rollouts: Rollouts,
    targets: Targets,
    rows: list[int],
    config: PPOConfig,
    processes: Processes = ALONE,
) -> PolicyLoss:
    """Add this process's share of the minibatch's gradient to the policy, and to the head on its
    trunk, micro-batch by micro-batch; the sums of the whole minibatch."""
    divisor = loss_divisor(rollouts, rows, config)
    num_tokens = int(rollouts.mask[rows].sum())

    def backward(model: Any, head: ValueHead | None, some: list[int]) -> PolicyLoss:
        padded = rollouts.padded(some, policy)
        mask = padded.response_mask
        values = None
        if head is None:
            logits = response_logits(model, padded)
        else:
            logits, values = response_logits_and_values(model, head, padded)
        logprobs = token_logprobs(logits, padded.response_ids, temperature=config.temperature)
        part = policy_loss(
            padded.in_rows(logprobs), mask, rollouts, targets, some, config, divisor=divisor
        )
        if values is not None:
            value_loss = value_loss_of(
                values, mask, rollouts, targets, some, config, num_tokens=num_tokens
            )
            part = replace(
                part,
                loss=part.loss + config.value_coef * value_loss,
                value_loss=value_loss.detach(),
            )
        part.loss.backward()
        return replace(part, loss=part.loss.detach())

    limit = config.micro_batch_tokens
    lines = processes.share(rollouts.lines(rows, policy, limit), rollouts.num_tokens_of)
    parts = policy.read(backward, lines, rollouts.num_tokens_of, limit, learns=True)
    names = ["loss", "num_clipped", "approx_kl_sum", "ratio_sum"]
    names += [] if policy.head is None else ["value_loss"]
    own = [_sum_of([getattr(part, name) for part in parts]) for name in names]
    return PolicyLoss(**dict(zip(names, map(torch.tensor, processes.sum(own)), strict=True)))


def _sum_of(numbers: Sequence[Tensor]) -> float:
    return float(torch.stack(list(numbers)).sum()) if numbers else 0.0


def policy_loss(
    logprobs: Tensor,
    mask: Tensor,
    rollouts: Rollouts,
    targets: Targets,
    rows: list[int],
    config: PPOConfig,
    *,
    divisor: int,
) -> PolicyLoss:
    """These rows' share of the minibatch's loss. logprobs, with gradient, and mask: (n, R)."""
    columns = mask.shape[1]
    old = rollouts.logprobs[rows, :columns]
    if config.advantage == "rloo":
        return clipped_response_loss(
            logprobs,
            old,
            targets.advantages[rows, 0],
            mask,
            clip=config.clip,
            num_responses=divisor,
        )
    weights = targets.weights[rows, :columns]
    part = clipped_policy_loss(
        logprobs,
        old,
        targets.advantages[rows, :columns] * weights,  # above 0: the larger term stays the larger
        mask,
        clip=config.clip,
        num_tokens=divisor,
    )
    if not targets.kl_loss_coef:
        return part
    kl = ESTIMATORS[config.estimator](logprobs, rollouts.ref_logprobs[rows, :columns])
    penalty = targets.kl_loss_coef * masked_sum(kl * weights, mask) / divisor
    return replace(part, loss=part.loss + penalty)


def update_value(
    reader: Reader,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    targets: Targets,
    config: PPOConfig,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """All epochs of the clipped value loss; returns its mean per real token, and more, by name.

    Raises Diverged before the weights take in a number that is not finite.
    """
    loss_sum, tokens_seen, grad_norm = 0.0, 0, torch.zeros(())
    for rows in minibatches(len(rollouts), config, step=rollouts.step):
        optimizer.zero_grad(set_to_none=True)
        loss = value_gradient(reader, rollouts, targets, rows, config, processes)
        processes.sum_gradients(reader.model)
        grad_norm = clip_grad_norm(reader.model, config.max_grad_norm)
        require_finite(value_loss=loss, value_grad_norm=grad_norm)
        optimizer.step()
        tokens = int(rollouts.mask[rows].sum())
        loss_sum += loss * tokens
        tokens_seen += tokens
    optimizer.zero_grad(set_to_none=True)
    return {"value_loss": loss_sum / tokens_seen, "value_grad_norm": float(grad_norm)}


def value_gradient(
    reader: Reader,
    rollouts: Rollouts,
    targets: Targets,
    rows: list[int],
    config: PPOConfig,
    processes: Processes = ALONE,
) -> float:
    """Add this process's share of the minibatch's gradient to the value model; the loss per real
    token of the whole minibatch."""
    num_tokens = int(rollouts.mask[rows].sum())

    def backward(model: Any, _: ValueHead | None, some: list[int]) -> float:
        padded = rollouts.padded(some, reader)
        loss = value_loss_of(
            response_values(model, padded),
            *(padded.response_mask, rollouts, targets, some, config),
            num_tokens=num_tokens,
        )
        loss.backward()
        return float(loss.detach())

    limit = config.micro_batch_tokens
    lines = processes.share(rollouts.lines(rows, reader, limit), rollouts.num_tokens_of)
    own = sum(reader.read(backward, lines, rollouts.num_tokens_of, limit, learns=True))
    return processes.sum([own])[0]


def value_loss_of(
    values: Tensor,
    mask: Tensor,
    rollouts: Rollouts,
    targets: Targets,
    rows: list[int],
    config: PPOConfig,
    *,
    num_tokens: int,
) -> Tensor:
    """These rows' share of the minibatch's value loss. values, with gradient, and mask: (n, R)."""
    columns = mask.shape[1]
    return clipped_value_loss(
        values,
        rollouts.values[rows, :columns],
        targets.returns[rows, :columns],
        mask,
        clip=config.value_clip or float("inf"),
        num_tokens=num_tokens,
    )
