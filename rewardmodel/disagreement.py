"""How far the members of an ensemble part from each other on the comparisons of a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from policy.comparisons import PairTable
from policy.ensemble import Scored


class HasFigures(Protocol):
    """rewardmodel.evaluate.Measured: one comparison's figures by one member."""

    @property
    def log_loss(self) -> float: ...
    @property
    def correct(self) -> float: ...


@dataclass
class Disagreement:
    """Sums over comparisons, each counted once; all zero where a single model scored."""

    num_comparisons: int = 0
    members: list[list[float]] = field(default_factory=list)
    """Per member, the sums of log loss and of correct."""
    spread: float = 0.0
    parted: float = 0.0
    """Share of a comparison's pairs, by weight, that not all members order the same way."""

    def add(
        self, table: PairTable, scored: Sequence[Scored], by_member: Sequence[HasFigures]
    ) -> None:
        """Count one comparison: its completions as scored, and each member's figures of it."""
        if not by_member:
            return
        self.num_comparisons += 1
        self.members = self.members or [[0.0, 0.0] for _ in by_member]
        for sums, measured in zip(self.members, by_member, strict=True):
            sums[0] += measured.log_loss
            sums[1] += measured.correct
        self.spread += sum(each.spread or 0.0 for each in scored) / len(scored)
        for (i, j), weight in zip(table.pairs, table.weights, strict=True):
            orders = [
                (a > b) - (a < b) for a, b in zip(scored[i].members, scored[j].members, strict=True)
            ]
            if any(one != other for one, other in pairwise(orders)):
                self.parted += weight

    def figures(self) -> dict[str, Any]:
        """{"ensemble": ...}, or nothing of a single model."""
        count = self.num_comparisons
        if count == 0:
            return {}
        return {
            "ensemble": {
                "members": [
                    {"log_loss": log_loss / count, "accuracy": correct / count}
                    for log_loss, correct in self.members
                ],
                "spread": self.spread / count,
                "pairs_not_unanimous": self.parted / count,
            }
        }
