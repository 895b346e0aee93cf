"""How well each head of a model of several axes foretells the votes on its own axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from policy.axes import Axis
from policy.comparisons import Comparison
from rewardmodel.bootstrap import PairRow, bootstrap
from rewardmodel.outcomes import Outcomes


class HasFigures(Protocol):
    """rewardmodel.evaluate.Measured: one comparison's figures by one head."""

    @property
    def log_loss(self) -> float: ...
    @property
    def correct(self) -> float: ...


@dataclass
class ByAxis:
    """Comparisons with an answer on an axis, by its name."""

    rows: dict[str, list[PairRow]] = field(default_factory=dict)
    """Those with a strict pair."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    """Where the axis' head learned ties, those with any."""

    @classmethod
    def of(cls, log_nus: Mapping[str, float]) -> "ByAxis":
        """log_nus: Davidson's, of each axis that learned ties."""
        return cls(outcomes={axis: Outcomes(log_nu) for axis, log_nu in log_nus.items()})

    def learns_from_ties(self, comparison: Comparison) -> bool:
        """Whether it has a tie on an axis whose head learned them."""
        return any(vote.num_ties() for vote in comparison.votes if vote.axis in self.outcomes)

    def add(self, axis: str, group: str, found: HasFigures) -> None:
        row = PairRow(group, found.log_loss, found.correct, 1.0)
        self.rows.setdefault(axis, []).append(row)

    def figures(self, axes: Sequence[Axis], *, seed: int) -> dict[str, Any]:
        """{"axes": ...} with each axis' weight in the score, and what its head says of ties beside
        the strict votes; nothing of a model with one head."""
        if not axes:
            return {}
        found: dict[str, dict[str, Any]] = {}
        for axis in axes:
            rows = self.rows.get(axis.name, [])
            found[axis.name] = {"weight": axis.weight, "n": len(rows)}
            if rows:
                means, intervals = bootstrap(rows, seed=seed)
                found[axis.name] |= {
                    "accuracy": means["correct"],
                    "accuracy_interval": intervals["correct"],
                    "log_loss": means["log_loss"],
                    "log_loss_interval": intervals["log_loss"],
                }
            outcomes = self.outcomes.get(axis.name)
            if outcomes is not None and outcomes.groups:
                found[axis.name]["three_outcomes"] = outcomes.figures(seed=seed)
        return {"axes": found}
