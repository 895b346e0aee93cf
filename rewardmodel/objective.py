"""What a step lowers: the loss that the config names, with the numbers of its own that it learns.

These are Davidson's tie parameter, the thresholds of ratings, and the weight of length where it is
learned apart, from votes alone. They start where the data would have them if all scores were 0,
move with the scores, and are kept in the model's config.json.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from rewardmodel.config import RewardConfig
from rewardmodel.losses import (
    choice_nats,
    explained_by_length,
    level_nats,
    pair_sums_squared,
    ranking_loss,
    softened,
    with_length,
)
from rewardmodel.survey import Survey
from rewardmodel.targets import TargetBatch, TargetRule, Targets

LEAST_TIE_SHARE, MOST_TIE_SHARE = 1e-3, 0.9
RATE = 0.1
"""Step along the gradient at the highest learning rate. The loss curves at most by 1/4 in each of
these numbers, so that plain gradient descent is stable, whatever the size of the model."""
NEWTON_STEPS, RIDGE = 20, 1e-3
CONFIG_KEY = "concord_loss"
"""Where config.json of a model holds what `as_json` says."""


class Objective(nn.Module):
    """The loss as a function of scores; its parameters are those that are not the model's."""

    def __init__(self, config: RewardConfig, survey: Survey, rule: TargetRule) -> None:
        super().__init__()
        self.config = config
        self.scales = dict(rule.scales)
        self.axes = rule.axes
        self.log_nu: nn.Parameter | None = None
        """Davidson's, one number, or (A,) of A axes: people call a tie on one more readily than on
        another."""
        if config.loss == "davidson" and self.axes:
            log_nus = [log_nu_of(survey.tie_share(axis)) for axis in self.axes]
            self.log_nu = nn.Parameter(torch.tensor(log_nus))
        elif config.loss == "davidson":
            self.log_nu = nn.Parameter(torch.tensor(log_nu_of(survey.tie_share())))
        self.length_weights: nn.Parameter | None = None
        """Of each head, nats per unit of log length; the slopes are what length still explains of
        the scores themselves."""
        if config.length_head:
            self.length_weights = nn.Parameter(torch.zeros(rule.num_heads))
            self.length_slopes = nn.Parameter(torch.zeros(rule.num_heads))
            self.length_unit = rule.length_unit
        starts = [
            torch.tensor(thresholds_of(survey.levels[name], *ends))
            for name, ends in self.scales.items()
        ]
        self.lowest = nn.ParameterList([nn.Parameter(start[:1].clone()) for start in starts])
        self.log_gaps = nn.ParameterList([nn.Parameter(start.diff().log()) for start in starts])

    @torch.no_grad()
    def start_length(self, targets: Sequence[Targets]) -> None:
        """Give length the weight that it would have if nothing else were known: it then has little
        left that the scores could learn. targets: those that are trained on."""
        if self.length_weights is None:
            return
        counts = [len(each.lengths) for each in targets]
        starts = list(accumulate(counts, initial=0))[:-1]
        batch = TargetBatch.of(targets, starts, [1.0] * len(targets))
        heads = batch.pairs[:, 0] % len(self.length_weights)
        for head in range(len(self.length_weights)):
            here = heads == head
            if not here.any():
                continue  # judgments alone
            first, second = batch.pairs[here].unbind(1)
            self.length_weights[head] = fitted_weight(
                batch.lengths[first] - batch.lengths[second],
                batch.targets[here],
                batch.weights[here],
            )

    def forward(
        self, scores: Tensor, batch: TargetBatch, *, num_comparisons: int, plain: bool = False
    ) -> Tensor:
        """Nats per comparison, a scalar; losses of the pieces of a step add up.

        scores: (N,) float. plain: without centring, smoothing, strength and margins: what the
        answers cost, for looking at dev.
        """
        config = self.config
        smoothing = 0.0 if plain else config.label_smoothing
        centring = 0.0 if plain else config.centring
        loss = scores.new_zeros(())
        own = scores
        if self.length_weights is not None:
            if centring:  # of the score that is published, not of what length adds to it
                sums = batch.weights * pair_sums_squared(own, batch.pairs)
                loss = loss + centring * sums.sum() / num_comparisons
                centring = 0.0
            if config.length_decorrelation and not plain:
                explained = explained_by_length(
                    scores, batch.lengths, batch.pairs, batch.weights, self.length_slopes
                )
                loss = loss + config.length_decorrelation * explained / num_comparisons
            scores = with_length(scores, batch.lengths, self.length_weights)
        if config.loss == "plackett_luce":
            nats = choice_nats(scores, batch.winners, batch.contestants, smoothing=smoothing)
            loss = loss + (batch.choice_weights * nats).sum() / num_comparisons
            if centring:
                sums = batch.weights * pair_sums_squared(scores, batch.pairs)
                loss = loss + centring * sums.sum() / num_comparisons
        elif config.loss != "pointwise":
            targets = batch.targets
            if smoothing:
                targets = softened(targets, 1 - smoothing)
            if config.strength == "soft" and not plain:
                targets = softened(targets, batch.confidences)
            loss = loss + ranking_loss(
                scores,
                batch.pairs,
                targets,
                batch.weights,
                num_comparisons=num_comparisons,
                centring=centring,
                margins=batch.margins if config.strength == "margin" and not plain else None,
                ties=batch.ties if self.log_nu is not None else None,
                log_nu=self._log_nu_of(batch),
            )
        for number in range(len(self.scales)):
            here = batch.scales == number  # (J,)
            nats = level_nats(own[batch.judged[here]], batch.levels[here], self.thresholds(number))
            weighted = (batch.judged_weights[here] * nats).sum() / num_comparisons
            loss = loss + config.pointwise_weight * weighted
        return loss

    def _log_nu_of(self, batch: TargetBatch) -> Tensor | None:
        """The one that holds for each pair."""
        if self.log_nu is None or not self.axes:
            return self.log_nu
        return self.log_nu[batch.pairs[:, 0] % len(self.axes)]  # (P,)

    @property
    def is_bradley_terry(self) -> bool:
        """Whether `plain` costs are just the log loss of strict pairs."""
        return (
            self.config.loss == "bradley_terry" and not self.scales and self.length_weights is None
        )

    def cpu_copy(self) -> "Objective":
        return copy.deepcopy(self).cpu()

    def thresholds(self, number: int) -> Tensor:
        """Of the scale with this number, (L - 1,), rising."""
        lowest = self.lowest[number]
        return torch.cat((lowest, lowest + self.log_gaps[number].exp().cumsum(0)))

    @torch.no_grad()
    def descend(self, share: float) -> None:
        """One step of these numbers at this share of their rate; a gradient that is not finite, or
        none, moves nothing."""
        for parameter in self.parameters():
            if parameter.grad is not None and parameter.grad.isfinite().all():
                parameter.sub_(RATE * share * parameter.grad.clamp(-1.0, 1.0))
            parameter.grad = None

    def as_json(self) -> dict[str, Any]:
        """For config.json: loss, log_nu (with Davidson's; by axis, where there are any), scales by
        name (with ratings)."""
        found: dict[str, Any] = {"loss": self.config.loss}
        if self.log_nu is not None:
            values = self.log_nu.tolist()
            found["log_nu"] = dict(zip(self.axes, values, strict=True)) if self.axes else values
        if self.length_weights is not None:
            found["length"] = {"weights": self.length_weights.tolist(), "unit": self.length_unit}
        if self.scales:
            found["scales"] = {
                name: {"low": low, "high": high, "thresholds": self.thresholds(number).tolist()}
                for number, (name, (low, high)) in enumerate(self.scales.items())
            }
        return found


def fitted_weight(differences: Tensor, targets: Tensor, weights: Tensor) -> float:
    """The b of lowest cross-entropy of sigmoid(b x difference) with the targets, by Newton.

    All are (P,). A ridge of one thousandth keeps it finite where all longer ones won.
    """
    length, target = differences.double(), targets.double()
    weight = weights.double() / weights.double().sum()
    b = 0.0
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(b * length)
        slope = (weight * (p - target) * length).sum().item() + RIDGE * b
        b -= slope / ((weight * p * (1 - p) * length.square()).sum().item() + RIDGE)
    return b


def log_nu_of(tie_share: float) -> float:
    """Log of Davidson's nu that gives equal scores this share of ties: nu / (2 + nu)."""
    share = min(MOST_TIE_SHARE, max(LEAST_TIE_SHARE, tie_share))
    return math.log(2 * share / (1 - share))


def thresholds_of(counts: Counter[int], low: int, high: int) -> list[float]:
    """Thresholds that give a score of 0 the levels in these shares, half an answer added to each.

    From low + 1 to high: minus the log-odds of that level or more.
    """
    seen: Mapping[int, float] = {level: counts[level] + 0.5 for level in range(low, high + 1)}
    total = sum(seen.values())
    found = []
    for level in range(low + 1, high + 1):
        above = sum(count for each, count in seen.items() if each >= level)
        found.append(math.log((total - above) / above))
    return found
