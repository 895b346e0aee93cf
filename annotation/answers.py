"""Answers of several annotators to the same units, as numbers.

N answers, P pairs of answers to the same unit by two annotators, U units, A annotators, K values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from annotation.intervals import Floats, Ints, Resampling, group_numbers

Answers = Mapping[Any, Mapping[Any, Any]]
"""Unit -> annotator -> value."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of answers to the same unit by two annotators, as numbers."""

    unit: Ints  # (P,)
    left: Ints  # (P,) annotator, always the smaller number of the two
    right: Ints  # (P,)
    group_of: Ints  # (U,)
    num_annotators: int

    @property
    def num_units(self) -> int:
        """Units with at least one pair."""
        return np.unique(self.unit).size

    def weight(self, annotators: Floats) -> Floats:
        """(P,) how often the two annotators meet when they were drawn so often."""
        return annotators[self.left] * annotators[self.right]


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Answers as numbers, ordered by unit and annotator."""

    unit: Ints  # (N,)
    annotator: Ints  # (N,)
    value: Ints  # (N,)
    pairs: Pairs
    left_value: Ints  # (P,)
    right_value: Ints  # (P,)
    num_values: int

    @property
    def num_annotators(self) -> int:
        return self.pairs.num_annotators

    def keep(self, kept: Any) -> "AnswerTable":
        """Only these pairs, kept: (P,) bool."""
        pairs = replace(
            self.pairs,
            unit=self.pairs.unit[kept],
            left=self.pairs.left[kept],
            right=self.pairs.right[kept],
        )
        return replace(
            self,
            pairs=pairs,
            left_value=self.left_value[kept],
            right_value=self.right_value[kept],
        )


def tabulate(
    answers: Answers,
    how: Resampling,
    *,
    order: Sequence[Any] | None = None,
    in_order: bool = False,
) -> AnswerTable:
    """Number everything; units with one answer are dropped."""
    answers = {unit: given for unit, given in answers.items() if len(given) > 1}
    annotators = numbered(name for given in answers.values() for name in given)
    found = dict.fromkeys(value for given in answers.values() for value in given.values())
    if order is not None and (unknown := found.keys() - set(order)):
        raise ValueError(f"Values that the order does not name: {sorted(map(str, unknown))}")
    values = numbered(order if order is not None else sorted(found) if in_order else found)
    rows = [
        (place, annotators[name], values[value])
        for place, given in enumerate(answers.values())
        for name, value in sorted(given.items(), key=lambda item: annotators[item[0]])
    ]
    unit, annotator, value = columns(rows, 3)
    starts = np.searchsorted(unit, np.arange(len(answers) + 1))
    left, right = columns(
        [pair for a, b in pairwise(starts) for pair in combinations(range(a, b), 2)], 2
    )
    group_of = group_numbers(list(answers), how.groups)
    pairs = Pairs(unit[left], annotator[left], annotator[right], group_of, len(annotators))
    return AnswerTable(unit, annotator, value, pairs, value[left], value[right], len(values))


def numbered(names: Iterable[Any]) -> dict[Any, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def columns(rows: Sequence[tuple[int, ...]], width: int) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(-1, width).T
