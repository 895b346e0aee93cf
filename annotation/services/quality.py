"""What the ledger knows of how people answer, as rows for annotation/agreement.py and quality.py.

First independent answers alone: the first revision of each annotator, whatever they changed later,
for that one nobody had talked to them about.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from annotation import agreement, quality
from annotation.intervals import Resampling, Statistic
from annotation.models import AnnotatorKind, Completion, Outcome, Preference, Project, Ranking

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
    agreement: float | None
    """Mean share of the others who gave the same answer; None where nobody else was asked."""
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
    """The newest first answers of annotators of some kinds."""
    found = (
        Preference.objects.filter(
            project=project, revision=1, voided_at=None, annotator__kind__in=list(kinds)
        )
        .select_related("annotator", "comparison__prompt")
        .prefetch_related("rankings", "comparison__entries")
        .order_by("-pk")
    )
    preferences = list(found[: MOST_ANSWERS + 1])
    kept = (
        preferences[MOST_ANSWERS - 1 :: -1]
        if len(preferences) > MOST_ANSWERS
        else preferences[::-1]
    )
    lengths = _lengths(kept)
    rows = Rows({}, [], {}, {}, len(kept), len(preferences) > MOST_ANSWERS)
    numbers: dict[tuple[int, object], int] = defaultdict(int)
    for preference in kept:
        who = preference.annotator_id
        rows.pseudonyms[who] = preference.annotator.pseudonym
        rows.groups[preference.comparison_id] = preference.comparison.prompt.split_group
        for ranking in preference.rankings.all():
            axis = rows.axes.setdefault(ranking.axis, AxisRows())
            _add(axis, preference, ranking, lengths)
        if preference.seconds is not None:
            session = preference.created_at.date()
            rows.timed.append(
                quality.TimedAnswer(
                    annotator=who,
                    session=session,
                    number=numbers[who, session],
                    seconds=preference.seconds,
                )
            )
            numbers[who, session] += 1
    return rows


def report(project: Project, kinds: Iterable[str] = PEOPLE) -> Report:
    """The figures of a project."""
    rows = read_rows(project, kinds)
    how = Resampling(groups=rows.groups, resamples=RESAMPLES)
    strict = [pair for axis in rows.axes.values() for pair in axis.strict]
    return Report(
        rows=rows,
        agreement={name: _agreement(axis, how) for name, axis in rows.axes.items()},
        annotators=_annotators(rows),
        longer_wins=quality.length_bias(strict, how),
    )


def _lengths(preferences: Iterable[Preference]) -> dict[int, int]:
    ids = {entry.completion_id for one in preferences for entry in one.comparison.entries.all()}
    found = Completion.objects.in_bulk(ids, field_name="pk")
    return {pk: len(completion.text) for pk, completion in found.items()}


def _add(axis: AxisRows, preference: Preference, ranking: Ranking, lengths: dict[int, int]) -> None:
    unit, who = preference.comparison_id, preference.annotator_id
    stored = [entry.completion_id for entry in preference.comparison.entries.all()]
    is_ranked = ranking.outcome == Outcome.RANKED
    top = ranking.groups[0] if is_ranked else []
    said: Hashable = top[0] if len(top) == 1 else "several" if top else str(ranking.outcome)
    axis.firsts[unit][who] = said
    if len(stored) == 2:
        axis.pairs[unit][who] = stored.index(top[0]) if top else said
    elif ranking.groups:
        axis.lists[unit][who] = ranking.groups
    order = preference.presented_order
    if is_ranked and order:
        winner, loser = ranking.groups[0][0], ranking.groups[-1][0]
        axis.strict.append(
            quality.StrictPair(
                unit=unit,
                annotator=who,
                first_won=order.index(winner) < order.index(loser),
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


def _annotators(rows: Rows) -> list[AnnotatorFigures]:
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
    counts: dict[int, int] = defaultdict(int)
    for given in firsts.values():
        for who in given:
            counts[who] += 1
    found = [
        AnnotatorFigures(
            pseudonym=pseudonym,
            answers=counts[who],
            median_seconds=paces[who].median_seconds if who in paces else None,
            too_fast=paces[who].too_fast if who in paces else None,
            first_share=sides[who].first_share if who in sides else None,
            agreement=sum(shares[who]) / len(shares[who]) if shares[who] else None,
            reasons=reasons[who],
        )
        for who, pseudonym in rows.pseudonyms.items()
    ]
    return sorted(found, key=lambda one: (not one.reasons, -one.answers, one.pseudonym))
