"""How far annotators agree; pure functions over rows of a comparisons file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any


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
        """Count the votes of one comparison (ARCHITECTURE.md section 6)."""
        by_axis = defaultdict(list)
        for vote in votes:
            by_axis[vote["axis"]].append(_places(vote["ranking"]))
        before = self.cases
        for rankings in by_axis.values():
            for one, other in combinations(rankings, 2):
                for a, b in combinations(sorted(one.keys() & other.keys()), 2):
                    here, there = one[a] - one[b], other[a] - other[b]
                    if here and there:
                        self.cases += 1
                        self.agreeing += (here < 0) == (there < 0)
        self.comparisons += self.cases > before


def _places(ranking: Iterable[Iterable[str]]) -> dict[str, int]:
    """Completion id -> the place of its group, 0 = best."""
    return {name: place for place, group in enumerate(ranking) for name in group}
