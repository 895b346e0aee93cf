"""How two lists of numbers go together; scipy.stats would take a third of a second to import."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pearson(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of one length, neither of which holds one value alone; in [-1, 1]."""
    first, second = (np.asarray(each, dtype=np.float64) for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    found = (first @ second) / np.sqrt((first @ first) * (second @ second))
    return float(np.clip(found, -1.0, 1.0))


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """`pearson` of their ranks; ties share the mean of theirs."""
    return pearson(ranks(one), ranks(other))


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the lowest; ties share the mean of their places."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = counts.cumsum() - (counts - 1) / 2
    return [float(mean) for mean in means[place]]
