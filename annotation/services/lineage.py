"""Where something came from and what came of it; reads alone, in a bounded number of queries.

Which snapshots hold a vote isn't stored per vote: it follows from the snapshot's query and position
by the same function that froze it (annotation/funnel.py), so it is asked of that function again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from annotation.funnel import IN_THE_FILE, Bucket, VoteFacts, VoteQuery, bucket_of
from annotation.models import (
    AuditEntry,
    Comparison,
    ComparisonCompletion,
    Completion,
    DatasetSnapshot,
    Decision,
    Generation,
    ModelVersion,
    Preference,
    Project,
    Promotion,
    TrainingJob,
)
from annotation.services.audit import name_of
from annotation.services.plans.comparisons import asked_facts, narrow_facts, with_versions
from annotation.services.plans.narrowing import Beyond, agreement_of
from annotation.services.positions import VOIDS, in_force

EDGES = ("init", "reference", "reward", "value_init")
SHOWN = 50
"""Rows of a list that is shown; the counts beside them are of all."""
VOTES_ASKED = 500
"""Oldest votes on a version's completions that are asked which snapshots hold them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionLineage:
    """A version, what it was made from, and what was made from it, within one project."""

    version: ModelVersion
    parents: dict[str, ModelVersion]
    """By edge: init, reference, reward, value_init."""
    children: dict[str, list[ModelVersion]]
    """Versions that name this one, by the edge they name it in."""
    snapshot: DatasetSnapshot | None
    job: TrainingJob | None
    jobs: list[TrainingJob]
    """Jobs that used it, newest first."""
    promotions: list[Promotion]
    num_completions: int
    num_comparisons: int
    num_votes: int
    comparisons: list[Comparison]
    """Those that its completions stand in, newest first, SHOWN at most."""
    snapshots: list[DatasetSnapshot]
    """Those that hold a vote on its completions."""
    trained: list[ModelVersion]
    """Versions trained on these snapshots."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceLineage:
    """A vote, what it was about, and what learned from it."""

    preference: Preference
    comparison: Comparison
    completions: list[Completion]
    """In their stored order, generations with versions and jobs prefetched."""
    revisions: list[Preference]
    """All answers of the annotator to this comparison, the first first."""
    snapshots: list[tuple[DatasetSnapshot, Bucket]]
    """Those that hold it, oldest first, and the bucket that it fell in."""
    trained: list[ModelVersion]
    """Versions trained on these."""


def votes_on(version: ModelVersion, project: Project) -> QuerySet[Preference]:
    """All votes of the project on comparisons with a completion that the version wrote."""
    entries = _entries(version, project)
    return Preference.objects.filter(comparison__in=entries.values("comparison"))


def _texts(version: ModelVersion) -> QuerySet[Generation, Any]:
    return Generation.objects.filter(model_version=version).values("completion")


def _entries(version: ModelVersion, project: Project) -> QuerySet[ComparisonCompletion]:
    """Where its texts are compared; from the texts on, for asked of every comparison it would be
    the whole ledger that is read."""
    return ComparisonCompletion.objects.filter(
        completion__in=_texts(version), comparison__project=project
    ).order_by()


def lineage_of_version(version: ModelVersion, project: Project) -> VersionLineage:
    """Both ways; other projects' rows are left out."""
    version = ModelVersion.objects.select_related("job", "snapshot", *EDGES).get(pk=version.pk)
    mine = Q(job__project=project) | Q(promotions__project=project)
    named = (
        ModelVersion.objects.filter(mine, _names(version)).distinct().order_by("-pk")[: SHOWN * 4]
    )
    children: dict[str, list[ModelVersion]] = {}
    for child in named:
        for edge in EDGES:
            if getattr(child, f"{edge}_id") == version.pk:
                children.setdefault(edge, []).append(child)
    entries = _entries(version, project)
    shown = entries.order_by("-comparison").values_list("comparison", flat=True).distinct()[:SHOWN]
    comparisons = Comparison.objects.filter(pk__in=list(shown))
    # as in trained_on, ids first
    votes = sorted(votes_on(version, project).order_by().values_list("pk", flat=True))
    asked = _asked(Preference.objects.filter(pk__in=votes[:VOTES_ASKED]))
    snapshots = [snapshot for snapshot, _ in _holding(project, asked)]
    jobs = TrainingJob.objects.filter(
        Q(init=version) | Q(reference=version) | Q(reward=version), project=project
    )
    return VersionLineage(
        version=version,
        parents={edge: parent for edge in EDGES if (parent := getattr(version, edge))},
        children=children,
        snapshot=version.snapshot,
        job=version.job,
        jobs=list(jobs.order_by("-pk")[:SHOWN]),
        promotions=list(
            Promotion.objects.filter(project=project, version=version)
            .select_related("by")
            .order_by("-pk")[:SHOWN]
        ),
        num_completions=Completion.objects.filter(
            pk__in=_texts(version), prompt__project=project
        ).count(),
        num_comparisons=entries.values("comparison").distinct().count(),
        num_votes=len(votes),
        comparisons=list(comparisons.select_related("prompt", "batch").order_by("-pk")),
        snapshots=snapshots,
        trained=_trained_on(snapshots),
    )


def lineage_of_preference(preference: Preference) -> PreferenceLineage:
    """Both ways: the completions and who wrote them; snapshots and versions that hold it."""
    comparison = Comparison.objects.select_related("prompt__source", "batch").get(
        pk=preference.comparison_id
    )
    completions = Completion.objects.filter(entries__comparison=comparison)
    revisions = Preference.objects.filter(
        comparison=comparison, annotator=preference.annotator_id
    ).select_related("annotator", "scheme", "guideline")
    votes = _asked(Preference.objects.filter(pk=preference.pk))
    snapshots = _holding(comparison.project_id, votes)
    return PreferenceLineage(
        preference=preference,
        comparison=comparison,
        completions=list(
            completions.order_by("entries__position").prefetch_related(
                "generations__model_version", "generations__job"
            )
        ),
        revisions=list(revisions.order_by("revision")),
        snapshots=snapshots,
        trained=_trained_on([snapshot for snapshot, _ in snapshots]),
    )


def trained_on(votes: QuerySet[Preference]) -> tuple[list[DatasetSnapshot], list[ModelVersion]]:
    """Snapshots that hold one of a project's votes, and the versions trained on these; of any
    number of votes, a few at a time, until every snapshot is known to hold one."""
    # ids first, in no order: with an order and a limit a database would rather read the whole
    # ledger along its ids than an annotator's answers
    ids = sorted(votes.order_by().values_list("pk", flat=True))
    found: dict[int, DatasetSnapshot] = {}
    for start in range(0, len(ids), VOTES_ASKED):
        some = Preference.objects.filter(pk__in=ids[start : start + VOTES_ASKED])
        project = some[0].project_id
        if not _candidates(project, ids[start]).exclude(pk__in=found).exists():
            break
        held = _holding(project, _asked(some), known=found)
        found |= {snapshot.pk: snapshot for snapshot, _ in held}
    snapshots = [found[pk] for pk in sorted(found)]
    return snapshots, _trained_on(snapshots)


def _names(version: ModelVersion) -> Q:
    """Versions that have this one in any edge."""
    named = Q()
    for edge in EDGES:
        named |= Q(**{edge: version})
    return named


def _asked(votes: QuerySet[Preference]) -> list[Preference]:
    return list(
        with_versions(votes)
        .select_related("annotator", "scheme", "guideline", "comparison__prompt__source")
        .prefetch_related("rankings")
        .order_by("pk")[:VOTES_ASKED]
    )


def _trained_on(snapshots: Sequence[DatasetSnapshot]) -> list[ModelVersion]:
    return list(ModelVersion.objects.filter(snapshot__in=snapshots).order_by("pk"))


def _candidates(project: Project | int, first: int) -> QuerySet[DatasetSnapshot]:
    """Comparisons snapshots that reach as far as a vote's id."""
    return DatasetSnapshot.objects.filter(
        project=project, kind="comparisons", ledger_position__preference__gte=first
    )


def _holding(
    project: Project | int, votes: Sequence[Preference], known: Collection[int] = ()
) -> list[tuple[DatasetSnapshot, Bucket]]:
    """Comparisons snapshots that hold one of the votes, and the bucket of the first they hold.

    known: ids of snapshots that are not asked.
    """
    if not votes:
        return []
    history = History(votes)
    found = []
    for snapshot in _candidates(project, votes[0].pk).exclude(pk__in=known).order_by("pk"):
        buckets = (history.bucket_in(snapshot, vote) for vote in votes)
        held = next((bucket for bucket in buckets if bucket in IN_THE_FILE), None)
        if held is not None:
            found.append((snapshot, held))
    return found


class History:
    """When votes were revised and voided: what a bucket as of a position needs."""

    def __init__(self, votes: Iterable[Preference]) -> None:
        votes = list(votes)
        self.comparisons = {vote.comparison_id for vote in votes}
        self.holding: dict[frozenset[int], frozenset[int]] = {}
        """By who is forgotten: comparisons with a text that they alone wrote, read once."""
        self.known: dict[int, Beyond] = {}
        self.written: dict[int, frozenset[int]] = {}
        self.answers: dict[int, list[Preference]] = {}
        """Of comparisons, all of them, where a snapshot asks how far they agree."""
        self.revisions: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        answers = Preference.objects.filter(comparison__in=self.comparisons)
        for comparison, annotator, revision, pk in answers.values_list(
            "comparison", "annotator", "revision", "pk"
        ):
            self.revisions[comparison, annotator].append((revision, pk))
        self.decisions: dict[int, list[Decision]] = defaultdict(list)
        for decision in Decision.objects.filter(comparison__in=self.comparisons):
            self.decisions[decision.comparison_id].append(decision)
        made = [one for of_one in self.decisions.values() for one in of_one]
        targets = [name_of(vote) for vote in votes if vote.voided_at]
        targets += [name_of(one) for one in made if one.voided_at]
        voids = AuditEntry.objects.filter(action__in=VOIDS, target__in=targets) if targets else ()
        self.voids = {entry.target: entry.pk for entry in voids}

    def bucket_in(self, snapshot: DatasetSnapshot, vote: Preference) -> Bucket | None:
        """The vote's bucket in a snapshot; None if it came later."""
        position = snapshot.ledger_position
        if vote.pk > position["preference"]:
            return None
        voided_by = self.voids.get(f"preference:{vote.pk}")
        query = VoteQuery.of(snapshot.query)
        beyond = self._beyond(snapshot, query)
        facts = VoteFacts(
            superseded=any(
                revision > vote.revision and pk <= position["preference"]
                for revision, pk in self.revisions[vote.comparison_id, vote.annotator_id]
            ),
            voided=voided_by is not None and voided_by <= position["audit"],
            purpose=vote.comparison.purpose,
            split=vote.comparison.prompt.split,
            kind=vote.annotator.kind,
            language=vote.comparison.prompt.language,
            text_alone=vote.comparison.prompt.text_alone,
            group=vote.comparison.prompt.split_group,
            decided=self._is_decided(vote, position, beyond.forgotten),
            agreement=self._agreement(vote, query, position, beyond.forgotten)
            if query.agreement
            else None,
            **(narrow_facts(vote, vote.comparison) if query.narrowing else {}),
            **asked_facts(
                vote,
                vote.comparison,
                vote.rankings.all(),
                query,
                beyond,
                self._written(vote.comparison) if query.licences else (),
            )
            | ({"forgotten": True} if self._holds(vote.comparison_id, beyond.forgotten) else {}),
        )
        return bucket_of(facts, query)

    def _holds(self, comparison: int, forgotten: frozenset[int]) -> bool:
        """Whether it holds a text that nobody but forgotten people wrote (plans.comparisons)."""
        if not forgotten:
            return False
        if forgotten not in self.holding:
            written = Generation.objects.filter(completion=OuterRef("completion"))
            others = written.exclude(annotator__in=forgotten, annotator__isnull=False)
            texts = ComparisonCompletion.objects.filter(comparison__in=self.comparisons)
            found = texts.filter(Exists(written), ~Exists(others))
            self.holding[forgotten] = frozenset(found.values_list("comparison", flat=True))
        return comparison in self.holding[forgotten]

    def _written(self, comparison: Comparison) -> frozenset[int]:
        """Sources of a comparison's completions, read once."""
        if comparison.pk not in self.written:
            found = Completion.objects.filter(entries__comparison=comparison)
            self.written[comparison.pk] = frozenset(found.values_list("source", flat=True))
        return self.written[comparison.pk]

    def _beyond(self, snapshot: DatasetSnapshot, query: VoteQuery) -> Beyond:
        """What the snapshot knew beyond votes, read once."""
        if snapshot.pk not in self.known:
            self.known[snapshot.pk] = Beyond.of(snapshot, query)
        return self.known[snapshot.pk]

    def _agreement(
        self,
        vote: Preference,
        query: VoteQuery,
        position: Mapping[str, int],
        forgotten: frozenset[int],
    ) -> float | None:
        """Of the votes on the vote's comparison that stood at a position."""
        if vote.comparison_id not in self.answers:
            answers = Preference.objects.filter(comparison=vote.comparison_id)
            self.answers[vote.comparison_id] = list(
                answers.select_related("annotator")
                .prefetch_related("rankings")
                .order_by("revision")
            )
        standing = {
            one.annotator_id: one
            for one in self.answers[vote.comparison_id]
            if one.pk <= position["preference"]
        }
        targets = [name_of(one) for one in standing.values() if one.voided_at]
        voids = AuditEntry.objects.filter(
            action__in=VOIDS, target__in=targets, pk__lte=position["audit"]
        )
        voided = set(voids.values_list("target", flat=True)) if targets else set()
        return agreement_of(
            (
                one.rankings.all()
                for one in standing.values()
                if one.annotator.kind in query.annotators
                and name_of(one) not in voided
                and one.annotator_id not in forgotten
            ),
            query.axes,
        )

    def _is_decided(
        self, vote: Preference, position: Mapping[str, int], forgotten: frozenset[int]
    ) -> bool:
        """Whether a decision on the vote's comparison was in force at a position."""
        made = [
            one
            for one in self.decisions[vote.comparison_id]
            if one.pk <= position.get("decision", 0)
        ]
        voided = {target for target, pk in self.voids.items() if pk <= position["audit"]}
        return in_force(made, voided, forgotten) is not None
