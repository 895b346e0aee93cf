"""Freeze: a query at a position of the ledger becomes a file that never changes.

`sha256` of a snapshot is the SHA-256 of its manifest `<sha256>.json`, which holds project, kind,
query, position, counts and the SHA-256 of the rows, `<sha256>.jsonl`. So it stands for what was
asked and what came out of it: two queries that happen to give the same rows stay two datasets.

The position makes a freeze repeatable: votes by their id, voids by the id of their audit entry,
writers by the id of their generation. What came later is not seen, even when a row is frozen again.
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, Max, Model, OuterRef, Prefetch, QuerySet

from annotation.errors import BadInput, Conflict
from annotation.funnel import (
    IN_THE_FILE,
    WITHOUT_PAIRS,
    Bucket,
    VoteFacts,
    VoteQuery,
    answered,
    bucket_of,
    checked_options,
)
from annotation.models import (
    AuditEntry,
    Comparison,
    Completion,
    DatasetSnapshot,
    Generation,
    Origin,
    Outcome,
    Preference,
    Project,
    Prompt,
    Split,
    User,
)
from annotation.services.audit import name_of, record

KINDS = ("comparisons", "prompts", "demonstrations")
PAGE_ROWS = 100
"""Of nine completions each at most: SQLite follows no more than 1,000 rows of a page to another
table at once."""
MAX_TRIES = 5
VOID = "preference.void"
RANKING = (*IN_THE_FILE, Bucket.NO_STRICT_PAIR)
"""A comparison with one of these has a row."""
SHOWN = (*IN_THE_FILE, *WITHOUT_PAIRS)
"""Votes that stand in their comparison's row."""

Row = dict[str, Any]
Position = dict[str, int]
M = TypeVar("M", bound=Model)


def freeze(
    *,
    project: Project,
    kind: str,
    query: Mapping[str, Any] | None = None,
    by: User | None = None,
) -> DatasetSnapshot:
    """The snapshot of this query at this position, written if it isn't there yet.

    query: annotators, languages, purposes, splits (each a list); `up_to`, a position as another
    snapshot has it, missing parts = now. Comparisons take people's votes of all splits unless told
    otherwise, prompts and demonstrations those of train. Raises BadInput for anything else,
    Conflict if votes from before the position kept arriving.
    """
    if kind not in KINDS:
        raise BadInput(f"A snapshot holds {', '.join(KINDS)}: not {kind!r}.")
    options = dict(query or {})
    up_to = options.pop("up_to", None) or {}
    for _ in range(MAX_TRIES):
        plan = PLANS[kind](project, options)
        position = plan.position(up_to)
        known = DatasetSnapshot.objects.filter(
            project=project, kind=kind, query=plan.query, ledger_position=position
        )
        if (found := known.order_by("pk").first()) and path_of(found).is_file():
            return found
        if snapshot := _keep(project, kind, plan, position, by):
            return snapshot
    raise Conflict("The ledger did not come to rest while it was read; try again.")


def path_of(snapshot: DatasetSnapshot) -> Path:
    """Where a snapshot's rows lie."""
    return Path(settings.ARTIFACTS_DIR) / snapshot.path


def rows_of(snapshot: DatasetSnapshot) -> Iterator[Row]:
    """A snapshot's rows, one at a time."""
    with path_of(snapshot).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _keep(
    project: Project, kind: str, plan: "Plan", position: Position, by: User | None
) -> DatasetSnapshot | None:
    """Write the files beside their place, rename them into it, and only then add the row.

    None, and nothing kept, if something up to the position appeared meanwhile: a transaction that
    took its id before the position was read may be committed after its place was passed
    (PostgreSQL).
    """
    folder = Path(settings.ARTIFACTS_DIR) / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".part-{uuid.uuid4().hex}"
    try:
        rows, file_sha256 = _write_rows(part, plan.rows(position))
        counts = {str(bucket): number for bucket, number in sorted(plan.counts.items())}
        if not plan.is_complete(position):
            return None
        manifest = json.dumps(
            {
                "project": project.pk,
                "kind": kind,
                "query": plan.query,
                "position": position,
                "rows": rows,
                "counts": counts,
                "file_sha256": file_sha256,
            },
            sort_keys=True,
        )
        sha256 = hashlib.sha256(manifest.encode()).hexdigest()
        part.replace(folder / f"{sha256}.jsonl")
        part.write_text(manifest, encoding="utf-8")
        part.replace(folder / f"{sha256}.json")
    finally:
        part.unlink(missing_ok=True)
    try:
        with transaction.atomic():
            snapshot = DatasetSnapshot.objects.create(
                project=project,
                kind=kind,
                query=plan.query,
                ledger_position=position,
                sha256=sha256,
                path=f"snapshots/{sha256}.jsonl",
                rows=rows,
                counts=counts,
                created_by=by,
            )
            record(
                action="snapshot.freeze",
                target=snapshot,
                project=project,
                actor=by,
                kind=kind,
                sha256=sha256,
                rows=rows,
                splits=plan.query["splits"],
            )
    except IntegrityError:  # another froze the same meanwhile; the files are the same bytes
        return DatasetSnapshot.objects.get(sha256=sha256)
    return snapshot


def _write_rows(path: Path, rows: Iterator[Row]) -> tuple[int, str]:
    """Number of rows written and the file's SHA-256; on disk when this returns."""
    digest, num_rows = hashlib.sha256(), 0
    with path.open("wb") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            file.write(line)
            num_rows += 1
        file.flush()
        os.fsync(file.fileno())
    return num_rows, digest.hexdigest()


def _pages(queryset: QuerySet[M]) -> Iterator[M]:
    """Rows by ascending id, a page at a time: bounded memory, and no transaction held open."""
    last = 0
    while page := list(queryset.filter(pk__gt=last).order_by("pk")[:PAGE_ROWS]):
        yield from page
        last = page[-1].pk


def _newest(queryset: QuerySet[M]) -> int:
    """The highest id, once nobody is writing to the table.

    PostgreSQL gives ids out before they are committed: a vote with a lower id than the newest may
    still be under way. SHARE waits for whoever writes, and lets nobody begin until the id is read.
    One table at a time, so that it can't deadlock with a writer of two. SQLite has one writer.
    """
    if connection.vendor != "postgresql":
        return _highest(queryset)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{queryset.model._meta.db_table}" IN SHARE MODE')
        return _highest(queryset)


def _highest(queryset: QuerySet[M]) -> int:
    return int(queryset.aggregate(newest=Max("pk"))["newest"] or 0)


def _position(up_to: Any, now: Mapping[str, Callable[[], int]]) -> Position:
    """The position asked for; a part that isn't given is where the ledger stands now.

    Raises BadInput for a part beyond that: what will stand there is not known yet.
    """
    if not isinstance(up_to, Mapping) or not set(up_to) <= set(now):
        raise BadInput(f"up_to must be an object with {', '.join(now)}: {up_to!r:.80}.")
    for name, value in up_to.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"up_to.{name} must be a whole number of 0 or more: {value!r:.80}.")
        if value > (newest := now[name]()):
            raise BadInput(
                f"up_to.{name} is beyond where the ledger stands, {newest}: {value!r:.80}."
            )
    found = {name: int(up_to[name]) if name in up_to else newest() for name, newest in now.items()}
    return dict(sorted(found.items()))


def _ledger_parts(project: Project) -> dict[str, Callable[[], int]]:
    """The parts of a position that votes and what came of them depend on."""
    return {
        # votes first: whoever wrote what they are about is there by then
        "preference": lambda: _newest(Preference.objects.filter(project=project)),
        "generation": lambda: _newest(Generation.objects.all()),
        "audit": lambda: _newest(AuditEntry.objects.filter(project=project, action=VOID)),
    }


def group_name(prompt: Prompt) -> str:
    """What related prompts share, without their text: 16 digits of the split group's SHA-256."""
    return hashlib.sha256(prompt.split_group.encode()).hexdigest()[:16]


# --- comparisons --------------------------------------------------------------------------------


class ComparisonsPlan:
    """Votes as rows of ARCHITECTURE.md section 6, and the funnel they went through."""

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.votes = VoteQuery.of(options)
        self.query = self.votes.as_json()
        self.counts: Counter[str] = Counter(dict.fromkeys(Bucket, 0))
        self.num_voids = 0

    def position(self, up_to: Any) -> Position:
        return _position(up_to, _ledger_parts(self.project))

    def rows(self, position: Position) -> Iterator[Row]:
        """One row per comparison with a vote that ranks something; counts on the way."""
        self.num_voids = _voids_at(self.project, position).count()
        for comparison, buckets in buckets_at(self.project, self.votes, position):
            self.counts.update(buckets.values())
            if any(bucket in RANKING for bucket in buckets.values()):
                votes = comparison.preferences.all()
                yield comparison_row(comparison, [v for v in votes if buckets[v.pk] in SHOWN])

    def is_complete(self, position: Position) -> bool:
        """Whether the buckets sum to the votes up to the position, and no void came late."""
        votes, voids = votes_at(self.project, position), _voids_at(self.project, position)
        return sum(self.counts.values()) == votes.count() and self.num_voids == voids.count()


def buckets_at(
    project: Project, query: VoteQuery, position: Position
) -> Iterator[tuple[Comparison, dict[int, Bucket]]]:
    """Every comparison voted on by then, its votes prefetched, and the bucket of each by its id."""
    voided = set(_voids_at(project, position).values_list("target", flat=True))
    for comparison in _pages(comparisons_at(project, position)):
        facts = facts_at(comparison, voided)
        yield comparison, {vote.pk: bucket_of(fact, query) for vote, fact in facts}


def votes_at(project: Project, position: Position) -> QuerySet[Preference]:
    """Every vote of a project up to a position."""
    return Preference.objects.filter(project=project, pk__lte=position["preference"])


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


def _voids_at(project: Project, position: Position) -> QuerySet[AuditEntry]:
    """The voids up to a position. They decide, not the vote's column: that knows of later ones."""
    return AuditEntry.objects.filter(project=project, pk__lte=position["audit"], action=VOID)


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


def comparison_row(comparison: Comparison, votes: list[Preference]) -> Row:
    """The row of a comparison with these votes; ids are texts."""
    prompt = comparison.prompt
    judgments = [judgment_row(vote, one) for vote in votes for one in _by_completion(vote)]
    row = {
        "id": str(comparison.pk),
        "split": prompt.split,
        "group": group_name(prompt),
        "language": prompt.language,
        "task": prompt.task,
        "purpose": comparison.purpose,
        "prompt": prompt.messages,
        "completions": [
            {
                "id": str(entry.completion_id),
                "text": entry.completion.text,
                "model": writer_of(entry.completion),
            }
            for entry in comparison.entries.all()
        ],
        "votes": [vote_row(vote, ranking) for vote in votes for ranking in _by_axis(vote)],
    }
    return row | ({"judgments": judgments} if judgments else {})


def _by_axis(vote: Preference) -> list[Any]:
    return sorted(vote.rankings.all(), key=lambda ranking: ranking.axis)


def _by_completion(vote: Preference) -> list[Any]:
    return sorted(vote.judgments.all(), key=lambda judgment: judgment.completion_id)


def vote_row(vote: Preference, ranking: Any) -> Row:
    """One axis of a vote. Both bad and cannot tell have an empty ranking: they order nothing.

    `acceptable`, how many groups from the top are good enough, is there where a line was drawn.
    """
    ranked = ranking.outcome in (Outcome.RANKED, Outcome.EQUAL)
    line = {} if ranking.acceptable is None else {"acceptable": ranking.acceptable}
    return line | {
        "axis": ranking.axis,
        "outcome": ranking.outcome,
        "ranking": [[str(pk) for pk in group] for group in ranking.groups] if ranked else [],
        "strength": ranking.strengths or None,
        "weight": 1.0,
        "annotator": str(vote.annotator_id),
        "kind": vote.annotator.kind,
        "preference": vote.pk,
    }


def judgment_row(vote: Preference, judgment: Any) -> Row:
    """What a vote says of one completion by itself."""
    return {
        "annotator": str(vote.annotator_id),
        "kind": vote.annotator.kind,
        "preference": vote.pk,
        "completion": str(judgment.completion_id),
        "ratings": judgment.ratings,
        "flags": judgment.flags,
    }


def writer_of(completion: Completion) -> str:
    """Who first wrote a completion, as far as is known; uses prefetched generations."""
    for generation in completion.generations.all():
        if generation.model_version:
            return generation.model_version.name
        if generation.writer:
            return generation.writer
    return ""


# --- prompts and demonstrations -----------------------------------------------------------------


def _prompt_options(options: Mapping[str, Any], splits: tuple[str, ...]) -> Row:
    """Splits (default train) and languages (default any) of a query, checked."""
    checked = checked_options(options, {"languages": None, "splits": splits})
    return {
        "languages": list(checked.get("languages", ())),
        "splits": list(checked.get("splits", (Split.TRAIN.value,))),
    }


def _prompt_bucket(prompt: Prompt, query: Row) -> str:
    if query["languages"] and prompt.language not in query["languages"]:
        return Bucket.FILTERED_LANGUAGE
    if prompt.split not in query["splits"]:
        return Bucket.FILTERED_SPLIT
    return prompt.split if prompt.text_alone else Bucket.NOT_TEXT


class PromptsPlan:
    """Prompts of some splits; every prompt of the project falls in one bucket."""

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.query = _prompt_options(options, tuple(Split.values))
        self.counts: Counter[str] = Counter()

    def position(self, up_to: Any) -> Position:
        return _position(
            up_to, {"prompt": lambda: _newest(Prompt.objects.filter(project=self.project))}
        )

    def _all(self, position: Position) -> QuerySet[Prompt]:
        return Prompt.objects.filter(project=self.project, pk__lte=position["prompt"])

    def rows(self, position: Position) -> Iterator[Row]:
        for prompt in _pages(self._all(position)):
            bucket = _prompt_bucket(prompt, self.query)
            self.counts[bucket] += 1
            if bucket == prompt.split:
                yield {
                    "id": str(prompt.pk),
                    "split": prompt.split,
                    "group": group_name(prompt),
                    "prompt": prompt.messages,
                    "task": prompt.task,
                    "language": prompt.language,
                }

    def is_complete(self, position: Position) -> bool:
        return sum(self.counts.values()) == self._all(position).count()


class DemonstrationsPlan:
    """Ideal answers. Those to test prompts are never given out: nothing may learn from them.

    One that annotators wrote beside a preference goes with it: void or replaced, it isn't given
    out either, unless somebody else stands by the same words.
    """

    def __init__(self, project: Project, options: Mapping[str, Any]) -> None:
        self.project = project
        self.query = _prompt_options(options, (Split.TRAIN, Split.DEV))
        self.counts: Counter[str] = Counter()
        self.num_voids = 0

    def position(self, up_to: Any) -> Position:
        return _position(up_to, _ledger_parts(self.project))

    def _all(self, position: Position) -> QuerySet[Completion]:
        written = Generation.objects.filter(
            origin=Origin.DEMONSTRATION, pk__lte=position["generation"]
        )
        votes = votes_at(self.project, position)
        later = votes.filter(
            comparison=OuterRef("comparison"),
            annotator=OuterRef("annotator"),
            revision__gt=OuterRef("revision"),
        )
        return (
            Completion.objects.filter(
                Exists(written.filter(completion=OuterRef("pk"))), prompt__project=self.project
            )
            .select_related("prompt")
            .prefetch_related(
                Prefetch("generations", written),
                Prefetch("ideal_of", votes.annotate(is_superseded=Exists(later))),
            )
        )

    def rows(self, position: Position) -> Iterator[Row]:
        voided = set(_voids_at(self.project, position).values_list("target", flat=True))
        self.num_voids = len(voided)
        for completion in _pages(self._all(position)):
            prompt = completion.prompt
            bucket = _withdrawn(completion, voided) or _prompt_bucket(prompt, self.query)
            self.counts[bucket] += 1
            if bucket == prompt.split:
                yield {
                    "id": str(completion.pk),
                    "split": prompt.split,
                    "group": group_name(prompt),
                    "prompt": prompt.messages,
                    "completion": completion.text,
                    "language": prompt.language,
                }

    def is_complete(self, position: Position) -> bool:
        voids = _voids_at(self.project, position).count()
        return sum(self.counts.values()) == self._all(position).count() and self.num_voids == voids


def _withdrawn(completion: Completion, voided: set[str]) -> Bucket | None:
    """Why no answer stands by an ideal answer any more; None where one does, or somebody wrote it
    outside an answer."""
    if any(one.annotator_id is None for one in completion.generations.all()):
        return None
    votes: list[Any] = list(completion.ideal_of.all())  # annotated with is_superseded
    if not votes or any(not v.is_superseded and name_of(v) not in voided for v in votes):
        return None
    return Bucket.VOIDED if any(name_of(vote) in voided for vote in votes) else Bucket.SUPERSEDED


Plan = ComparisonsPlan | PromptsPlan | DemonstrationsPlan


PLANS: Mapping[str, Callable[[Project, Mapping[str, Any]], Plan]] = {
    "comparisons": ComparisonsPlan,
    "prompts": PromptsPlan,
    "demonstrations": DemonstrationsPlan,
}
