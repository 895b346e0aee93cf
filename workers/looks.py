"""What one difference says: better, not worse by a margin, worse by more than it, or undecided.

Dev is looked at once for every candidate, and the more looks the luckier the luckiest. So the k-th
look may claim something at the level 6 / (pi^2 k^2) x 5 % alone, which sums to 5 % over all looks
that there will ever be: the chance that any claim was luck. Every claim is by that one interval,
and what lies within the margin is neither worse nor refused: a candidate that more answers would
let pass is not turned away for want of them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

FAMILY_LEVEL = 0.05
MARGIN_NATS = 0.02
"""A reward model whose dev log loss is at most so much worse is not worse: about half of what a
doubling of a few hundred votes gains."""
MOST_GROUPS = 1_000_000
"""Foretold at most."""
BETTER, NOT_WORSE, WORSE, UNDECIDED = "better", "not_worse", "worse", "undecided"


def level_of_look(look: int) -> float:
    """What the k-th look may spend, look >= 1; these sum to FAMILY_LEVEL."""
    return FAMILY_LEVEL * 6 / (math.pi * look) ** 2


def by_group(groups: Sequence[str], values: Iterable[float]) -> list[tuple[str, float, float]]:
    """(group, mean of its values, how many), in order of appearance."""
    held: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        held.setdefault(group, []).append(float(value))
    return [(group, sum(own) / len(own), float(len(own))) for group, own in held.items()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """New minus old, by groups: a group, such as a thread, is the unit.

    deviation: of the groups about the mean, each weighed by its share of the answers.
    """

    mean: float
    deviation: float
    groups: int

    @classmethod
    def of(cls, rows: Sequence[tuple[str, float, float]]) -> "Difference":
        """From (group, value, weight), one row for each group."""
        if not rows:
            return cls(mean=0.0, deviation=math.nan, groups=0)
        values = np.array([value for _, value, _ in rows])
        weights = np.array([weight for _, _, weight in rows])
        shares = weights / weights.sum() * len(rows)  # mean 1
        mean = float(np.average(values, weights=weights))
        if len(rows) < 2:
            return cls(mean=mean, deviation=math.nan, groups=1)
        scatter = float(np.sum((shares * (values - mean)) ** 2)) / (len(rows) - 1)
        return cls(mean=mean, deviation=math.sqrt(scatter), groups=len(rows))

    def interval(self, level: float) -> tuple[float, float]:
        """Student's, at 1 - level; endless where fewer than two groups tell nothing."""
        if self.groups < 2:
            return -math.inf, math.inf
        half = self.times(level) * self.deviation / math.sqrt(self.groups)
        return self.mean - half, self.mean + half

    def times(self, level: float) -> float:
        """Standard errors on either side."""
        return float(student.ppf(1 - level / 2, self.groups - 1))

    def groups_to_leave(self, limit: float, level: float) -> int | None:
        """So many more make the interval end before a limit, on whichever side the mean lies, if
        mean and deviation stay what they are. None where the mean is so near the limit that
        MOST_GROUPS would not do."""
        if self.groups < 2 or self.mean == limit:
            return None
        wanted = (self.times(level) * self.deviation / (limit - self.mean)) ** 2
        return max(1, math.ceil(wanted) - self.groups) if wanted <= MOST_GROUPS else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one look at a loss says. finding: better, not_worse, worse or undecided."""

    finding: str
    look: int
    interval: tuple[float, float]
    """At the level of this look."""
    more_groups: int | None = None
    """Of an undecided one: about so many more would tell, at the level of the next look."""

    def as_json(self) -> dict[str, Any]:
        ends = [end if math.isfinite(end) else None for end in self.interval]
        return {
            "finding": self.finding,
            "look": self.look,
            "level": level_of_look(self.look),
            "interval": ends,
            "more_groups": self.more_groups,
        }


def find(loss: Difference, *, look: int, margin: float = MARGIN_NATS) -> Finding:
    """What a difference of losses (lower is better) says at the k-th look."""
    level = level_of_look(look)
    low, high = loss.interval(level)
    if high < 0:
        return Finding(finding=BETTER, look=look, interval=(low, high))
    if high < margin:
        return Finding(finding=NOT_WORSE, look=look, interval=(low, high))
    if low > margin:
        return Finding(finding=WORSE, look=look, interval=(low, high))
    more = loss.groups_to_leave(margin, level_of_look(look + 1))
    return Finding(finding=UNDECIDED, look=look, interval=(low, high), more_groups=more)
