"""What the ledger knows of how people answer, as rows for annotation/agreement.py and quality.py.

First independent answers alone: the first revision of each annotator, whatever they changed later,
for that one nobody had talked to them about.

Of comparisons with adaptive overlap the first two answers alone count for agreement. The third was
asked for because these two differed, so with it every such comparison would look more disputed than
people are; the first two are whoever came first, whatever they said. Comparisons that always get
all answers count with all of them: that they do is drawn by hash (annotation/overlap.py).
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

from django.db.models import Count, Min, QuerySet, TextField
from django.db.models.functions import Cast, Length

from annotation import agreement, gold, quality
from annotation.answers import tabulate
from annotation.funnel import NEVER_USED
from annotation.intervals import Resampling, Statistic
from annotation.kept import kept
from annotation.models import (
    AnnotatorKind,
    ComparisonCompletion,
    Outcome,
    Preference,
    Project,
    Ranking,
)
from annotation.overlap import FIRST
from annotation.services import standing
from annotation.services.consistency import agreement_with_self
from annotation.services.ledger_state import State, votes_and_voids
from annotation.services.weights import (
    BRADLEY_TERRY,
    DAWID_SKENE,
    Reliability,
    Words,
    reliabilities,
    words_of,
)

MOST_ANSWERS = 10_000
"""The newest; more would keep a page waiting."""
RESAMPLES = 100
"""Of each interval, here and on the pages of analysis: a page draws a dozen of them."""
ROWS_KEPT = 2
"""In each process, some ten megabytes each."""
FLOOR_SECONDS = 2.0
"""Nobody reads two answers faster."""

PEOPLE = (AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)


SaidOnAxis = tuple[int, int, str, list[list[int]]]
"""Comparison, annotator, outcome, groups."""


@dataclass(slots=True)
class AxisRows:
    """The answers on one axis."""

    pairs: dict[int, dict[int, Hashable]] = field(default_factory=lambda: defaultdict(dict))
    """Comparison of two -> annotator -> the stored place of the completion preferred, or what was
    said instead: the same few values everywhere, else chance would be too small to take off."""
    lists: dict[int, dict[int, list[list[int]]]] = field(default_factory=lambda: defaultdict(dict))
    """Comparison of more -> annotator -> groups, best first."""
    firsts: dict[int, dict[int, Hashable]] = field(default_factory=lambda: defaultdict(dict))
    """Any comparison -> annotator -> the completion at the top, or what was said instead."""
    said: list[SaidOnAxis] = field(default_factory=list)
    """Of every answer."""


@dataclass(slots=True)
class Marks:
    """What a comparison is counted under."""

    language: str
    skill: str
    day: date
    """Of its last answer."""
    schemes: set[int] = field(default_factory=set)
    """Versions that its answers followed."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read."""

    axes: dict[str, AxisRows]
    timed: list[tuple[int, quality.TimedAnswer]]
    """With the comparison."""
    groups: dict[Hashable, Hashable]
    """Comparison -> split group."""
    pseudonyms: dict[int, str]
    given: dict[int, int]
    """Annotator -> answers on an axis."""
    marks: dict[int, Marks]
    answers: int
    there_are_more: bool
    strict: list[quality.StrictPair] = field(default_factory=list)
    """Of all axes, a vote's in the order in which they were asked."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of agreement and its name, e.g. `alpha`."""

    name: str
    statistic: Statistic


@dataclass(frozen=True, slots=True)
class AnnotatorFigures:
    """One line of the table."""

    pseudonym: str
    answers: int
    median_seconds: float | None
    too_fast: Statistic | None
    first_share: Statistic | None
    """Strict answers that what was shown first won."""
    with_self: Statistic | None
    """Hidden repeats answered as the first time; None where there was none."""
    agreement: float | None
    """Mean share of the others who gave the same answer; None where nobody else was asked."""
    gold: Statistic
    """Hidden checks answered as the experts do; n: checks."""
    dawid_skene: Reliability | None
    """How often two completions are ordered rightly, by each model; None without shared pairs."""
    bradley_terry: Reliability | None
    tiring: Statistic | None
    """Change of the agreement with others per answer within a day; below 0: it falls."""
    slowing: Statistic | None
    """Change of the seconds per answer within a day."""
    reasons: list[str]
    """Why to look at this one: quality.Reason."""

    @property
    def tiring_of_100(self) -> str:
        """Over 100 answers, with its interval."""
        return _of_100(self.tiring, 2)

    @property
    def slowing_of_100(self) -> str:
        """Over 100 answers, with its interval."""
        return _of_100(self.slowing, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """What the page says of all together."""

    rows: Rows
    agreement: dict[str, list[Figure]]
    """By axis."""
    longer_wins: Statistic


def newest_answers(
    project: Project, kinds: Iterable[str] = PEOPLE
) -> tuple[QuerySet[Preference], int, bool]:
    """The newest first answers of annotators of some kinds that every figure is made of, how many
    they are, and whether there are more."""
    found = Preference.objects.filter(
        project=project, revision=1, voided_at=None, annotator__kind__in=list(kinds)
    ).exclude(comparison__purpose__in=NEVER_USED)  # gold is chosen for being clear
    newest = found.order_by("-pk")[: MOST_ANSWERS + 1]
    count, oldest = newest.aggregate(count=Count("pk"), oldest=Min("pk")).values()
    if count <= MOST_ANSWERS:
        return found, count, False
    return found.filter(pk__gt=oldest), MOST_ANSWERS, True


def strict_pair(
    *, unit: int, who: int, groups: list[list[int]], order: list[int], lengths: Mapping[int, int]
) -> quality.StrictPair:
    """The best against the worst of a ranking of two groups or more, as it was shown. lengths:
    completion -> characters; 0 where it names none."""
    winner, loser = groups[0][0], groups[-1][0]
    first_won = order.index(winner) < order.index(loser)
    return quality.StrictPair(unit, who, first_won, lengths.get(winner, 0), lengths.get(loser, 0))


def read_rows(project: Project, kinds: Iterable[str] = PEOPLE) -> Rows:
    """The newest first answers of annotators of some kinds, as the ledger stands now; not to be
    changed, for parts of a page that come one after the other share them."""
    return _read(project, tuple(kinds), votes_and_voids(project))


@kept(ROWS_KEPT)
def _read(project: Project, kinds: tuple[str, ...], state: State) -> Rows:
    """Columns, no rows of the ORM: a page waits for this. (A project is equal by its id.)"""
    found, num_answers, there_are_more = newest_answers(project, kinds)
    rows = Rows({}, [], {}, {}, defaultdict(int), {}, num_answers, there_are_more)
    if not num_answers:
        return rows
    stored, lengths = _completions(found)
    numbers: dict[tuple[int, object], int] = defaultdict(int)
    first_two: dict[int, list[int]] = defaultdict(list)
    day_of = cache(date.fromisoformat)
    for (
        who,
        name,
        unit,
        is_adaptive,
        group,
        seconds,
        when,
        scheme,
        language,
        skill,
    ) in found.order_by("pk").values_list(
        "annotator_id",
        "annotator__pseudonym",
        "comparison_id",
        "comparison__full_overlap",
        "comparison__prompt__split_group",
        "seconds",
        Cast("created_at", TextField()),  # SQLite's dates are Python, a call for each row
        "scheme__version",
        "comparison__language",
        "comparison__skill",
    ):
        rows.pseudonyms[who] = name
        day = day_of(when[:10])  # in UTC, as all times are told
        mark = rows.marks.get(unit)
        if mark is None:
            mark = rows.marks[unit] = Marks(language, skill, day)
        mark.schemes.add(scheme)
        mark.day = max(mark.day, day)
        rows.groups[unit] = group
        if is_adaptive is not None and len(first_two[unit]) < FIRST:
            first_two[unit].append(who)
        if seconds is not None:
            number = numbers[who, day]
            rows.timed.append((unit, quality.TimedAnswer(who, day, number, seconds)))
            numbers[who, day] += 1
    for axis, outcome, unit, who, groups, order in rankings_of(
        Ranking.objects.filter(preference__in=found),
        "axis",
        "outcome",
        "preference__comparison_id",
        "preference__annotator_id",
    ):
        rows.given[who] += 1
        was_drawn = unit not in first_two or who in first_two[unit]
        of_axis = rows.axes.get(axis)
        if of_axis is None:
            of_axis = rows.axes[axis] = AxisRows()
        _add(of_axis, (unit, who, outcome, groups), stored[unit], was_drawn)
        if outcome == Outcome.RANKED and order:
            pair = strict_pair(unit=unit, who=who, groups=groups, order=order, lengths=lengths)
            rows.strict.append(pair)
    return rows


def rankings_of(rankings: QuerySet[Ranking], *columns: str) -> Iterator[tuple[Any, ...]]:
    """The columns of each, then its groups and the order that was shown, oldest first.

    Both lists come as text and are read all at once: thousands of starts of a parser are what such
    a page would wait for.
    """
    rows = list(
        rankings.order_by("preference_id", "pk")
        .annotate(
            said=Cast("groups", TextField()), shown=Cast("preference__presented_order", TextField())
        )
        .values_list("said", "shown", *columns)
    )
    groups = json.loads(f"[{','.join(row[0] for row in rows)}]")
    orders = json.loads(f"[{','.join(row[1] for row in rows)}]")
    for (_said, _shown, *values), said, shown in zip(rows, groups, orders, strict=True):
        yield *values, said, shown


def _completions(found: QuerySet[Preference]) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Comparison -> its completions in their stored places; completion -> characters."""
    stored: dict[int, list[int]] = defaultdict(list)
    lengths: dict[int, int] = {}
    entries = ComparisonCompletion.objects.filter(comparison__in=found.values("comparison"))
    for unit, completion, length in entries.order_by("comparison_id", "position").values_list(
        "comparison_id", "completion_id", Length("completion__text")
    ):
        stored[unit].append(completion)
        lengths[completion] = length
    return stored, lengths


def report(project: Project, kinds: Iterable[str] = PEOPLE) -> Report:
    """The figures of a project."""
    rows = read_rows(project, kinds)
    how = Resampling(groups=rows.groups, resamples=RESAMPLES)
    return Report(
        rows=rows,
        agreement={name: _agreement(axis, how) for name, axis in rows.axes.items()},
        longer_wins=quality.length_bias(rows.strict, how),
    )


def _add(axis: AxisRows, one: SaidOnAxis, stored: list[int], was_drawn: bool) -> None:
    """was_drawn: the answer was not asked for because of others, so it counts for agreement."""
    axis.said.append(one)
    if not was_drawn:
        return
    unit, who, outcome, groups = one
    top = groups[0] if outcome == Outcome.RANKED else []
    said: Hashable = top[0] if len(top) == 1 else "several" if top else outcome
    axis.firsts[unit][who] = said
    if len(stored) == 2:
        axis.pairs[unit][who] = stored.index(top[0]) if top else said
    elif groups:
        axis.lists[unit][who] = groups


def _agreement(axis: AxisRows, how: Resampling) -> list[Figure]:
    pairs = tabulate(axis.pairs, how)
    return [
        Figure("percent", agreement.percent_agreement(pairs, how)),
        Figure("cohen", agreement.cohen_kappa(pairs, how)),
        Figure("fleiss", agreement.fleiss_kappa(pairs, how)),
        Figure("alpha", agreement.krippendorff_alpha(pairs, how)),
        Figure("tau", agreement.kendall_tau(axis.lists, how)),
        Figure("concordance", agreement.concordance(axis.lists, how)),
    ]


def annotators_of(project: Project, kinds: Iterable[str] = PEOPLE) -> list[AnnotatorFigures]:
    """Everybody, those to look at first, then by how much they did."""
    rows, with_self = read_rows(project, kinds), agreement_with_self(project, kinds)
    firsts = {
        (unit, name): given
        for name, axis in rows.axes.items()
        for unit, given in axis.firsts.items()
    }
    strict = quality.one_of_each_vote(rows.strict)
    sides = quality.position_bias(strict)
    shares = quality.agreement_with_others(firsts)
    timed = _with_agreement(rows, shares)
    paces = quality.speed(timed, floor_seconds=FLOOR_SECONDS)
    tired, slowed = quality.fatigue(timed), quality.pace(timed)
    words = _words(rows)
    by_confusion = reliabilities(words, DAWID_SKENE)
    by_scores = reliabilities(words, BRADLEY_TERRY)
    reasons: dict[int, list[str]] = defaultdict(list)
    for suspect in quality.suspects(firsts, strict, timed, floor_seconds=FLOOR_SECONDS):
        reasons[suspect.annotator].append(str(suspect.reason))
    checks = standing.accuracies(rows.pseudonyms)
    own: dict[int, list[float]] = defaultdict(list)
    for (_unit, who), share in shares.items():
        own[who].append(share)
    found = [
        AnnotatorFigures(
            pseudonym=pseudonym,
            answers=rows.given.get(who, 0),
            median_seconds=paces[who].median_seconds if who in paces else None,
            too_fast=paces[who].too_fast if who in paces else None,
            first_share=sides[who].first_share if who in sides else None,
            with_self=with_self.get(who),
            gold=gold.accuracy(checks.get(who, [])),
            agreement=sum(own[who]) / len(own[who]) if own[who] else None,
            dawid_skene=by_confusion.get(who),
            bradley_terry=by_scores.get(who),
            tiring=tired.get(who),
            slowing=slowed.get(who),
            reasons=reasons[who],
        )
        for who, pseudonym in rows.pseudonyms.items()
    ]
    return sorted(found, key=lambda one: (not one.reasons, -one.answers, one.pseudonym))


def _of_100(slope: Statistic | None, digits: int) -> str:
    if slope is None or slope.value is None:
        return ""
    ends = [100 * end for end in (slope.low, slope.high) if end is not None]
    between = f" [{', '.join(f'{end:+.{digits}f}' for end in ends)}]" if ends else ""
    return f"{100 * slope.value:+.{digits}f}{between}"


def _with_agreement(rows: Rows, shares: dict[tuple[Any, Any], float]) -> list[quality.TimedAnswer]:
    """The timed answers, each with its mean agreement over the axes; shares: ((comparison, axis),
    annotator) -> share of the others who said the same."""
    axes = list(rows.axes)
    found = []
    for unit, one in rows.timed:
        who, said = one.annotator, [shares.get(((unit, axis), one.annotator)) for axis in axes]
        known = [share for share in said if share is not None]
        mean = sum(known) / len(known) if known else None
        found.append(quality.TimedAnswer(who, one.session, one.number, one.seconds, mean))
    return found


def _words(rows: Rows) -> Words:
    """Of all axes; what is ordered on one is another thing on the next."""
    return {
        (unit, (axis, a), (axis, b)): said
        for axis, of_axis in rows.axes.items()
        for (unit, a, b), said in words_of(of_axis.said).items()
    }
