"""What a query may ask of a vote beyond its own row, as of a position: tags of its comparison, how
its annotator did on hidden checks, how far the comparison's votes agree.

Tags are told by the audit log up to the position. Accuracy is told by the answers up to it and by
the gold as it stands; gold that changed since could not tell the same again, so that is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from annotation.accord import Said, accord
from annotation.errors import BadInput
from annotation.funnel import VoteQuery
from annotation.gold import verdict_of
from annotation.models import (
    AuditEntry,
    CheckVerdict,
    DatasetSnapshot,
    GoldCheck,
    GoldUse,
    Preference,
    Project,
)
from annotation.services.gold import constraints_of, said_by
from annotation.services.plans.licensed import licence_parts, licences_at
from annotation.services.positions import Position, forgotten_at, newest, voids_at, votes_at

TAGS = ("comparison.tag", "comparison.untag")
DECIMALS = 4


def parts_of(project: Project, query: VoteQuery) -> dict[str, Any]:
    """The parts of a position that this query's filters depend on; none where it has none."""
    log = AuditEntry.objects.filter(project=project)
    parts: dict[str, Any] = {}
    if query.tags:
        parts["tag"] = lambda: newest(log.filter(action__in=TAGS))
    if query.accuracy:
        parts["gold"] = lambda: newest(log.filter(action__startswith="gold."))
    return parts | (licence_parts(project) if query.licences else {})


@dataclass(frozen=True, slots=True)
class Beyond:
    """Of all votes that a query may ask about."""

    tags: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Comparison -> those of its tags that are asked for."""
    accurate: frozenset[int] = frozenset()
    """Annotators who did well enough on checks enough."""
    forgotten: frozenset[int] = frozenset()
    """Annotators whose data was deleted."""
    licences: Mapping[int, str] = field(default_factory=dict)
    """Source -> its licence, where licences are asked for."""

    @classmethod
    def at(cls, project: Project, query: VoteQuery, position: Position) -> "Beyond":
        """Raises BadInput where the gold changed after the position, or a licence by hand."""
        return cls(
            tags=_tags_at(project, query.tags, position) if query.tags else {},
            accurate=_accurate_at(project, query, position) if query.accuracy else frozenset(),
            forgotten=forgotten_at(project, position),
            licences=licences_at(project, position) if query.licences else {},
        )

    @classmethod
    def of(cls, snapshot: DatasetSnapshot, query: VoteQuery) -> "Beyond":
        """As it was when the snapshot was frozen."""
        tags = query.tags
        return cls(
            tags=_tags_at(snapshot.project, tags, snapshot.ledger_position) if tags else {},
            accurate=frozenset(snapshot.notes.get("accuracy", {}).get("annotators", ())),
            forgotten=forgotten_at(snapshot.project_id, snapshot.ledger_position),
            licences=licences_at(
                snapshot.project_id, snapshot.ledger_position, changed_is_refused=False
            )
            if query.licences
            else {},
        )


def _tags_at(
    project: Project, names: Iterable[str], position: Position
) -> dict[int, frozenset[str]]:
    found: dict[int, set[str]] = defaultdict(set)
    entries = AuditEntry.objects.filter(
        project=project, action__in=TAGS, pk__lte=position["tag"], data__name__in=list(names)
    )
    for action, data in entries.order_by("pk").values_list("action", "data").iterator():
        for comparison in data["comparisons"]:
            if action == "comparison.tag":
                found[comparison].add(data["name"])
            else:
                found[comparison].discard(data["name"])
    return {comparison: frozenset(tags) for comparison, tags in found.items() if tags}


def _accurate_at(project: Project, query: VoteQuery, position: Position) -> frozenset[int]:
    if parts_of(project, query)["gold"]() != position["gold"]:
        raise BadInput(
            "The gold has changed since that position: who did well enough by then can't be told "
            "again. Freeze at the position of now."
        )
    right: Counter[int] = Counter()
    scored: Counter[int] = Counter()
    for annotator, verdict in verdicts_at(project, position):
        scored[annotator] += 1
        right[annotator] += verdict == CheckVerdict.HELD
    return frozenset(
        annotator
        for annotator, number in scored.items()
        if number >= query.checks and right[annotator] / number >= query.accuracy
    )


def verdicts_at(project: Project, position: Position) -> list[tuple[int, str]]:
    """(annotator, verdict) of every hidden check that counted by then."""
    scored = set(
        GoldCheck.objects.filter(
            item__project=project, item__use=GoldUse.HIDDEN, attempt=0
        ).values_list("item__comparison", "annotator")
    )
    wrong = set(
        AuditEntry.objects.filter(
            project=project, action="gold.retire", data__is_wrong=True, pk__lte=position["gold"]
        ).values_list("target", flat=True)
    )
    voided = set(voids_at(project, position).values_list("target", flat=True))
    votes = votes_at(project, position).filter(comparison__gold__use=GoldUse.HIDDEN)
    standing: dict[tuple[int, int], Preference] = {}
    for vote in (
        votes.select_related("comparison__gold").prefetch_related("rankings").order_by("revision")
    ):
        standing[vote.comparison_id, vote.annotator_id] = vote
    found = []
    for who, vote in standing.items():
        item = vote.comparison.gold
        counts = who in scored and item.constraints and f"golditem:{item.pk}" not in wrong
        if counts and f"preference:{vote.pk}" not in voided:
            verdict = verdict_of(constraints_of(item), said_by(vote.rankings.all()))
            found.append((vote.annotator_id, str(verdict)))
    return found


def agreement_of(rankings: Iterable[Iterable[Any]], axes: tuple[str, ...]) -> float | None:
    """How near votes on one comparison lie to each other: on the axis where they differ most, of
    those that are asked for. None where no two of them can be held together.

    rankings: of each vote, one per axis, as models.Ranking has them.
    """
    said: dict[str, list[Said]] = defaultdict(list)
    for of_vote in rankings:
        for one in of_vote:
            if not axes or one.axis in axes:
                said[one.axis].append(Said(one.outcome, one.groups))
    found = [value for votes in said.values() if (value := accord(votes)) is not None]
    return round(min(found), DECIMALS) if found else None
