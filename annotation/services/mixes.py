"""What a project is made of: its languages, and the scores of each writer's texts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from django.db.models import Count, Exists, Model, OuterRef, QuerySet

from annotation.models import (
    Comparison,
    ComparisonCompletion,
    CompletionScore,
    Generation,
    ModelVersion,
    Preference,
    Project,
    Prompt,
    Split,
    VersionKind,
)
from annotation.services.quality import PEOPLE
from annotation.services.versions import versions_of

M = TypeVar("M", bound=Model)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
MOST_SCORES = MOST_COUNTED = 20_000
"""Scores, and prompts, comparisons and votes, each the newest; more would keep a page waiting."""


@dataclass(frozen=True, slots=True)
class LanguageShare:
    """How much of everything is in a language."""

    language: str
    """Empty where nobody said which."""
    prompts: int
    comparisons: int
    votes: int
    """Valid ones, of the kinds of annotators that were asked for."""


def languages_of(
    project: Project, kinds: Iterable[str] = PEOPLE
) -> tuple[list[LanguageShare], bool]:
    """Every language of the project's newest prompts, comparisons and votes, the one with most
    prompts first, and whether there are more of any than were counted; repeats are no questions of
    their own."""
    asked = Comparison.objects.filter(project=project, repeat_of=None)
    counts, there_are_more = [], False
    for rows, column in (
        (Prompt.objects.filter(project=project), "language"),
        (asked, "language"),
        (votes_of_kinds(project, kinds), "comparison__language"),
    ):
        newest, has_more = newest_of(rows)
        counts.append(_counted(newest, column))
        there_are_more |= has_more
    prompts, comparisons, votes = counts
    shares = sorted(
        (
            LanguageShare(one, prompts.get(one, 0), comparisons.get(one, 0), votes.get(one, 0))
            for one in {*prompts, *comparisons, *votes}
        ),
        key=lambda one: (-one.prompts, -one.comparisons, one.language),
    )
    return shares, there_are_more


def newest_of(rows: QuerySet[M]) -> tuple[QuerySet[M], bool]:
    """The newest MOST_COUNTED of them, and whether there are more."""
    ids = rows.order_by("-pk").values_list("pk", flat=True)
    older = ids[MOST_COUNTED : MOST_COUNTED + 1].first()
    return (rows, False) if older is None else (rows.filter(pk__gt=older), True)


def votes_of_kinds(project: Project, kinds: Iterable[str]) -> QuerySet[Preference]:
    """Valid votes of these kinds of annotators."""
    votes = Preference.objects.valid().filter(project=project, annotator__kind__in=list(kinds))
    return votes.filter(comparison__repeat_of=None)


def _counted(rows: QuerySet[Any], column: str) -> dict[str, int]:
    return dict(rows.order_by().values_list(column).annotate(Count("pk")))


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """How the scores of one writer's texts lie."""

    version: int | None
    """A policy version's id; None for a writer from outside."""
    writer: str
    """Its name."""
    n: int
    quantiles: Mapping[float, float]


def scored_by(project: Project) -> QuerySet[ModelVersion]:
    """Reward models of the project that some scores are of, newest first."""
    scores = CompletionScore.objects.filter(model_version=OuterRef("pk"))
    return versions_of(project).filter(Exists(scores), kind=VersionKind.REWARD)


def score_spreads(project: Project, reward: ModelVersion) -> tuple[list[ScoreSpread], bool]:
    """Of every writer whose texts this model scored, the best median first, and whether there are
    more scores than were counted. A text that two writers wrote counts for both, and once for each
    however often it was written. Test prompts are left out: they stay sealed."""
    newest = (
        CompletionScore.objects.filter(model_version=reward, completion__prompt__project=project)
        .exclude(completion__prompt__split=Split.TEST)
        .order_by("-pk")
    )
    some = dict(newest.values_list("completion", "score")[: MOST_SCORES + 1])
    there_are_more = len(some) > MOST_SCORES
    if not some:
        return [], False
    writers = (
        Generation.objects.filter(
            completion__gte=min(some),
            completion__lte=max(some),
            completion__prompt__project=project,
        )
        .order_by()
        .values_list("completion", "model_version", "model_version__name", "writer")
        .distinct()
    )
    found: dict[tuple[int | None, str], list[float]] = defaultdict(list)
    for completion, version, name, writer in writers:
        if completion in some and (version is not None or writer):
            found[version, name or writer].append(some[completion])
    spreads = [
        ScoreSpread(
            version,
            writer,
            len(scores),
            dict(zip(QUANTILES, map(float, np.quantile(scores, QUANTILES)), strict=True)),
        )
        for (version, writer), scores in found.items()
    ]
    return sorted(spreads, key=lambda one: (-one.quantiles[0.5], one.writer)), there_are_more


def name_of_writer(project: Project, version: int) -> str | None:
    """What a version is called that wrote for this project; None for any other, whose name is not
    this project's to know."""
    written = Generation.objects.filter(
        model_version=version, completion__prompt__project=project
    ).order_by()
    return written.values_list("model_version__name", flat=True).first()


def votes_on_scored(
    project: Project,
    kinds: Iterable[str],
    reward: ModelVersion,
    *,
    version: int | None = None,
    writer: str = "",
) -> QuerySet[Preference]:
    """Valid votes, of the newest, on comparisons with a text of this writer that this model
    scored."""
    whose = {"model_version": version} if version is not None else {"writer": writer}
    written = Generation.objects.filter(completion=OuterRef("completion"), **whose)
    scored = CompletionScore.objects.filter(completion=OuterRef("completion"), model_version=reward)
    entries = ComparisonCompletion.objects.filter(
        Exists(scored), Exists(written), comparison=OuterRef("comparison")
    )
    votes = votes_of_kinds(project, kinds).exclude(comparison__prompt__split=Split.TEST)
    newest, _more = newest_of(votes)
    return newest.filter(Exists(entries))
