"""Gold: questions whose answer is known, and what people's answers to them say.

Pure functions over plain rows. An expert answers like everybody else; what at least two of them
agree on becomes constraints ("A above C"), never a full order: where experts tie or differ, nothing
is asked of anybody.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from annotation.intervals import Statistic, share, undefined_because
from annotation.models import AnnotatorStanding as Standing
from annotation.models import CheckVerdict as Verdict
from annotation.models import Outcome

EXPERTS_NEEDED = 2
SHOWN_FROM = 20
"""A labeler sees their own accuracy from so many checks on."""
SHOWN_IN_BLOCKS = 10
"""... and it moves only once per so many, so that no single answer can be read off it."""
SHOWN_STEP = 0.05


class Says(StrEnum):
    """What a constraint asks of one axis."""

    ABOVE = "above"
    EQUAL = "equal"
    """All completions are as good as each other."""
    BOTH_BAD = "both_bad"
    """None of them would do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """One thing that an answer must say. better, worse: completion ids, for ABOVE alone."""

    axis: str
    says: str = Says.ABOVE
    better: int | None = None
    worse: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One axis of an answer, as models.Ranking has it."""

    outcome: str
    groups: Sequence[Sequence[int]] = field(default_factory=tuple)
    acceptable: int | None = None

    def place(self, completion: int | None) -> int | None:
        """The number of the completion's group from the top; None where it was not ranked."""
        found = [place for place, group in enumerate(self.groups) if completion in group]
        return found[0] if found else None

    @property
    def is_bad(self) -> bool:
        """None is good enough: said outright, or by a line above all of them."""
        return self.outcome == Outcome.BOTH_BAD or self.acceptable == 0


Answered = Mapping[str, Said]
"""Axis -> what was said of it."""


def verdict_on(constraint: Constraint, answered: Answered) -> Verdict:
    """Whether an answer holds one constraint. A tie breaks "A above B": it says there is no
    difference where experts saw one."""
    said = answered.get(constraint.axis)
    if said is None or said.outcome == Outcome.CANNOT_TELL:
        return Verdict.UNSAID
    if constraint.says == Says.BOTH_BAD:
        return Verdict.HELD if said.is_bad else Verdict.BROKEN
    if said.outcome == Outcome.BOTH_BAD:
        return Verdict.UNSAID
    if constraint.says == Says.EQUAL:
        return Verdict.HELD if len(said.groups) == 1 else Verdict.BROKEN
    above, below = said.place(constraint.better), said.place(constraint.worse)
    if above is None or below is None:
        return Verdict.UNSAID
    return Verdict.HELD if above < below else Verdict.BROKEN


def verdict_of(constraints: Iterable[Constraint], answered: Answered) -> Verdict:
    """An answer to the whole item: one broken constraint breaks it, else one unsaid leaves it
    unsaid."""
    found = {verdict_on(one, answered) for one in constraints}
    for verdict in (Verdict.BROKEN, Verdict.UNSAID):
        if verdict in found:
            return verdict
    return Verdict.HELD


def agreed(answers: Sequence[Answered]) -> list[Constraint]:
    """What all experts' answers say alike, axis by axis; nothing from fewer than two experts."""
    if len(answers) < EXPERTS_NEEDED:
        return []
    axes = [axis for axis in answers[0] if all(axis in one for one in answers)]
    return [found for axis in axes for found in _agreed_on(axis, [one[axis] for one in answers])]


def _agreed_on(axis: str, said: Sequence[Said]) -> list[Constraint]:
    if all(one.outcome == Outcome.BOTH_BAD for one in said):
        return [Constraint(axis=axis, says=Says.BOTH_BAD)]
    if all(one.outcome == Outcome.EQUAL for one in said):
        same = len({frozenset(one.groups[0]) for one in said}) == 1
        return [Constraint(axis=axis, says=Says.EQUAL)] if same else []
    pairs = set.intersection(*(_strict_pairs(one) for one in said))
    return [Constraint(axis=axis, better=above, worse=below) for above, below in sorted(pairs)]


def _strict_pairs(said: Said) -> set[tuple[int, int]]:
    return {
        (above, below)
        for place, group in enumerate(said.groups)
        for lower in said.groups[place + 1 :]
        for above in group
        for below in lower
    }


def in_short(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Without what follows from the others: A above C, where A is above B and B above C."""
    pairs = {(one.axis, one.better, one.worse) for one in constraints if one.says == Says.ABOVE}
    follows = {
        (axis, above, below)
        for axis, above, between in pairs
        for same_axis, upper, below in pairs
        if (same_axis, upper) == (axis, between)
    }
    return [one for one in constraints if (one.axis, one.better, one.worse) not in follows]


def accuracy(verdicts: Sequence[str]) -> Statistic:
    """Share of items whose constraints were all held, with Wilson's interval."""
    return share(sum(one == Verdict.HELD for one in verdicts), len(verdicts))


def shown_accuracy(verdicts: Sequence[str]) -> Statistic:
    """What a labeler is told of their own: whole blocks of the oldest answers, from twenty on,
    rounded. verdicts: oldest first, without the newest ones, which the caller holds back."""
    n = len(verdicts) // SHOWN_IN_BLOCKS * SHOWN_IN_BLOCKS
    if n < SHOWN_FROM:
        return undefined_because(f"there are fewer than {SHOWN_FROM} answers to count")
    held = sum(one == Verdict.HELD for one in verdicts[:n])
    return Statistic(round(held / n / SHOWN_STEP) * SHOWN_STEP, n)


def standing_after(
    before: str,
    verdicts: Sequence[str],
    *,
    since_warning: int,
    bar_percent: int,
    window: int,
    more: int,
) -> Standing:
    """The standing after a check.

    verdicts: of the checks that count, oldest first; the newest `window` are looked at, and fewer
    decide nothing. since_warning: how many of them came after the warning could be read. A stop
    is lifted by a person alone.
    """
    if before == Standing.STOPPED:
        return Standing.STOPPED
    latest = verdicts[-window:]
    held = sum(one == Verdict.HELD for one in latest)
    if len(latest) < window or held * 100 >= bar_percent * window:
        return Standing.GOOD
    if before == Standing.WARNED and since_warning >= more:
        return Standing.STOPPED
    return Standing.WARNED


def gap(every: int, lot: float) -> int:
    """How many new comparisons until the next check: between half and one and a half of `every`,
    `every` on average. lot: drawn in [0, 1)."""
    low, high = every - every // 2, every + every // 2
    return low + int(lot * (high - low + 1))
