"""How far annotators agree; pure functions over plain rows.

Answers: unit -> annotator -> value; rankings: unit -> annotator -> groups of ids, best first, an id
that is missing was not ranked. Both hold first independent answers: no revisions, nothing that was
answered after seeing another's answer. A unit with one answer says nothing and is left out.
P pairs of answers to the same unit by two annotators, U units, A annotators, K values.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import isnan, nan, sqrt
from typing import Any, Literal

import numpy as np

from annotation.answers import Answers, AnswerTable, Pairs, columns, numbered, tabulate
from annotation.intervals import (
    DEFAULT,
    Floats,
    Ints,
    Measure,
    Resampling,
    Statistic,
    group_numbers,
    of_measure,
    ratio,
    undefined_because,
)

Rankings = Mapping[Any, Mapping[Any, Sequence[Iterable[Hashable]]]]

ALL_THE_SAME = "every answer is the same"


@dataclass(slots=True)
class PairAgreement:
    """Raw agreement on strict pairs.

    Take one axis of one comparison, two annotators, and two completions that both annotators put
    in a strict order: the two agree if it is the same order. `share` is agreements over all such
    cases, each counted once. Ties, both bad, cannot tell and what was not ranked give no case, so
    this says nothing of them; chance is not taken off (0.5 is what coin flips reach).
    """

    cases: int = 0
    agreeing: int = 0
    comparisons: int = 0
    """Those with at least one case."""

    @property
    def share(self) -> float | None:
        """In [0, 1]; None where no two annotators ordered the same pair."""
        return self.agreeing / self.cases if self.cases else None

    def add(self, votes: Iterable[Mapping[str, Any]]) -> None:
        """Count the votes of one comparison (README, "Files between the stages")."""
        by_axis = defaultdict(list)
        for vote in votes:
            by_axis[vote["axis"]].append(_places(vote["ranking"]))
        before = self.cases
        for rankings in by_axis.values():
            for one, other in combinations(rankings, 2):
                seen = _compare(one, other)
                self.cases += seen.alike + seen.reversed
                self.agreeing += seen.alike
        self.comparisons += self.cases > before


def percent_agreement(answers: Answers | AnswerTable, how: Resampling = DEFAULT) -> Statistic:
    """Share of pairs of annotators who gave the same value, every unit weighing the same.

    Chance is not taken off. n: units with two answers or more. answers: of several figures hand
    one table to each (answers.tabulate, with the same `how`).
    """
    table = _tabled(answers, how)
    return _statistic(partial(_agreement, table), table.pairs, how, "there is no answer")


def cohen_kappa(
    answers: Answers | AnswerTable, how: Resampling = DEFAULT, *, least_shared: int = 5
) -> Statistic:
    """Cohen's kappa (doi:10.1177/001316446002000104) of two annotators.

    Of more: the mean over all pairs of annotators that share at least `least_shared` units, each
    weighing as many units as it shares; pairs whose answers are all the same value have no kappa
    and are left out. n: units that count. With few shared units kappa is biased towards 0.
    """
    table = _tabled(answers, how)
    who = table.pairs.left * table.num_annotators + table.pairs.right
    shared = np.bincount(who, minlength=1)[who] if who.size else who
    kept = shared >= least_shared
    if who.size and not kept.any():
        return undefined_because(f"no two annotators share {least_shared} units")
    table = table.keep(kept)
    names, number = np.unique(who[kept], return_inverse=True)
    kappa = partial(_mean_kappa, table, number, names)
    return _statistic(kappa, table.pairs, how, ALL_THE_SAME)


def fleiss_kappa(answers: Answers | AnswerTable, how: Resampling = DEFAULT) -> Statistic:
    """Fleiss' kappa (doi:10.1037/h0031619): chance from the values' shares over all annotators.

    Defined for units with equally many answers; where they differ it stays undefined rather than
    throwing answers away, and Krippendorff's alpha is the figure to read. n: units that count.
    """
    table = _tabled(answers, how)
    counts = np.bincount(table.unit)
    if table.pairs.left.size and counts.min() != counts.max():
        return undefined_because(
            f"units have from {counts.min()} to {counts.max()} answers: see Krippendorff's alpha",
            table.pairs.num_units,
        )
    return _statistic(partial(_fleiss, table), table.pairs, how, ALL_THE_SAME)


def krippendorff_alpha(
    answers: Answers | AnswerTable,
    how: Resampling = DEFAULT,
    *,
    level: Literal["nominal", "ordinal"] = "nominal",
    order: Sequence[Any] | None = None,
) -> Statistic:
    """Krippendorff's alpha ("Computing Krippendorff's Alpha-Reliability", 2011, sections C, D).

    Any number of answers per unit. order: the values from least to most, for the ordinal level;
    else they are sorted as they are. n: units with two answers or more. A table has its order
    already. Raises ValueError for a value that `order` does not name.
    """
    if isinstance(answers, AnswerTable):
        table = answers
    else:
        table = tabulate(answers, how, order=order, in_order=level == "ordinal")
    return _statistic(partial(_alpha, table, level), table.pairs, how, ALL_THE_SAME)


def kendall_tau(rankings: Rankings, how: Resampling = DEFAULT) -> Statistic:
    """Kendall's tau-b (doi:10.1093/biomet/33.3.239) of two annotators on the ids both ranked.

    Mean over the pairs of annotators of a unit, then over units. A pair of annotators of whom one
    ties everything has no tau-b and is left out. n: units that count.
    """
    pairs, seen = _ranking_pairs(rankings, how, lambda one: not isnan(one.tau_b))
    tau = np.array([one.tau_b for one in seen])
    reason = "no two annotators both ordered something that they both ranked"
    return _statistic(partial(_unit_mean, pairs, tau), pairs, how, reason, nothing=reason)


def concordance(rankings: Rankings, how: Resampling = DEFAULT) -> Statistic:
    """`PairAgreement.share` with its interval: strict pairs that two annotators order alike.

    Each case weighs the same, so long rankings weigh more than short ones. n: units that count.
    """
    pairs, seen = _ranking_pairs(rankings, how, lambda one: one.alike + one.reversed > 0)
    alike = np.array([one.alike for one in seen], dtype=float)
    cases = np.array([one.alike + one.reversed for one in seen], dtype=float)

    def measure(units: Floats, annotators: Floats) -> float:
        weight = units[pairs.unit] * pairs.weight(annotators)
        return ratio(weight @ alike, weight @ cases)

    reason = "no two annotators put the same two in a strict order"
    return _statistic(measure, pairs, how, reason, nothing=reason)


def _tabled(answers: Answers | AnswerTable, how: Resampling) -> AnswerTable:
    return answers if isinstance(answers, AnswerTable) else tabulate(answers, how)


def _statistic(
    measure: Measure,
    pairs: Pairs,
    how: Resampling,
    reason: str,
    nothing: str = "fewer than two annotators share a unit",
) -> Statistic:
    """`nothing`: the reason where there is no pair at all."""
    if not pairs.left.size:
        return undefined_because(nothing)
    return of_measure(
        measure, pairs.group_of, pairs.num_annotators, n=pairs.num_units, how=how, reason=reason
    )


def _unit_mean(pairs: Pairs, figure: Floats, units: Floats, annotators: Floats) -> float:
    """Mean of a figure of pairs, (P,), over the pairs of a unit and then over the units."""
    weight = pairs.weight(annotators)
    total = np.bincount(pairs.unit, weight, units.size)
    inside = np.bincount(pairs.unit, weight * figure, units.size)
    there = total > 0
    return ratio((units[there] * inside[there] / total[there]).sum(), units[there].sum())


def _agreement(table: AnswerTable, units: Floats, annotators: Floats) -> float:
    alike = (table.left_value == table.right_value).astype(float)
    return _unit_mean(table.pairs, alike, units, annotators)


def _fleiss(table: AnswerTable, units: Floats, annotators: Floats) -> float:
    weight = annotators[table.annotator]
    answers = np.bincount(table.unit, weight, units.size)
    met = np.bincount(table.pairs.unit, table.pairs.weight(annotators), units.size) > 0
    per_unit = np.divide(units, answers, out=np.zeros_like(units), where=met)
    counts = np.bincount(table.value, weight * per_unit[table.unit], table.num_values)
    by_chance = ratio((counts**2).sum(), counts.sum() ** 2)
    return ratio(_agreement(table, units, annotators) - by_chance, 1 - by_chance)


def _mean_kappa(
    table: AnswerTable, who: Ints, names: Ints, units: Floats, annotators: Floats
) -> float:
    """who: (P,) the place in `names` of each pair's two annotators; names: left * A + right."""
    k, pairs = table.num_values, table.pairs
    cell = (who * k + table.left_value) * k + table.right_value
    counts = np.bincount(cell, units[pairs.unit], names.size * k * k).reshape(-1, k, k)
    n = counts.sum(axis=(1, 2))
    seen = np.trace(counts, axis1=1, axis2=2) * n  # both in units of n squared: whole numbers
    by_chance = (counts.sum(axis=2) * counts.sum(axis=1)).sum(axis=1)
    there = by_chance < n * n
    kappa = (seen[there] - by_chance[there]) / (n[there] ** 2 - by_chance[there])
    first, second = np.divmod(names[there], pairs.num_annotators)
    weight = n[there] * annotators[first] * annotators[second]
    return ratio(weight @ kappa, weight.sum())


def _alpha(table: AnswerTable, level: str, units: Floats, annotators: Floats) -> float:
    pairs, k = table.pairs, table.num_values
    answers = np.bincount(table.unit, annotators[table.annotator], units.size)[pairs.unit]
    left, right = annotators[pairs.left], annotators[pairs.right]
    # An answer weighs 1 in all, spread over the answers of the *other* annotators of its unit:
    # that is 1 / (m - 1) for each of them, as in the source, where everyone was drawn once. Who
    # met somebody has another there, so the 1 stands for none where the weight is 0 anyway.
    others = np.maximum(answers - left, 1.0), np.maximum(answers - right, 1.0)
    spread = units[pairs.unit] * left * right * (1 / others[0] + 1 / others[1])
    cell = table.left_value * k + table.right_value
    half = np.bincount(cell, spread / 2, k * k).reshape(k, k)
    coincidences = half + half.T  # (K, K)
    totals = coincidences.sum(axis=0)
    middle = np.cumsum(totals) - totals / 2
    distance = (
        (middle[:, None] - middle[None, :]) ** 2 if level == "ordinal" else 1.0 - np.identity(k)
    )
    seen, by_chance = (coincidences * distance).sum(), totals @ distance @ totals
    return float(1 - (totals.sum() - 1) * ratio(seen, by_chance))


@dataclass(frozen=True, slots=True)
class _Compared:
    """Two rankings on the pairs of ids that both ranked."""

    alike: int
    reversed: int
    tau_b: float  # nan where one of the two ties everything


def _compare(one: Mapping[Hashable, int], other: Mapping[Hashable, int]) -> _Compared:
    alike = against = strict_here = strict_there = 0
    for a, b in combinations([name for name in one if name in other], 2):
        here, there = one[a] - one[b], other[a] - other[b]
        strict_here += here != 0
        strict_there += there != 0
        alike += here * there > 0
        against += here * there < 0
    below = sqrt(strict_here * strict_there)
    return _Compared(alike, against, (alike - against) / below if below else nan)


def _ranking_pairs(
    rankings: Rankings, how: Resampling, counts: Any
) -> tuple[Pairs, list[_Compared]]:
    """The pairs of annotators of each unit for which `counts` holds, and how they compare."""
    annotators = numbered(name for given in rankings.values() for name in given)
    rows, seen = [], []
    for place, given in enumerate(rankings.values()):
        placed = sorted((annotators[name], _places(groups)) for name, groups in given.items())
        for (a, one), (b, other) in combinations(placed, 2):
            if counts(compared := _compare(one, other)):
                rows.append((place, a, b))
                seen.append(compared)
    unit, left, right = columns(rows, 3)
    group_of = group_numbers(list(rankings), how.groups)
    return Pairs(unit, left, right, group_of, len(annotators)), seen


def _places(ranking: Iterable[Iterable[Hashable]]) -> dict[Hashable, int]:
    """Completion id -> the place of its group, 0 = best."""
    return {name: place for place, group in enumerate(ranking) for name in group}
