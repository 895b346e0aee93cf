"""How near the answers to one comparison lie to each other; pure. Low: somebody should decide.

Two answers on one axis:

    both order the completions   mean over the pairs of completions that both placed: 1 where they
                                 say the same, 1/2 where one of them ties the pair, 0 where they
                                 are reversed; not defined where they share no pair
    otherwise                    1 where both say the same (both bad, cannot tell), else 0: both bad
                                 is no tie, and whoever cannot tell agrees with nobody who can

Of more answers: the mean over all pairs of answers that can be compared. So of two people who each
prefer another it is 0, of two against one 1/3, of three against one 1/2.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

ORDERS = ("ranked", "equal")


@dataclass(frozen=True, slots=True)
class Said:
    """One axis of one answer."""

    outcome: str
    groups: Sequence[Sequence[Hashable]] = ()
    """Best first; what is in no group was not ranked."""


def accord(answers: Sequence[Said]) -> float | None:
    """In [0, 1]; None where no two answers can be compared."""
    found = [
        near
        for one, other in combinations(answers, 2)
        if (near := nearness(one, other)) is not None
    ]
    return fmean(found) if found else None


def nearness(one: Said, other: Said) -> float | None:
    """Of two answers, as the table above has it."""
    if one.outcome not in ORDERS or other.outcome not in ORDERS:
        return float(one.outcome == other.outcome)
    here, there = _places(one), _places(other)
    shared = [name for name in here if name in there]
    pairs = [_pair(here[a] - here[b], there[a] - there[b]) for a, b in combinations(shared, 2)]
    return fmean(pairs) if pairs else None


def _pair(here: int, there: int) -> float:
    if (here > 0) == (there > 0) and (here < 0) == (there < 0):
        return 1.0
    return 0.5 if here == 0 or there == 0 else 0.0


def _places(said: Said) -> dict[Hashable, int]:
    return {name: place for place, group in enumerate(said.groups) for name in group}
