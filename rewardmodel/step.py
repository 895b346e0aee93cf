"""One step of a reward model's training, and what it comes to on the dev split.

N = scores in a forward pass, one for each completion or for each of its axes; P = pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch

from policy.lanes import add_gradients, alias, side_by_side
from policy.optim import MuonWithAdamW, clip_grad_norm, require_finite
from policy.processes import ALONE, Processes
from policy.scoring import Scorer
from rewardmodel.batches import Example
from rewardmodel.config import RewardConfig
from rewardmodel.evaluate import measure
from rewardmodel.forward import Forward
from rewardmodel.objective import Objective
from rewardmodel.targets import TargetBatch


@dataclass(frozen=True, slots=True)
class StepStats:
    """Figures of one optimizer step, on the batch before its update; weighted as the loss is."""

    loss: float
    """Nats per comparison."""
    accuracy: float | None
    """On pairs, ties left out; None, as the next, where the batch has no strict one."""
    margin: float | None
    """Mean of the score difference in the direction that the votes prefer."""
    score_mean: float
    grad_norm: float
    """Before clipping."""
    num_tokens: int
    """That went through the model, each once."""
    pad_share: float
    """Of what went through the model."""


def train_step(
    forward: Forward,
    examples: Sequence[Example],
    optimizer: "torch.optim.Optimizer | MuonWithAdamW",
    config: RewardConfig,
    objective: Objective,
    processes: Processes = ALONE,
) -> StepStats:
    """One update of the model; the objective's own numbers are left with their gradients. The step
    goes through the model in pieces of bounded size, in lanes side by side; their gradients add up
    to that of the whole, over all processes; so do the figures.
    """
    optimizer.zero_grad(set_to_none=True)
    objective.zero_grad(set_to_none=True)
    lanes = forward.lanes
    objectives = [objective, *(alias(objective) for _ in lanes[1:])]
    parts = forward.shares(processes.share(examples, lambda each: each.num_tokens))
    works = [
        partial(_backward, *each, num_comparisons=len(examples))
        for each in zip(lanes, objectives, parts, strict=True)
    ]
    sums = [sum(column) for column in zip(*side_by_side(works), strict=True)]
    add_gradients(forward.model, [each.model for each in lanes[1:]])
    add_gradients(objective, objectives[1:])
    processes.sum_gradients(forward.model)
    processes.sum_gradients(objective)
    loss, accuracy, margin, strict, score_sum, num_rows, num_tokens, num_places = processes.sum(
        sums
    )
    grad_norm = clip_grad_norm(forward.model, config.max_grad_norm)
    require_finite(loss=loss, grad_norm=grad_norm)  # before the weights move
    optimizer.step()
    return StepStats(
        loss=loss,
        accuracy=accuracy / strict if strict else None,
        margin=margin / strict if strict else None,
        score_mean=score_sum / num_rows,
        grad_norm=grad_norm.item(),
        num_tokens=int(num_tokens),
        pad_share=1 - num_tokens / num_places,
    )


def _backward(
    forward: Forward,
    objective: Objective,
    examples: Sequence[Example],
    *,
    num_comparisons: int,
) -> list[float]:
    """Add the gradient of these comparisons, a part of num_comparisons, to the model's and the
    objective's; the sums that the step's figures are made of."""
    loss = accuracy = margin = strict = score_sum = 0.0
    num_rows = num_tokens = num_places = 0.0
    for batch in forward.batches(examples):
        scores = forward.scores(batch)  # (N,)
        targets = batch.targets
        piece_loss = objective(scores, targets, num_comparisons=num_comparisons)
        piece_loss.backward()
        with torch.no_grad():
            difference = scores[targets.pairs[:, 0]] - scores[targets.pairs[:, 1]]  # (P,)
            toward = 2 * targets.targets - 1  # (P,) from -1 to 1, 0 for ties
            decided = targets.weights * (1 - targets.ties)  # (P,)
            agreed = 0.5 * decided + 0.5 * targets.weights * toward * difference.sign()
            loss += piece_loss.item()
            strict += decided.sum().item()
            accuracy += agreed.sum().item()
            margin += (targets.weights * toward * difference).sum().item()
            score_sum += scores.sum().item()
            num_rows += len(scores)
            num_tokens += int(batch.forest.mask.sum())
            num_places += batch.forest.mask.numel()
    return [loss, accuracy, margin, strict, score_sum, num_rows, num_tokens, num_places]


def dev_figures(
    scorer: Scorer, examples: Sequence[Example], batch_tokens: int, objective: Objective
) -> dict[str, float]:
    """log_loss and accuracy as in rewardmodel.evaluate, over comparisons with a strict pair, if
    there is one; objective: what the answers cost under the loss that is trained, over all. It is
    log_loss itself where Bradley-Terry alone is trained."""
    rows = [row for example in examples for row in example.rows]
    scores = scorer.heads(rows, batch_tokens).flatten().tolist()
    starts = list(accumulate((example.num_scores for example in examples), initial=0))
    found = [
        measure(each.table, scores[start : start + each.num_scores])
        for each, start in zip(examples, starts[:-1], strict=True)
        if each.table.pairs
    ]
    figures = {}
    if found:
        figures["log_loss"] = sum(each.log_loss for each in found) / len(found)
        figures["accuracy"] = sum(each.correct for each in found) / len(found)
    if objective.is_bradley_terry:
        return figures | {"objective": figures["log_loss"]}
    batch = TargetBatch.of([each.targets for each in examples], starts[:-1], [1.0] * len(examples))
    cost = objective.cpu_copy()(
        torch.tensor(scores), batch, num_comparisons=len(examples), plain=True
    )
    return figures | {"objective": cost.item()}
