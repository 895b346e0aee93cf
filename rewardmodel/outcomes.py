"""Answers on pairs where a tie is one of three outcomes: what a model trained by Davidson says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policy.comparisons import Comparison
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.calibration import LogOdds
from rewardmodel.targets import TargetRule

RULE = TargetRule(loss="davidson")
"""The shares and weights that the loss has: each vote shares its own among what it orders or ties,
and the weights of a comparison sum to 1."""


@dataclass
class Outcomes:
    """Pairs with an answer, a tie or not, one after the other; see LogOdds for the columns."""

    log_nu: float
    log_odds: list[float] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    ties: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    """Of each pair, the comparison's place in `groups`."""
    groups: list[str] = field(default_factory=list)

    def add(self, comparison: Comparison, scores: Sequence[float]) -> None:
        """scores: of its completions, in nats."""
        pairs = RULE.targets(comparison).pairs
        for pair in pairs:
            self.log_odds.append(scores[pair.first] - scores[pair.second])
            self.targets.append(pair.target)
            self.ties.append(pair.ties)
            self.weights.append(pair.weight)
            self.owners.append(len(self.groups))
        if pairs:
            self.groups.append(comparison.group)

    def points(self) -> LogOdds:
        return LogOdds.of(
            self.log_odds, self.targets, self.weights, ties=self.ties, log_nu=self.log_nu
        )

    def figures(self, *, seed: int = 0) -> dict[str, Any]:
        """Means over comparisons; accuracy is the share of answers that are the likeliest outcome
        (of equally likely ones each has its part), tie_share that of ties, tie_probability what
        the model expects it to be. nu is Davidson's."""
        points = self.points()
        nats = points.nats().tolist()
        right = points.likeliest().accuracy.tolist()
        sums = [[0.0, 0.0] for _ in self.groups]
        for owner, weight, cost, share in zip(self.owners, self.weights, nats, right, strict=True):
            sums[owner][0] += weight * cost
            sums[owner][1] += weight * share
        rows = [
            PairRow(group, cost, share, 1.0)
            for group, (cost, share) in zip(self.groups, sums, strict=True)
        ]
        means, intervals = bootstrap(rows, seed=seed)
        total = points.weights.sum()
        assert points.ties is not None
        expected = points.probabilities()[:, 1]
        return {
            "nu": math.exp(self.log_nu),
            "n": len(rows),
            "num_groups": len(set(self.groups)),
            "log_loss": means["log_loss"],
            "log_loss_interval": intervals["log_loss"],
            "accuracy": means["correct"],
            "accuracy_interval": intervals["correct"],
            "tie_share": ((points.weights * points.ties).sum() / total).item(),
            "tie_probability": ((points.weights * expected).sum() / total).item(),
        }
