"""How each annotator works: agreement, sides, lengths, speed, fatigue, and whom to look at.

Pure functions over plain rows. Nothing here decides: it names people to look at, with the reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import sqrt
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from annotation.answers import Answers, numbered
from annotation.intervals import (
    DEFAULT,
    Z95,
    Floats,
    Ints,
    Resampling,
    Statistic,
    adjusted,
    group_numbers,
    of_measure,
    ratio,
    share,
    two_sided_binomial,
    undefined_because,
    upper_binomial,
)


class StrictPair(NamedTuple):
    """One annotator put one completion above another. (A tuple, as is TimedAnswer: of these a page
    makes ten thousand.)

    Of a ranking of more than two give one pair (best against worst): its pairs are not independent.
    """

    unit: Any
    annotator: Any
    first_won: bool
    """The winner was shown before the loser; the order was drawn at random."""
    winner_length: int = 0
    """In characters."""
    loser_length: int = 0


class TimedAnswer(NamedTuple):
    annotator: Any
    session: Any
    number: int
    """Place within the session, from 0."""
    seconds: float
    agreement: float | None = None
    """Share of the unit's other annotators who gave the same answer; None where there is none."""


@dataclass(frozen=True, slots=True)
class SideBias:
    first_share: Statistic
    """Strict pairs won by what was shown first; n: strict pairs."""
    p_value: float
    """Two-sided, exact, of a share so far from a half by chance."""


@dataclass(frozen=True, slots=True)
class Speed:
    median_seconds: float
    too_fast: Statistic
    """Share of answers faster than the floor; n: answers."""


class Reason(StrEnum):
    RANDOM = "random"
    ONE_SIDE = "one_side"
    TOO_FAST = "too_fast"


@dataclass(frozen=True, slots=True)
class Suspect:
    """One reason to look at one annotator."""

    annotator: Any
    reason: Reason
    detail: str
    p_value: float
    adjusted_p: float
    """Benjamini-Hochberg over all who were tested for the same reason."""


def agreement_with_others(answers: Answers) -> dict[tuple[Any, Any], float]:
    """(unit, annotator) -> share of the unit's other annotators who gave the same value."""
    found = {}
    for unit, given in answers.items():
        if len(given) > 1:
            said = list(given.values())
            for name, value in given.items():
                found[unit, name] = (said.count(value) - 1) / (len(said) - 1)
    return found


def one_of_each_vote(pairs: Iterable[StrictPair]) -> list[StrictPair]:
    """The first pair of each annotator on each unit: all axes of a vote were answered with the
    texts in one order, so they say once which side it leans to."""
    found: dict[tuple[Any, Any], StrictPair] = {}
    for pair in pairs:
        found.setdefault((pair.unit, pair.annotator), pair)
    return list(found.values())


def position_bias(pairs: Iterable[StrictPair]) -> dict[Any, SideBias]:
    """Annotator -> how often the completion shown first won, with Wilson's interval.

    pairs: independent ones, so one of each vote.
    """
    counts = {
        name: (sum(pair.first_won for pair in own), len(own)) for name, own in _by_annotator(pairs)
    }
    return {
        name: SideBias(share(first, n), two_sided_binomial(first, n))
        for name, (first, n) in counts.items()
    }


def length_bias(pairs: Iterable[StrictPair], how: Resampling = DEFAULT) -> Statistic:
    """Share of strict pairs that the longer completion won, interval over groups and annotators.

    Pairs of equal length are left out. n: the others. No bias by itself: longer may be better.
    """
    kept = [pair for pair in pairs if pair.winner_length != pair.loser_length]
    longer = [pair.winner_length > pair.loser_length for pair in kept]
    return _share(kept, longer, how, "no strict pair has two different lengths")


def first_bias(pairs: Iterable[StrictPair], how: Resampling = DEFAULT) -> Statistic:
    """Share of all strict pairs that the completion shown first won, interval over groups and
    annotators. n: strict pairs."""
    kept = list(pairs)
    return _share(kept, [pair.first_won for pair in kept], how, "there is no pair")


def _share(
    pairs: Sequence[StrictPair], holds: Sequence[bool], how: Resampling, reason: str
) -> Statistic:
    """Of which pairs something holds, with its two-way interval."""
    if not pairs:
        return undefined_because(reason)
    units, names = numbered(pair.unit for pair in pairs), numbered(pair.annotator for pair in pairs)
    unit = np.array([units[pair.unit] for pair in pairs])
    who = np.array([names[pair.annotator] for pair in pairs])
    measure = partial(_weighted_mean, unit, who, np.array(holds, dtype=float))
    group_of = group_numbers(list(units), how.groups)
    return of_measure(measure, group_of, len(names), n=len(pairs), how=how, reason=reason)


def _weighted_mean(
    unit: Ints, who: Ints, figure: Floats, units: Floats, annotators: Floats
) -> float:
    weight = units[unit] * annotators[who]
    return ratio(weight @ figure, weight.sum())


def speed(timed: Iterable[TimedAnswer], *, floor_seconds: float) -> dict[Any, Speed]:
    """Annotator -> median seconds per answer and the share of answers below the floor."""
    return {
        name: Speed(
            median(answer.seconds for answer in own),
            share(sum(answer.seconds < floor_seconds for answer in own), len(own)),
        )
        for name, own in _by_annotator(timed)
    }


def fatigue(timed: Iterable[TimedAnswer], *, least_answers: int = 20) -> dict[Any, Statistic]:
    """Annotator -> change of the agreement with others per answer within a session.

    A least-squares slope with an intercept for each session, so that a good day isn't taken for
    rest; interval from White's errors (doi:10.2307/1912934). Below 0: it falls. n: answers that
    count. Answers are taken as independent within a session.
    """
    return {
        name: _slope([(one.session, one.number, one.agreement) for one in own], least_answers)
        for name, own in _by_annotator(timed)
    }


def pace(timed: Iterable[TimedAnswer], *, least_answers: int = 20) -> dict[Any, Statistic]:
    """Annotator -> change of the seconds per answer within a session, as `fatigue` has it. Above
    0: slower. One answer far from the others weighs much: look at the interval."""
    return {
        name: _slope([(one.session, one.number, one.seconds) for one in own], least_answers)
        for name, own in _by_annotator(timed)
    }


def _slope(answers: Iterable[tuple[Any, int, float | None]], least_answers: int) -> Statistic:
    """answers: session, place within it, figure; without a figure an answer is left out."""
    kept = [row for row in answers if row[2] is not None]
    if len(kept) < least_answers:
        return undefined_because(f"there are fewer than {least_answers} answers", len(kept))
    numbers = numbered(session for session, _, _ in kept)
    session = np.array([numbers[row[0]] for row in kept])
    there = _from_mean(np.array([row[1] for row in kept], dtype=float), session)
    agreed = _from_mean(np.array([row[2] for row in kept], dtype=float), session)
    spread = there @ there
    if not spread:
        return undefined_because("no session has more than one answer", len(kept))
    slope = there @ agreed / spread
    error = sqrt(((there * (agreed - slope * there)) ** 2).sum()) / spread
    low, high = float(slope - Z95 * error), float(slope + Z95 * error)
    return Statistic(float(slope), len(kept), low, high)


def _from_mean(figures: Floats, session: Ints) -> Floats:
    """Each less the mean of its session, (N,)."""
    return figures - (np.bincount(session, figures) / np.bincount(session))[session]


def suspects(
    answers: Answers | None = None,
    pairs: Iterable[StrictPair] = (),
    timed: Iterable[TimedAnswer] = (),
    *,
    floor_seconds: float = 2.0,
    allowed_too_fast: float = 0.1,
    least_share: float = 0.65,
    least_answers: int = 10,
    false_discovery: float = 0.05,
) -> list[Suspect]:
    """Annotators to look at, the clearest first; one entry per annotator and reason.

    Random: agrees with others less than their answers agree with each other (`disagreement`), and
    no more than a coin would; who is merely less sure than the others is not named. Answers that
    order nothing are left out, so that who never ties isn't held against who does; of somebody who
    mostly gives such answers all are looked at.
    One side: first (or last) shown won at least `least_share`, more than a fair coin would. (pairs:
    one of each vote, for they are taken as independent.)
    Too fast: more than `allowed_too_fast` of the answers took less than `floor_seconds`.
    Whoever has fewer than `least_answers` of a kind is not tested on it. Benjamini-Hochberg within
    each reason: of those named for it, about `false_discovery` may be there by bad luck. (Over all
    reasons at once, a team that is fast throughout would lower the bar of the other two.)
    """
    families = [
        list(_random_ones(answers or {}, least_answers)),
        list(_one_sided(pairs, least_answers, least_share)),
        list(_hasty_ones(timed, least_answers, floor_seconds, allowed_too_fast)),
    ]
    named = [
        Suspect(name, reason, detail, p, q)
        for found in families
        for (name, reason, detail, p), q in zip(found, adjusted([row[3] for row in found]))
        if detail and q <= false_discovery
    ]
    return sorted(named, key=lambda one: (one.adjusted_p, one.p_value, str(one.annotator)))


ORDERS_NOTHING = ("equal", "several", "both_bad", "cannot_tell")
"""Values that say nothing of an order, as services.quality names them."""
COIN_ABOVE = 0.05
"""p-value above which an agreement is not told apart from a coin's."""

Tested = tuple[Any, Reason, str, float]
"""Annotator, what was tested, the words for a page (empty: too small to matter), the p-value."""


def _random_ones(answers: Answers, least_answers: int) -> Iterable[Tested]:
    whole = ordered = _numbers(answers)
    of_all = of_strict = disagreement(answers, least_answers=least_answers)
    coins_of_all = coins_of_strict = against_most(answers)
    said = {value for given in answers.values() for value in given.values()}
    if not said.isdisjoint(ORDERS_NOTHING):
        strict = {
            unit: {name: value for name, value in given.items() if value not in ORDERS_NOTHING}
            for unit, given in answers.items()
        }
        ordered = _numbers(strict)
        of_strict = disagreement(strict, least_answers=least_answers)
        coins_of_strict = against_most(strict)
    for name in {**of_all, **of_strict}:
        is_strict = 2 * ordered.get(name, 0) >= whole[name]
        test = (of_strict if is_strict else of_all).get(name)
        if test is not None:
            detail = (
                f"agrees with {test.seen:.0%} of the others' answers; any answer to the same units "
                f"agrees with {test.expected:.0%} (n = {test.n})"
            )
            against = (coins_of_strict if is_strict else coins_of_all).get(name, AgainstMost())
            yield (
                name,
                Reason.RANDOM,
                detail if against.is_no_more_than_a_coin else "",
                test.p_value,
            )


def _numbers(answers: Answers) -> dict[Any, int]:
    """Annotator -> answers."""
    counts: dict[Any, int] = defaultdict(int)
    for given in answers.values():
        for name in given:
            counts[name] += 1
    return counts


@dataclass(slots=True)
class AgainstMost:
    """One annotator beside what most of the others say, where most of them say one thing."""

    agreed: int = 0
    cases: int = 0
    by_chance: float = 0.0
    """Sum of what a coin would agree with."""

    @property
    def is_no_more_than_a_coin(self) -> bool:
        """Whether this agreement could be a coin's (one-sided exact test at 5 in 100)."""
        if self.cases == 0:
            return True
        return upper_binomial(self.agreed, self.cases, self.by_chance / self.cases) > COIN_ABOVE


def against_most(answers: Answers) -> dict[Any, AgainstMost]:
    """Annotator -> how they stand to most of the others; one walk over the answers for all."""
    found: dict[Any, AgainstMost] = defaultdict(AgainstMost)
    for given in answers.values():
        if len(given) < 2:
            continue
        counts = Counter(given.values())
        chance = 1 / max(2, len(counts))
        most = {value: _most_of_others(counts, value) for value in counts}
        for name, value in given.items():
            if most[value]:
                one = found[name]
                one.agreed += value == most[value][0]
                one.cases += 1
                one.by_chance += chance
    return found


def _most_of_others(counts: Counter[Any], own: Any) -> list[Any]:
    """The value that most others gave, alone in its list; empty where two values are level."""
    others = {value: count - (value == own) for value, count in counts.items()}
    most = max(others.values())
    top = [value for value, count in others.items() if count == most]
    return top if len(top) == 1 else []


def _one_sided(pairs: Iterable[StrictPair], least_answers: int, least: float) -> Iterable[Tested]:
    for name, bias in position_bias(pairs).items():
        n, first = bias.first_share.n, bias.first_share.value or 0.0
        if n >= least_answers:
            side, size = ("first", first) if first >= 0.5 else ("last", 1 - first)
            detail = f"prefers what is shown {side} in {size:.0%} of {n} pairs"
            yield name, Reason.ONE_SIDE, detail if size >= least else "", bias.p_value


def _hasty_ones(
    timed: Iterable[TimedAnswer], least_answers: int, floor: float, allowed: float
) -> Iterable[Tested]:
    for name, pace in speed(timed, floor_seconds=floor).items():
        n, fast = pace.too_fast.n, pace.too_fast.value or 0.0
        if n >= least_answers:
            detail = f"{fast:.0%} of {n} answers took less than {floor:g} s"
            p_value = upper_binomial(round(fast * n), n, allowed)
            yield name, Reason.TOO_FAST, detail if fast > allowed else "", p_value


@dataclass(frozen=True, slots=True)
class Disagreement:
    seen: float
    """Mean share of others who gave the same answer."""
    expected: float
    """The same for an answer drawn from all answers to the same units."""
    n: int
    p_value: float


def disagreement(answers: Answers, *, least_answers: int = 10) -> dict[Any, Disagreement]:
    """Annotator -> does this annotator agree less than the unit's other annotators do?

    An exact permutation test: if all were alike, the annotator's answer to a unit could be any one
    of the answers given to it. The number of others who agree is summed over units and compared
    with all such draws; small p: agrees too little. Two answers to a unit say nothing, since both
    agree or neither does.
    """
    own: dict[Any, Counter[tuple[int, Alike]]] = defaultdict(Counter)
    for given in answers.values():
        if len(given) > 2:
            counts = Counter(given.values())
            alike = tuple(sorted(counts.values()))
            for name, value in given.items():
                own[name][counts[value] - 1, alike] += 1
    return {name: _permuted(rows) for name, rows in own.items() if rows.total() >= least_answers}


Alike = tuple[int, ...]
"""How many gave each of the values of a unit, in ascending order."""


def _permuted(rows: Counter[tuple[int, Alike]]) -> Disagreement:
    """rows: (others who agree, the unit's counts) -> units of that kind."""
    kinds: Counter[Alike] = Counter()
    for (_number, alike), units in rows.items():
        kinds[alike] += units
    sums = np.ones(1)  # P(sum of agreeing others = index) over the units so far
    for alike, units in kinds.items():
        size = sum(alike)
        chances = np.bincount([count - 1 for count in alike], alike, size) / size
        sums = np.convolve(sums, _convolved(chances, units))
    n, seen = rows.total(), sum(number * units for (number, _), units in rows.items())
    return Disagreement(
        seen=sum(u * number / (sum(alike) - 1) for (number, alike), u in rows.items()) / n,
        expected=sum(u * _expected(alike) for alike, u in kinds.items()) / n,
        n=n,
        p_value=float(min(1.0, sums[: seen + 1].sum())),
    )


def _expected(alike: Alike) -> float:
    """Mean share of the others who agree, over the answers of a unit."""
    size = sum(alike)
    return sum(count * (count - 1) for count in alike) / size / (size - 1)


def _convolved(chances: Floats, times: int) -> Floats:
    """Of the sum of so many draws, by halves: a kind of unit comes by the thousand."""
    if times == 1:
        return chances
    half = _convolved(chances, times // 2)
    whole = np.convolve(half, half)
    return np.convolve(whole, chances) if times % 2 else whole


def _by_annotator(rows: Iterable[Any]) -> Iterable[tuple[Any, list[Any]]]:
    found: Mapping[Any, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.annotator].append(row)
    return found.items()
