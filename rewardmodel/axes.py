"""How well each head of a model of several axes foretells the votes on its own axis."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from policy.axes import Axis
from rewardmodel.bootstrap import PairRow, bootstrap


class HasFigures(Protocol):
    """rewardmodel.evaluate.Measured: one comparison's figures by one head."""

    @property
    def log_loss(self) -> float: ...
    @property
    def correct(self) -> float: ...


@dataclass
class ByAxis:
    """Comparisons with a strict pair on an axis, by its name."""

    rows: dict[str, list[PairRow]] = field(default_factory=dict)

    def add(self, axis: str, group: str, found: HasFigures) -> None:
        row = PairRow(group, found.log_loss, found.correct, 1.0)
        self.rows.setdefault(axis, []).append(row)

    def figures(self, axes: Sequence[Axis], *, seed: int) -> dict[str, Any]:
        """{"axes": ...} with each axis' weight in the score; nothing of a model with one head."""
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
        return {"axes": found}
