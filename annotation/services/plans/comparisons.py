"""What a snapshot of comparisons holds: votes, and the funnel they went through."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, QuerySet

from annotation.funnel import (
    IN_THE_FILE,
    WITHOUT_PAIRS,
    Bucket,
    VoteFacts,
    VoteQuery,
    answered,
    bucket_of,
)
from annotation.models import Comparison, Generation, Preference, Project
from annotation.services.audit import name_of
from annotation.services.plans.rows import Row, comparison_row
from annotation.services.positions import (
    Position,
    ledger_parts,
    pages,
    position_at,
    voids_at,
    votes_at,
)

RANKING = (*IN_THE_FILE, Bucket.NO_STRICT_PAIR)
"""A comparison with one of these has a row."""
SHOWN = (*IN_THE_FILE, *WITHOUT_PAIRS)
"""Votes that stand in their comparison's row."""


class ComparisonsPlan:
    """Votes as rows of ARCHITECTURE.md section 6, and the funnel they went through."""

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.votes = VoteQuery.of(options)
        self.query = self.votes.as_json()
        self.counts: Counter[str] = Counter(dict.fromkeys(Bucket, 0))
        self.num_voids = 0

    def position(self, up_to: Any) -> Position:
        return position_at(up_to, ledger_parts(self.project))

    def rows(self, position: Position) -> Iterator[Row]:
        """One row per comparison with a vote that ranks something; counts on the way."""
        self.num_voids = voids_at(self.project, position).count()
        for comparison, buckets in buckets_at(self.project, self.votes, position):
            self.counts.update(buckets.values())
            if any(bucket in RANKING for bucket in buckets.values()):
                votes = comparison.preferences.all()
                yield comparison_row(comparison, [v for v in votes if buckets[v.pk] in SHOWN])

    def is_complete(self, position: Position) -> bool:
        """Whether the buckets sum to the votes up to the position, and no void came late."""
        votes, voids = votes_at(self.project, position), voids_at(self.project, position)
        return sum(self.counts.values()) == votes.count() and self.num_voids == voids.count()


def buckets_at(
    project: Project, query: VoteQuery, position: Position
) -> Iterator[tuple[Comparison, dict[int, Bucket]]]:
    """Every comparison voted on by then, its votes prefetched, and the bucket of each by its id."""
    voided = set(voids_at(project, position).values_list("target", flat=True))
    for comparison in pages(comparisons_at(project, position)):
        facts = facts_at(comparison, voided)
        yield comparison, {vote.pk: bucket_of(fact, query) for vote, fact in facts}


def comparisons_at(project: Project, position: Position) -> QuerySet[Comparison]:
    """Comparisons that had a vote by then, with all that a row needs, in a few reads a page."""
    votes = votes_at(project, position)
    written = Generation.objects.filter(pk__lte=position["generation"]).order_by("pk")
    return (
        Comparison.objects.filter(Exists(votes.filter(comparison=OuterRef("pk"))), project=project)
        .select_related("prompt")
        .prefetch_related(
            "entries__completion",
            Prefetch("entries__completion__generations", written.select_related("model_version")),
            Prefetch("preferences", votes.select_related("annotator").order_by("pk")),
            "preferences__rankings",
            "preferences__judgments",
        )
    )


def facts_at(comparison: Comparison, voided: set[str]) -> Iterator[tuple[Preference, VoteFacts]]:
    """Each vote of a comparison, as prefetched up to a position, with what decides its bucket.

    voided: audit names of the votes that were void by then.
    """
    votes = list(comparison.preferences.all())
    newest: dict[int, int] = {}
    for vote in votes:
        newest[vote.annotator_id] = max(newest.get(vote.annotator_id, 0), vote.revision)
    for vote in votes:
        yield (
            vote,
            VoteFacts(
                superseded=vote.revision < newest[vote.annotator_id],
                voided=name_of(vote) in voided,
                purpose=comparison.purpose,
                split=comparison.prompt.split,
                kind=vote.annotator.kind,
                language=comparison.prompt.language,
                text_alone=comparison.prompt.text_alone,
                answered=answered(vote.rankings.all()),
            ),
        )
