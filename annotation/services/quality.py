"""What the ledger knows of how people answer, as rows for annotation/agreement.py and quality.py.

First independent answers alone: the first revision of each annotator, whatever they changed later,
for that one nobody had talked to them about.

Of comparisons with adaptive overlap the first two answers alone count for agreement. The third was
asked for because these two differed, so with it every such comparison would look more disputed than
people are; the first two are whoever came first, whatever they said. Comparisons that always get
all answers count with all of them: that they do is drawn by hash (annotation/overlap.py).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from django.db.models import QuerySet
from django.db.models.functions import Length

from annotation import agreement, gold, quality
from annotation.funnel import NEVER_USED
from annotation.intervals import Resampling, Statistic
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

MOST_ANSWERS = 10_000
"""The newest; more would keep a page waiting."""
RESAMPLES = 200
FLOOR_SECONDS = 2.0
"""Nobody reads two answers faster."""

PEOPLE = (AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)


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
    strict: list[quality.StrictPair] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read."""

    axes: dict[str, AxisRows]
    timed: list[quality.TimedAnswer]
    groups: dict[Hashable, Hashable]
    """Comparison -> split group."""
    pseudonyms: dict[int, str]
    given: dict[int, int]
    """Annotator -> answers on an axis."""
    answers: int
    there_are_more: bool


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
    reasons: list[str]
    """Why to look at this one: quality.Reason."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of the page."""

    rows: Rows
    agreement: dict[str, list[Figure]]
    """By axis."""
    annotators: list[AnnotatorFigures]
    longer_wins: Statistic


def read_rows(project: Project, kinds: Iterable[str] = PEOPLE) -> Rows:
    """The newest first answers of annotators of some kinds; columns, no rows of the ORM: a page
    waits for this."""
    found = Preference.objects.filter(
        project=project, revision=1, voided_at=None, annotator__kind__in=list(kinds)
    ).exclude(comparison__purpose__in=NEVER_USED)  # gold is chosen for being clear
    newest = list(found.order_by("-pk").values_list("pk", flat=True)[: MOST_ANSWERS + 1])
    kept = newest[:MOST_ANSWERS]
    rows = Rows({}, [], {}, {}, defaultdict(int), len(kept), len(newest) > len(kept))
    if not kept:
        return rows
    found = found.filter(pk__gte=kept[-1])
    stored, lengths = _completions(found)
    numbers: dict[tuple[int, object], int] = defaultdict(int)
    first_two: dict[int, list[int]] = defaultdict(list)
    for who, name, unit, is_adaptive, group, seconds, day in found.order_by("pk").values_list(
        "annotator_id",
        "annotator__pseudonym",
        "comparison_id",
        "comparison__full_overlap",
        "comparison__prompt__split_group",
        "seconds",
        "created_at__date",
    ):
        rows.pseudonyms[who] = name
        rows.groups[unit] = group
        if is_adaptive is not None and len(first_two[unit]) < FIRST:
            first_two[unit].append(who)
        if seconds is not None:
            number = numbers[who, day]
            rows.timed.append(
                quality.TimedAnswer(annotator=who, session=day, number=number, seconds=seconds)
            )
            numbers[who, day] += 1
    said = Ranking.objects.filter(preference__in=found).order_by("preference_id", "pk")
    for axis, outcome, groups, unit, who, order in said.values_list(
        "axis",
        "outcome",
        "groups",
        "preference__comparison_id",
        "preference__annotator_id",
        "preference__presented_order",
    ):
        one = _Said(unit, who, outcome, groups, order)
        rows.given[who] += 1
        was_drawn = unit not in first_two or who in first_two[unit]
        _add(rows.axes.setdefault(axis, AxisRows()), one, stored[unit], lengths, was_drawn)
    return rows


@dataclass(frozen=True, slots=True)
class _Said:
    """One axis of one answer."""

    unit: int
    who: int
    outcome: str
    groups: list[list[int]]
    order: list[int]
    """As it was shown; empty for an answer that was given elsewhere."""


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
    strict = [pair for axis in rows.axes.values() for pair in axis.strict]
    return Report(
        rows=rows,
        agreement={name: _agreement(axis, how) for name, axis in rows.axes.items()},
        annotators=_annotators(rows, agreement_with_self(project, kinds)),
        longer_wins=quality.length_bias(strict, how),
    )


def _add(
    axis: AxisRows, one: _Said, stored: list[int], lengths: dict[int, int], was_drawn: bool
) -> None:
    """was_drawn: the answer was not asked for because of others, so it counts for agreement."""
    is_ranked = one.outcome == Outcome.RANKED
    top = one.groups[0] if is_ranked else []
    said: Hashable = top[0] if len(top) == 1 else "several" if top else one.outcome
    if was_drawn:
        axis.firsts[one.unit][one.who] = said
    if was_drawn and len(stored) == 2:
        axis.pairs[one.unit][one.who] = stored.index(top[0]) if top else said
    elif was_drawn and one.groups:
        axis.lists[one.unit][one.who] = one.groups
    if is_ranked and one.order:
        winner, loser = one.groups[0][0], one.groups[-1][0]
        axis.strict.append(
            quality.StrictPair(
                unit=one.unit,
                annotator=one.who,
                first_won=one.order.index(winner) < one.order.index(loser),
                winner_length=lengths[winner],
                loser_length=lengths[loser],
            )
        )


def _agreement(axis: AxisRows, how: Resampling) -> list[Figure]:
    return [
        Figure("percent", agreement.percent_agreement(axis.pairs, how)),
        Figure("cohen", agreement.cohen_kappa(axis.pairs, how)),
        Figure("fleiss", agreement.fleiss_kappa(axis.pairs, how)),
        Figure("alpha", agreement.krippendorff_alpha(axis.pairs, how)),
        Figure("tau", agreement.kendall_tau(axis.lists, how)),
        Figure("concordance", agreement.concordance(axis.lists, how)),
    ]


def _annotators(rows: Rows, with_self: dict[int, Statistic]) -> list[AnnotatorFigures]:
    """Everybody, those to look at first, then by how much they did."""
    firsts = {
        (unit, name): given
        for name, axis in rows.axes.items()
        for unit, given in axis.firsts.items()
    }
    strict = [pair for axis in rows.axes.values() for pair in axis.strict]
    sides = quality.position_bias(strict)
    paces = quality.speed(rows.timed, floor_seconds=FLOOR_SECONDS)
    reasons: dict[int, list[str]] = defaultdict(list)
    for suspect in quality.suspects(firsts, strict, rows.timed, floor_seconds=FLOOR_SECONDS):
        reasons[suspect.annotator].append(str(suspect.reason))
    shares: dict[int, list[float]] = defaultdict(list)
    for (_unit, who), share in quality.agreement_with_others(firsts).items():
        shares[who].append(share)
    checks = standing.accuracies(rows.pseudonyms)
    found = [
        AnnotatorFigures(
            pseudonym=pseudonym,
            answers=rows.given.get(who, 0),
            median_seconds=paces[who].median_seconds if who in paces else None,
            too_fast=paces[who].too_fast if who in paces else None,
            first_share=sides[who].first_share if who in sides else None,
            with_self=with_self.get(who),
            agreement=sum(shares[who]) / len(shares[who]) if shares[who] else None,
            gold=gold.accuracy(checks.get(who, [])),
            reasons=reasons[who],
        )
        for who, pseudonym in rows.pseudonyms.items()
    ]
    return sorted(found, key=lambda one: (not one.reasons, -one.answers, one.pseudonym))
