"""What a step lowers: the loss that the config names, with the numbers of its own that it learns.

These are Davidson's tie parameter and the thresholds of ratings. They start where the data would
have them if all scores were 0, move with the scores, and are kept in the model's config.json.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rewardmodel.config import RewardConfig
from rewardmodel.losses import choice_nats, level_nats, pair_sums_squared, ranking_loss, softened
from rewardmodel.survey import Survey
from rewardmodel.targets import TargetBatch, TargetRule

LEAST_TIE_SHARE, MOST_TIE_SHARE = 1e-3, 0.9
RATE = 0.1
"""Step along the gradient at the highest learning rate. The loss curves at most by 1/4 in each of
these numbers, so that plain gradient descent is stable, whatever the size of the model."""
CONFIG_KEY = "concord_loss"
"""Where config.json of a model holds what `as_json` says."""


class Objective(nn.Module):
    """The loss as a function of scores; its parameters are those that are not the model's."""

    def __init__(self, config: RewardConfig, survey: Survey, rule: TargetRule) -> None:
        super().__init__()
        self.config = config
        self.scales = dict(rule.scales)
        self.log_nu: nn.Parameter | None = None
        if config.loss == "davidson":
            self.log_nu = nn.Parameter(torch.tensor(log_nu_of(survey.tie_share)))
        starts = [
            torch.tensor(thresholds_of(survey.levels[name], *ends))
            for name, ends in self.scales.items()
        ]
        self.lowest = nn.ParameterList([nn.Parameter(start[:1].clone()) for start in starts])
        self.log_gaps = nn.ParameterList([nn.Parameter(start.diff().log()) for start in starts])

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
        if config.loss == "plackett_luce":
            nats = choice_nats(scores, batch.winners, batch.contestants, smoothing=smoothing)
            loss = (batch.choice_weights * nats).sum() / num_comparisons
            if centring:
                sums = batch.weights * pair_sums_squared(scores, batch.pairs)
                loss = loss + centring * sums.sum() / num_comparisons
        elif config.loss != "pointwise":
            targets = batch.targets
            if smoothing:
                targets = softened(targets, 1 - smoothing)
            if config.strength == "soft" and not plain:
                targets = softened(targets, batch.confidences)
            loss = ranking_loss(
                scores,
                batch.pairs,
                targets,
                batch.weights,
                num_comparisons=num_comparisons,
                centring=centring,
                margins=batch.margins if config.strength == "margin" and not plain else None,
                ties=batch.ties if self.log_nu is not None else None,
                log_nu=self.log_nu,
            )
        for number in range(len(self.scales)):
            here = batch.scales == number  # (J,)
            nats = level_nats(
                scores[batch.judged[here]], batch.levels[here], self.thresholds(number)
            )
            weighted = (batch.judged_weights[here] * nats).sum() / num_comparisons
            loss = loss + config.pointwise_weight * weighted
        return loss

    @property
    def is_bradley_terry(self) -> bool:
        """Whether `plain` costs are just the log loss of strict pairs."""
        return self.config.loss == "bradley_terry" and not self.scales

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
        """For config.json: loss, log_nu (with Davidson's), scales by name (with ratings)."""
        found: dict[str, Any] = {"loss": self.config.loss}
        if self.log_nu is not None:
            found["log_nu"] = self.log_nu.item()
        if self.scales:
            found["scales"] = {
                name: {"low": low, "high": high, "thresholds": self.thresholds(number).tolist()}
                for number, (name, (low, high)) in enumerate(self.scales.items())
            }
        return found


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
