"""The head of lowest loss on given features, by Newton's method.

The loss is that of rewardmodel/losses.py on soft targets, Bradley-Terry or Davidson's, with a
ridge: convex in the head, and in Davidson's log_nu together with it. A few exact steps reach its
minimum. N = completions, D = width of the features, P = pairs, U = unknowns: the head, and log_nu.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from policy.config import require
from rewardmodel.losses import difference_nats
from rewardmodel.objective import log_nu_of

PAIRS_AT_ONCE = 4096
"""Whose features are held beside each other for the curvature: bounds memory."""
FLAT = 1e-10
"""Where the loss is as steep as this in no unknown, or a step would lower it by no more than this
share of it, it is at its minimum."""
DAMPING = 1e-10
"""Added to the curvature, as a share of its mean. Along a direction that the loss does not depend
on, such as the shift of all one-hot scores, there is then no step, and elsewhere the same one."""
ENOUGH = 1e-4
"""Of what the slope promises, a step must bring so much, or it is halved (Armijo 1966)."""
MOST_HALVINGS = 40


class Fitted(NamedTuple):
    """head: (D,) float64. log_nu: Davidson's, None where ties were not learned from."""

    head: Tensor
    log_nu: float | None = None
    num_steps: int = 0
    """Of Newton's that it took."""


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """Loss, slope and curvature at (U,) unknowns; columns as in ranking_loss, float64."""

    features: Tensor
    """(N, D)"""
    pairs: Tensor
    targets: Tensor
    weights: Tensor
    """Divided by the number of comparisons."""
    ties: Tensor | None
    ridge: float

    def value(self, unknowns: Tensor) -> Tensor:
        difference, log_nu = self._of_pairs(unknowns)
        return self._data(difference, log_nu) + self._penalty(unknowns)

    def derivatives(self, unknowns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(value, slope (U,), curvature (U, U)).

        The loss of a pair depends on the unknowns through its difference and log_nu alone, so that
        its derivatives by these two, which autograd gives, are all that is needed of it.
        """
        width = self.features.shape[1]
        difference, log_nu = self._of_pairs(unknowns)
        leaves = [difference.requires_grad_()]
        if log_nu is not None:
            log_nu = log_nu.expand_as(difference).clone().requires_grad_()  # one for each pair
            leaves.append(log_nu)
        data = self._data(difference, log_nu)
        slopes = torch.autograd.grad(data, leaves, create_graph=True)  # (P,) each
        curvatures = [torch.autograd.grad(each.sum(), leaves, retain_graph=True) for each in slopes]

        slope = self.ridge * unknowns
        curvature = torch.zeros(len(unknowns), len(unknowns), dtype=torch.float64)
        curvature.diagonal()[:width] = self.ridge
        by_row = torch.zeros(len(self.features), dtype=torch.float64)
        by_row.index_add_(0, self.pairs[:, 0], slopes[0].detach())
        by_row.index_add_(0, self.pairs[:, 1], -slopes[0].detach())
        slope[:width] += self.features.T @ by_row
        for start in range(0, len(self.pairs), PAIRS_AT_ONCE):
            block = slice(start, start + PAIRS_AT_ONCE)
            first, second = self.pairs[block].unbind(1)
            apart = self.features[first] - self.features[second]  # (block, D)
            curvature[:width, :width] += apart.T @ (apart * curvatures[0][0][block, None])
            if log_nu is not None:
                mixed = apart.T @ curvatures[0][1][block]  # (D,)
                curvature[:width, width] += mixed
                curvature[width, :width] += mixed
        if log_nu is not None:
            slope[width] = slopes[1].detach().sum()
            curvature[width, width] = curvatures[1][1].sum()
        return data.detach() + self._penalty(unknowns), slope, curvature

    def _of_pairs(self, unknowns: Tensor) -> tuple[Tensor, Tensor | None]:
        """(score differences (P,), log_nu)."""
        width = self.features.shape[1]
        scores = self.features @ unknowns[:width]  # (N,)
        difference = scores[self.pairs[:, 0]] - scores[self.pairs[:, 1]]
        return difference, None if self.ties is None else unknowns[width]

    def _data(self, difference: Tensor, log_nu: Tensor | None) -> Tensor:
        nats = difference_nats(difference, self.targets, ties=self.ties, log_nu=log_nu)
        return (self.weights * nats).sum()

    def _penalty(self, unknowns: Tensor) -> Tensor:
        return self.ridge / 2 * unknowns[: self.features.shape[1]].square().sum()


def fit_head(
    features: Tensor,
    pairs: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    num_comparisons: int,
    ridge: float,
    ties: Tensor | None = None,
    max_steps: int = 100,
    start: Fitted | None = None,
) -> Fitted:
    """The w that minimises ranking_loss(features @ w) + ridge / 2 x |w x deviation|^2.

    features: (N, D) float64; pairs, targets, weights, ties as in ranking_loss. On one-hot features
    and without a ridge this is the Bradley-Terry maximum-likelihood estimate, up to a constant;
    with ties Davidson's. The features are divided by their deviations first, so that the ridge
    means the same of all. start: a fit of the same loss, with another ridge perhaps, to go on from.
    Where the data can be met exactly and there is no ridge the minimum lies at infinity, and the
    head is one whose loss nearly is 0. Raises BadInput for features that are no numbers.
    """
    require(bool(features.isfinite().all()), "the features hold a number that is not finite")
    deviation = features.std(0, correction=0)  # (D,)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    loss = HeadLoss(
        features=(features - features.mean(0)) / deviation,
        pairs=pairs,
        targets=targets,
        weights=weights / num_comparisons,
        ties=ties,
        ridge=ridge,
    )
    unknowns = [torch.zeros_like(deviation) if start is None else start.head * deviation]
    if ties is not None:
        log_nu = None if start is None else start.log_nu
        if log_nu is None:
            log_nu = log_nu_of(((weights * ties).sum() / weights.sum()).item())
        unknowns.append(deviation.new_tensor([log_nu]))
    found, num_steps = minimum(loss, torch.cat(unknowns), max_steps=max_steps)
    width = len(deviation)
    return Fitted(
        head=found[:width] / deviation,
        log_nu=None if ties is None else found[width].item(),
        num_steps=num_steps,
    )


def minimum(loss: HeadLoss, unknowns: Tensor, *, max_steps: int) -> tuple[Tensor, int]:
    """(unknowns of lowest loss, steps taken): Newton's step, halved until it is a descent."""
    for num_steps in range(max_steps):
        value, slope, curvature = loss.derivatives(unknowns)
        if slope.abs().max() <= FLAT:
            return unknowns, num_steps
        curvature.diagonal().add_(DAMPING * curvature.diagonal().mean())
        step = -torch.cholesky_solve(slope[:, None], torch.linalg.cholesky(curvature))[:, 0]
        promised = slope @ step  # below 0; twice what a parabola would lose
        if -promised <= FLAT * value:
            return unknowns + step, num_steps + 1
        for _ in range(MOST_HALVINGS):
            if loss.value(unknowns + step) <= value + ENOUGH * promised:
                break
            step, promised = step / 2, promised / 2
        unknowns = unknowns + step
    return unknowns, max_steps
