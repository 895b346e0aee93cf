"""Voted comparisons as plain values: all that a row of a dataset is made of.

Every table is read once a page, as tuples. Models with their prefetched relations say the same, but
prepare a queryset for each relation of each row: two thirds of a freeze went there.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from annotation.models import (
    Annotator,
    Comparison,
    ComparisonCompletion,
    Completion,
    CompletionJudgment,
    Decision,
    Generation,
    Guideline,
    Preference,
    Project,
    Prompt,
    Ranking,
    Scheme,
    Source,
)
from annotation.models.prompts import text_alone
from annotation.services.positions import Position

PAGE_COMPARISONS = 500
MAX_IDS = 10_000
"""In one query: SQLite takes 32,766, and votes with ideal answers may bring any number."""


@dataclass(slots=True)
class Asked:
    """A prompt."""

    pk: int
    source_id: int
    external_id: str
    messages: list[dict[str, Any]]
    task: str
    language: str
    metadata: dict[str, Any]
    split_group: str
    split: str
    source: Source
    text_alone: bool
    """As Prompt.text_alone has it."""


@dataclass(slots=True)
class Writing:
    """An act that wrote a completion: a Generation."""

    origin: str
    version: str | None
    """Name of the registered version."""
    writer: str
    annotator: Annotator | None
    sampling: dict[str, Any]
    seed: int | None
    finish_reason: str


@dataclass(slots=True)
class Written:
    """A completion and every act that wrote it, the first one first."""

    pk: int
    text: str
    source_id: int
    generations: list[Writing]

    @property
    def writer(self) -> str:
        """Who first wrote it, as far as is known."""
        return next((name for one in self.generations if (name := one.version or one.writer)), "")


@dataclass(slots=True)
class Ranked:
    """One axis of a vote or of a decision: what Ranking has."""

    axis: str
    outcome: str
    groups: list[list[int]] = field(default_factory=list)
    strengths: list[int] = field(default_factory=list)
    acceptable: int | None = None


@dataclass(slots=True)
class Judged:
    """What a vote says of one completion by itself."""

    completion_id: int
    ratings: dict[str, int]
    flags: list[str]


@dataclass(slots=True)
class Vote:
    """A preference with its rankings and judgments, in the order in which they were stored."""

    pk: int
    annotator_id: int
    scheme_id: int
    guideline_id: int | None
    revision: int
    presented_order: list[int]
    cause: str
    voided_at: datetime | None
    void_reason: str
    source_id: int | None
    external_id: str
    note: str
    ideal_id: int | None
    seconds: float | None
    active_seconds: float | None
    created_at: datetime
    annotator: Annotator
    scheme: Scheme
    guideline: Guideline | None
    ideal: Written | None = None
    rankings: list[Ranked] = field(default_factory=list)
    judgments: list[Judged] = field(default_factory=list)


@dataclass(slots=True)
class Voted:
    """A comparison with a vote or more."""

    pk: int
    prompt_id: int
    purpose: str
    batch_id: int
    language: str
    skill: str
    propensity: float | None
    selector: str
    prompt: Asked
    completions: list[Written]
    """In their stored order."""
    votes: list[Vote]
    """In the order in which they came."""
    decisions: list[Decision]


PROMPT = (
    *("source_id", "external_id", "messages", "task", "language", "metadata"),
    *("split_group", "split"),
)
WRITING = (
    *("origin", "model_version__name", "writer", "annotator_id", "sampling"),
    *("seed", "finish_reason"),
)
VOTE = (
    *("pk", "annotator_id", "scheme_id", "guideline_id", "revision", "presented_order", "cause"),
    *("voided_at", "void_reason", "source_id", "external_id", "note", "ideal_id", "seconds"),
    *("active_seconds", "created_at"),
)
COMPARISON = (
    *("pk", "prompt_id", "purpose", "batch_id", "language", "skill", "propensity", "selector"),
)
RANKED = ("axis", "outcome", "groups", "strengths", "acceptable")
JUDGED = ("completion_id", "ratings", "flags")
"""Columns in the order of the fields above."""


def voted_at(project: Project, position: Position) -> Iterator[Voted]:
    """Comparisons that had a vote by then, by ascending id: bounded memory, no transaction held."""
    comparisons = Comparison.objects.filter(project=project).order_by("pk")
    reader, last = _Reader(project, position), 0
    while page := list(comparisons.filter(pk__gt=last).values_list(*COMPARISON)[:PAGE_COMPARISONS]):
        yield from reader.read(page)
        last = page[-1][0]


class _Reader:
    """Reads pages; what many rows share it remembers."""

    def __init__(self, project: Project, position: Position) -> None:
        self.schemes = {one.pk: one for one in project.schemes.all()}
        self.guidelines = {one.pk: one for one in project.guidelines.defer("texts", "faq")}
        self.sources = {one.pk: one for one in project.sources.all()}
        self.annotators: dict[int, Annotator] = {}
        self.votes = Preference.objects.filter(pk__lte=position["preference"])
        self.generations = Generation.objects.filter(pk__lte=position["generation"])
        # a dataset of before there were decisions names none
        self.decisions = Decision.objects.filter(pk__lte=position.get("decision", 0))

    def read(self, page: list[tuple[Any, ...]]) -> Iterator[Voted]:
        """Those of a page that have votes; each table is read once."""
        votes = self._votes([row[0] for row in page])
        page = [row for row in page if row[0] in votes]
        prompts = self._prompts({row[1] for row in page})
        shown = defaultdict(list)
        entries = ComparisonCompletion.objects.order_by("position")
        for comparison, completion in _rows(entries, "comparison_id", votes, "completion_id"):
            shown[comparison].append(completion)
        ideals = {vote.ideal_id for said in votes.values() for vote in said if vote.ideal_id}
        texts = self._completions({pk for pks in shown.values() for pk in pks} | ideals)
        decisions = defaultdict(list)
        decided = self.decisions.filter(comparison__in=list(votes)).select_related("by")
        for decision in decided.order_by("pk"):
            decisions[decision.comparison_id].append(decision)
        for row in page:
            pk = row[0]
            for vote in votes[pk]:
                vote.ideal = texts[vote.ideal_id] if vote.ideal_id else None
            entered = [texts[one] for one in shown[pk]]
            yield Voted(*(*row, prompts[row[1]], entered, votes[pk], decisions[pk]))

    def _prompts(self, ids: Iterable[int]) -> dict[int, Asked]:
        rows = _rows(Prompt.objects.all(), "pk", ids, *PROMPT)
        return {row[0]: Asked(*(*row, self.sources[row[1]], text_alone(row[3]))) for row in rows}

    def _completions(self, ids: Collection[int]) -> dict[int, Written]:
        found = _rows(Completion.objects.all(), "pk", ids, "text", "source_id")
        texts = {row[0]: Written(*(*row, [])) for row in found}
        rows = list(_rows(self.generations.order_by("pk"), "completion_id", ids, *WRITING))
        self._meet(row[4] for row in rows)
        for completion, origin, version, writer, by, *more in rows:
            annotator = self.annotators[by] if by else None
            texts[completion].generations.append(Writing(origin, version, writer, annotator, *more))
        return texts

    def _votes(self, comparisons: Iterable[int]) -> dict[int, list[Vote]]:
        """Comparison -> its votes up to the position; their ideal answers are not there yet."""
        rows = list(_rows(self.votes.order_by("pk"), "comparison_id", comparisons, *VOTE))
        self._meet(row[2] for row in rows)
        of: dict[int, list[Vote]] = defaultdict(list)
        votes: dict[int, Vote] = {}
        for comparison, *row in rows:
            by, scheme = self.annotators[row[1]], self.schemes[row[2]]
            guideline = self.guidelines[row[3]] if row[3] else None
            vote = Vote(*(*row, by, scheme, guideline))
            of[comparison].append(vote)
            votes[vote.pk] = vote
        for pk, *ranked in _rows(Ranking.objects.order_by("pk"), "preference_id", votes, *RANKED):
            votes[pk].rankings.append(Ranked(*ranked))
        judgments = CompletionJudgment.objects.order_by("pk")
        for pk, *judged in _rows(judgments, "preference_id", votes, *JUDGED):
            votes[pk].judgments.append(Judged(*judged))
        return dict(of)

    def _meet(self, ids: Iterable[int | None]) -> None:
        """Remember these annotators."""
        unknown = {pk for pk in ids if pk} - set(self.annotators)
        if unknown:
            self.annotators |= {one.pk: one for one in Annotator.objects.filter(pk__in=unknown)}


def _rows(
    table: QuerySet[Any], column: str, ids: Iterable[int], *columns: str
) -> Iterator[tuple[Any, ...]]:
    """(id, *columns) of the rows whose column is one of these ids.

    By the ids alone, never by project and position too: SQLite without statistics would go along
    the index of these, and read the whole ledger for each page.
    """
    wanted = list(ids)
    for start in range(0, len(wanted), MAX_IDS):
        some = table.filter(**{f"{column}__in": wanted[start : start + MAX_IDS]})
        yield from some.values_list(column, *columns)
