"""A figure with its sample size and 95 % interval, or the reason why there is none."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, log, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Measure = Callable[[Floats, Floats], float]
"""(unit weights (U,), annotator weights (A,)) -> the figure, nan where it is undefined."""

Z95 = NormalDist().inv_cdf(0.975)
FEWEST_ANNOTATORS = 5
"""With fewer, resampling annotators says nothing: of two, every second draw is one person twice."""
FEWEST_DEFINED = 0.9
"""Share of resamples in which the figure must exist for its interval to be given."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One figure for a page."""

    value: float | None
    n: int
    """What the figure rests on; each function says of what."""
    low: float | None = None
    """The 95 % interval; both ends None where there is none."""
    high: float | None = None
    undefined: str = ""
    """Why there is no value, as a sentence; empty where there is one."""


def undefined_because(reason: str, n: int = 0) -> Statistic:
    return Statistic(None, n, undefined=f"undefined because {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How an interval is drawn."""

    groups: Mapping[Hashable, Hashable] = field(default_factory=dict)
    """Unit -> split group; a unit that is not named is a group of its own."""
    resamples: int = 500
    """0: no interval."""
    seed: int = 0


DEFAULT = Resampling()


def group_numbers(units: Sequence[Hashable], groups: Mapping[Hashable, Hashable]) -> Ints:
    """The group of every unit, numbered from 0, (U,)."""
    names = [("named", groups[unit]) if unit in groups else ("alone", unit) for unit in units]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def two_way_interval(
    measure: Measure, group_of: Ints, num_annotators: int, how: Resampling
) -> tuple[float | None, float | None]:
    """95 % percentile interval: groups and annotators are resampled, each apart from the other.

    Owen's pigeonhole bootstrap (doi:10.1214/07-AOAS122): an answer weighs how often its group was
    drawn times how often its annotator was. It errs on the wide side. With fewer than five
    annotators these stay as they are, and the interval speaks of them alone. A measure must never
    compare an annotator with the same annotator drawn twice: the two always agree.
    group_of: (U,), group of each unit. (None, None) with fewer than two groups, or where the figure
    is undefined in more than a tenth of the resamples.
    """
    num_groups = int(group_of.max()) + 1 if group_of.size else 0
    if num_groups < 2 or how.resamples < 1:
        return None, None
    draw = np.random.default_rng(how.seed)
    annotators = np.ones(num_annotators)
    values = np.empty(how.resamples)
    for number in range(how.resamples):
        if num_annotators >= FEWEST_ANNOTATORS:
            annotators = times_drawn(draw, num_annotators)
        values[number] = measure(times_drawn(draw, num_groups)[group_of], annotators)
    values = values[np.isfinite(values)]
    if values.size < FEWEST_DEFINED * how.resamples:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def times_drawn(draw: np.random.Generator, size: int) -> Floats:
    """How often each of `size` things comes when `size` are drawn with replacement, (size,)."""
    return np.bincount(draw.integers(size, size=size), minlength=size).astype(float)


def ratio(top: Any, bottom: Any) -> float:
    """Of two numbers, numpy's or Python's; nan where there is nothing below."""
    return float(top / bottom) if bottom else nan


def share(count: int, n: int) -> Statistic:
    """count of n with Wilson's score interval (doi:10.1080/01621459.1927.10502953).

    It takes the n to be independent of each other.
    """
    if n == 0:
        return undefined_because("there is no case")
    middle = (count + Z95**2 / 2) / (n + Z95**2)
    reach = Z95 / (n + Z95**2) * sqrt(count * (n - count) / n + Z95**2 / 4)
    return Statistic(count / n, n, max(0.0, middle - reach), min(1.0, middle + reach))


def binomial_probabilities(n: int, chance: float) -> Floats:
    """P(k of n) for k = 0..n, each with the given chance in (0, 1)."""
    k = np.arange(n + 1)
    of = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # log k!, (n + 1,)
    return np.exp(of[n] - of - of[::-1] + k * log(chance) + (n - k) * log(1 - chance))


def two_sided_binomial(count: int, n: int, chance: float = 0.5) -> float:
    """Exact p-value: the outcomes that are no likelier than the one seen."""
    likely = binomial_probabilities(n, chance)
    # The room for rounding lets the mirrored outcome of a fair coin count as equally likely.
    return float(min(1.0, likely[likely <= likely[count] * (1 + 1e-7)].sum()))


def upper_binomial(count: int, n: int, chance: float) -> float:
    """Exact p-value of `count` or more."""
    return float(min(1.0, binomial_probabilities(n, chance)[count:].sum()))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg: what is at most q here has a false-discovery rate of at most q.

    doi:10.1111/j.2517-6161.1995.tb02031.x, in the form of adjusted p-values, in the order given.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    raised = p[order] * p.size / np.arange(1, p.size + 1)
    result = np.empty(p.size)
    result[order] = np.minimum(1.0, np.minimum.accumulate(raised[::-1])[::-1])
    return [float(value) for value in result]


def of_measure(
    measure: Measure, group_of: Ints, num_annotators: int, *, n: int, how: Resampling, reason: str
) -> Statistic:
    """The figure on the whole sample with its two-way interval; `reason` where it is undefined."""
    value = measure(np.ones(group_of.size), np.ones(num_annotators))
    if not isfinite(value):
        return undefined_because(reason, n)
    return Statistic(value, n, *two_way_interval(measure, group_of, num_annotators, how))
