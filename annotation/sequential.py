"""An interval that may be looked at after every answer, and stays right at the first wrong look.

A 95 % interval of the usual kind is right at a look that was fixed beforehand; whoever looks after
every answer and stops when it excludes one half is wrong far oftener than in one case of twenty. A
confidence sequence holds at all looks together. This one is the predictable plug-in empirical
Bernstein sequence (Waudby-Smith and Ramdas, arXiv:2010.09686, theorem 2), for values in [0, 1] that
need not be independent as long as each has the same mean given those before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
MOST_OF_A_BET = 0.5
"""The c of the paper, which bounds a single answer's weight."""
MOST_ANSWERS = 1_000_000
"""Foretold at most."""
FIRST_TRIED = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Running:
    """After each value: the middle and the two ends, each (T,), the ends within [0, 1]."""

    middle: Floats
    low: Floats
    high: Floats


def running_interval(values: Sequence[float], level: float = LEVEL) -> Running:
    """The sequence over values in [0, 1], in the order in which they came.

    The ends are the tightest that were seen so far. Where these exclude each other, the mean has
    moved, and the ends at that value stand, which hold by themselves and are never empty. Raises
    ValueError for a value outside [0, 1].
    """
    seen = np.asarray(values, dtype=np.float64)  # (T,)
    if len(seen) and not (seen.min() >= 0 and seen.max() <= 1):
        raise ValueError(f"values must lie in [0, 1]: {seen.min()} to {seen.max()}")
    count = np.arange(1, len(seen) + 1)
    means = (0.5 + np.cumsum(seen)) / (count + 1)  # with one half before the first
    variances = (0.25 + np.cumsum((seen - means) ** 2)) / (count + 1)
    earlier_mean = np.concatenate([[0.5], means[:-1]]) if len(seen) else means
    earlier_variance = np.concatenate([[0.25], variances[:-1]]) if len(seen) else variances
    bets = _bets(earlier_variance, count, level)
    total = np.cumsum(bets)
    surprise = np.cumsum((seen - earlier_mean) ** 2 * _cost(bets))
    middle = np.cumsum(bets * seen) / np.maximum(total, 1e-300)
    half = (math.log(2 / level) + surprise) / np.maximum(total, 1e-300)
    alone_low, alone_high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    low, high = np.maximum.accumulate(alone_low), np.minimum.accumulate(alone_high)
    empty = low > high
    return Running(middle, np.where(empty, alone_low, low), np.where(empty, alone_high, high))


def answers_for(half_width: float, deviation: float, level: float = LEVEL) -> int | None:
    """After how many values in all the interval is about so narrow; None if not within a million.

    deviation: of the values, at most 0.5.
    """
    if half_width <= 0:
        return None
    tried, surprise, total = 0, math.log(2 / level), 0.0
    while tried < MOST_ANSWERS:  # ever more at once: few are few to compute
        count = np.arange(tried + 1, min(2 * tried + FIRST_TRIED, MOST_ANSWERS) + 1)
        bets = _bets(np.full(len(count), max(deviation, 1e-3) ** 2), count, level)
        costs = surprise + np.cumsum(deviation**2 * _cost(bets))
        totals = total + np.cumsum(bets)
        enough = np.nonzero(costs / totals <= half_width)[0]
        if len(enough):
            return int(count[enough[0]])
        tried, surprise, total = int(count[-1]), float(costs[-1]), float(totals[-1])
    return None


def _bets(variances: Floats, count: NDArray[np.int64], level: float) -> Floats:
    wanted = np.sqrt(2 * math.log(2 / level) / (variances * count * np.log1p(count)))
    return np.minimum(wanted, MOST_OF_A_BET)


def _cost(bets: Floats) -> Floats:
    """What a value off its foretold mean costs; 4 psi_E of the paper, per squared difference."""
    return -np.log1p(-bets) - bets
