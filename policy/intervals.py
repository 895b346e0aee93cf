"""A mean with an interval that draws groups: answers to one prompt are not independent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
DRAWN_AT_ONCE = 1_000_000
"""Groups: bounds the memory of a bootstrap, to some 40 MB."""
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap over groups."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % percentile interval over groups; None where one group is all."""

    mean: float
    interval: Sequence[float] | None
    groups: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:+.4f}"
        return f"{self.mean:+.4f} [{self.interval[0]:+.4f}, {self.interval[1]:+.4f}]"

    def lies_above(self, value: float) -> bool:
        """The whole interval does."""
        return self.interval is not None and self.interval[0] > value

    def lies_below(self, value: float) -> bool:
        """The whole interval does."""
        return self.interval is not None and self.interval[1] < value

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval": list(self.interval) if self.interval else None,
            "groups": self.groups,
        }


def bootstrap_mean(rows: Sequence[tuple[str, float, float]], *, seed: int = 0) -> Mean:
    """Weighted mean of (group, value, weight) rows, its interval by drawing groups again.

    The group, such as a prompt, is the unit. 0 where there is no row.
    """
    names = sorted({group for group, _, _ in rows})
    place = {name: at for at, name in enumerate(names)}
    sums = np.zeros((len(names), 2))  # per group: weight x value, weight
    for group, value, weight in rows:
        sums[place[group]] += (weight * value, weight)
    if not len(sums):
        return Mean(0.0, None, 0)
    whole = sums.sum(0)
    mean = float(whole[0] / whole[1])
    if len(sums) < 2:
        return Mean(mean, None, len(sums))
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    per_block = max(1, DRAWN_AT_ONCE // len(sums))
    for start in range(0, RESAMPLES, per_block):
        block = means[start : start + per_block]  # (S,)
        drawn = generator.integers(len(sums), size=(len(block), len(sums)))
        again = sums[drawn].sum(1)  # (S, 2)
        block[:] = again[:, 0] / again[:, 1]
    low, high = np.percentile(means, INTERVAL)
    return Mean(mean, (float(low), float(high)), len(sums))
