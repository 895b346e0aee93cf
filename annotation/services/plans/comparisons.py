"""What a snapshot of comparisons holds: votes, and the funnel they went through."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from django.db.models import QuerySet

from annotation.funnel import (
    IN_THE_FILE,
    NARROWING,
    OFF,
    WITHOUT_PAIRS,
    Bucket,
    VoteFacts,
    VoteQuery,
    answered,
    bucket_of,
)
from annotation.models import Comparison, Decision, Preference, Project
from annotation.services.plans.licensed import stated
from annotation.services.plans.narrowing import Beyond, agreement_of, parts_of
from annotation.services.plans.rows import Row, comparison_row
from annotation.services.plans.voted import Vote, Voted, Written, voted_at
from annotation.services.positions import (
    Position,
    in_force,
    ledger_parts,
    newest,
    position_at,
    voids_at,
    votes_at,
    with_forgotten,
)
from annotation.services.weights import Weights, weights_at

RANKING = (*IN_THE_FILE, Bucket.NO_STRICT_PAIR)
"""A comparison with one of these has a row."""
SHOWN = (*IN_THE_FILE, *WITHOUT_PAIRS)
"""Votes that stand in their comparison's row."""


class ComparisonsPlan:
    """Votes as rows of README's comparisons files, and the funnel they went through."""

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.votes = VoteQuery.of(options)
        self.query = self.votes.as_json()
        seldom = {*NARROWING.values(), Bucket.FORGOTTEN} - set(self.votes.narrowing)
        self.counts: Counter[str] = Counter(dict.fromkeys(set(Bucket) - seldom, 0))
        self.notes: dict[str, Any] = {}
        self.sources: Counter[int] = Counter()
        self.num_voids = 0

    def position(self, up_to: Any) -> Position:
        decided = {"decision": lambda: newest(Decision.objects.filter(project=self.project))}
        asked = parts_of(self.project, self.votes)
        parts = ledger_parts(self.project) | decided | asked
        return with_forgotten(self.project, position_at(up_to, parts))

    def rows(
        self, position: Position, on_row: Callable[[], object] = lambda: None
    ) -> Iterator[Row]:
        """One row per comparison with a vote that ranks something; counts on the way.

        on_row: called for each comparison that is looked at.
        """
        self.num_voids = voids_at(self.project, position).count()
        weights = weights_at(self.project, self.votes.weights, self.votes.annotators, position)
        decided: Counter[str] = Counter()
        beyond = Beyond.at(self.project, self.votes, position)
        found = buckets_at(self.project, self.votes, position, beyond)
        for comparison, buckets, decision in found:
            on_row()
            self.counts.update(buckets.values())
            instead = decision is not None and Bucket.DECIDED in buckets.values()
            shown = [vote for vote in comparison.votes if buckets[vote.pk] in SHOWN]
            row = comparison_row(
                comparison,
                shown,
                decision=decision,
                instead=instead,
                weights=weights,
            )
            if axes := self.votes.axes:
                row["votes"] = [vote for vote in row["votes"] if vote["axis"] in axes]
            ranks = any(bucket in RANKING for bucket in buckets.values())
            if instead:
                ranks = any(vote["ranking"] for vote in row["votes"])
                decided["used" if ranks else "unused"] += 1
            if ranks:
                written = {one.source_id for one in comparison.completions}
                voted = {vote.source_id for vote in shown if vote.source_id is not None}
                self.sources.update({comparison.prompt.source_id} | written | voted)
                yield row
        self.notes = self._notes(decided, weights, beyond)

    def _notes(self, decided: Counter[str], weights: Weights, beyond: Beyond) -> dict[str, Any]:
        """What a manifest says of decisions, weights and who did well enough on checks; nothing
        where the query asks for none."""
        notes: dict[str, Any] = {}
        if self.votes.decisions != OFF:
            # unused: cannot be decided, or all completions are bad
            notes["decisions"] = {"used": decided["used"], "unused": decided["unused"]}
        if weights.how:
            notes["weights"] = dict(weights.how)
        if self.votes.accuracy:
            notes["accuracy"] = {"annotators": sorted(beyond.accurate)}
        return notes

    def is_complete(self, position: Position) -> bool:
        """Whether the buckets sum to the votes up to the position, and no void came late."""
        votes, voids = votes_at(self.project, position), voids_at(self.project, position)
        return sum(self.counts.values()) == votes.count() and self.num_voids == voids.count()


def buckets_at(
    project: Project, query: VoteQuery, position: Position, beyond: Beyond
) -> Iterator[tuple[Voted, dict[int, Bucket], Decision | None]]:
    """Every comparison voted on by then, the bucket of each of its votes by its id, and the
    decision in force."""
    voided = set(voids_at(project, position).values_list("target", flat=True))
    for comparison in voted_at(project, position):
        decision = in_force(comparison.decisions, voided, beyond.forgotten)
        comparison.decisions = [
            one for one in comparison.decisions if one.by_id not in beyond.forgotten
        ]
        facts = facts_at(comparison, voided, query, beyond, decided=decision is not None)
        yield comparison, {vote.pk: bucket_of(fact, query) for vote, fact in facts}, decision


def facts_at(
    comparison: Voted,
    voided: set[str],
    query: VoteQuery,
    beyond: Beyond,
    *,
    decided: bool = False,
) -> Iterator[tuple[Vote, VoteFacts]]:
    """Each vote of a comparison with what decides its bucket.

    voided: audit names of the votes that were void by then.
    """
    newest: dict[int, int] = {}
    for vote in comparison.votes:
        newest[vote.annotator_id] = max(newest.get(vote.annotator_id, 0), vote.revision)
    prompt = comparison.prompt
    holds_forgotten = bool(beyond.forgotten) and any(
        is_of_forgotten(one, beyond.forgotten) for one in comparison.completions
    )
    written = {one.source_id for one in comparison.completions} if query.licences else set()
    agreement = None
    if query.agreement:
        standing = (
            vote.rankings
            for vote in comparison.votes
            if vote.revision == newest[vote.annotator_id]
            and f"preference:{vote.pk}" not in voided
            and vote.annotator.kind in query.annotators
            and vote.annotator_id not in beyond.forgotten
        )
        agreement = agreement_of(standing, query.axes)
    for vote in comparison.votes:
        yield (
            vote,
            VoteFacts(
                superseded=vote.revision < newest[vote.annotator_id],
                voided=f"preference:{vote.pk}" in voided,
                purpose=comparison.purpose,
                split=prompt.split,
                kind=vote.annotator.kind,
                language=prompt.language,
                text_alone=prompt.text_alone,
                group=prompt.split_group,
                decided=decided,
                agreement=agreement,
                **narrow_facts(vote, comparison),
                **asked_facts(vote, comparison, vote.rankings, query, beyond, written)
                | ({"forgotten": True} if holds_forgotten else {}),
            ),
        )


def is_of_forgotten(text: Written, forgotten: Collection[int]) -> bool:
    """Nobody but people whose data is deleted wrote it: no row may hold it."""
    return bool(text.generations) and all(
        one.annotator is not None and one.annotator.pk in forgotten for one in text.generations
    )


def asked_facts(
    vote: Preference | Vote,
    comparison: Comparison | Voted,
    rankings: Iterable[Any],
    query: VoteQuery,
    beyond: Beyond,
    written: Collection[int],
) -> dict[str, Any]:
    """What a vote says on the axes that are asked for, and what is known of it beyond its row.

    written: sources of its completions; looked at where licences are asked for.
    """
    said = [one for one in rankings if not query.axes or one.axis in query.axes]
    return {
        "answered": answered(said),
        "says_axis": bool(said) or not query.axes,
        "licences": stated(comparison.prompt.source_id, [*written, vote.source_id], beyond.licences)
        if query.licences
        else frozenset(),
        "tags": beyond.tags.get(comparison.pk, frozenset()),
        "forgotten": vote.annotator_id in beyond.forgotten,
        "accurate": vote.annotator_id in beyond.accurate,
    }


def with_versions(votes: QuerySet[Preference]) -> QuerySet[Preference]:
    """Votes with who gave them and the versions they followed, without a guideline's words."""
    related = votes.select_related("annotator", "scheme", "guideline")
    return related.defer("guideline__texts", "guideline__faq")


def narrow_facts(vote: Preference | Vote, comparison: Comparison | Voted) -> dict[str, Any]:
    """What a query may narrow by, of a vote whose scheme, guideline and source are at hand."""
    source = comparison.prompt.source
    return {
        "given_at": vote.created_at,
        "scheme": str(vote.scheme.version),
        "guideline": str(vote.guideline.version) if vote.guideline else "",
        "source": source.name,
    }
