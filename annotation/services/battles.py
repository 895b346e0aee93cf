"""Answers as battles between those who wrote the texts: versions, people, outside models.

Only evaluation comparisons on dev prompts count, which are drawn uniformly and from which nothing
learns; test stays sealed. A text that two versions wrote alike is a tie without anybody asked.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from annotation.models import (
    AnnotatorKind,
    Generation,
    Origin,
    Outcome,
    Preference,
    Project,
    Purpose,
    Split,
)
from annotation.standings import Battle

PEOPLE = "people"
"""Who wrote a demonstration."""
HUMAN = (AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one comparison (or identical text) says of two players: the mean of its answers' words.

    at: when the first answer came, or the later of two identical texts, which orders the trials.
    """

    left: str
    right: str
    score: float
    at: datetime


def battles_of(project: Project) -> tuple[list[Battle], list[Trial]]:
    """All battles of the project's held-out evaluation, and its trials in the order they came.

    A player is a version by its name and id, an outside writer by name, or PEOPLE.
    """
    writers = _writers(project)
    battles: list[Battle] = []
    trials: list[Trial] = []
    for comparison, votes in _by_comparison(project):
        of_pair: dict[tuple[str, str], list[float]] = defaultdict(list)
        group, propensity, texts, first = comparison
        for annotator, places in votes:
            for left, right in combinations(sorted(places), 2):
                for one, other, score in _met(writers, left, right, places):
                    of_pair[one, other].append(score)
                    battles.append(
                        Battle(
                            left=one,
                            right=other,
                            score=score,
                            group=group,
                            annotator=annotator,
                            weight=1 / propensity if propensity else 1.0,
                            left_length=texts.get(left, 0),
                            right_length=texts.get(right, 0),
                        )
                    )
        trials += [
            Trial(one, other, sum(scores) / len(scores), first)
            for (one, other), scores in of_pair.items()
        ]
    ties, alike = _identical(project)
    return [*battles, *ties], sorted([*trials, *alike], key=lambda trial: trial.at)


def _met(
    writers: dict[int, list[str]], left: int, right: int, places: dict[int, int]
) -> Iterator[tuple[str, str, float]]:
    """(one, other, score) of the players behind two completions, in one order for each pair."""
    score = 0.5 if places[left] == places[right] else float(places[left] < places[right])
    for one in writers.get(left, []):
        for other in writers.get(right, []):
            if one < other:
                yield one, other, score
            elif other < one:
                yield other, one, 1 - score


Facts = tuple[str, float | None, dict[int, int], datetime]
"""(group, propensity, characters by completion, when the first answer came)."""


def _by_comparison(
    project: Project,
) -> Iterator[tuple[Facts, list[tuple[int, dict[int, int]]]]]:
    """Of each comparison its facts and (annotator, completion -> place) of each valid answer."""
    answers = (
        Preference.objects.valid()
        .filter(
            project=project,
            annotator__kind__in=HUMAN,
            comparison__purpose=Purpose.EVALUATION,
            comparison__prompt__split=Split.DEV,
            rankings__outcome__in=(Outcome.RANKED, Outcome.EQUAL),
        )
        .order_by("comparison_id", "pk", "rankings__pk")
        .values_list(
            "comparison_id",
            "pk",
            "created_at",
            "annotator_id",
            "rankings__groups",
            "comparison__prompt__split_group",
            "comparison__propensity",
        )
    )
    texts = _lengths(project)
    votes: dict[int, list[tuple[int, dict[int, int]]]] = defaultdict(list)
    facts: dict[int, tuple[str, float | None, datetime]] = {}
    answered: set[int] = set()
    for comparison, pk, at, annotator, groups, group, propensity in answers.iterator():
        if pk in answered:
            continue  # the first axis speaks
        answered.add(pk)
        facts.setdefault(comparison, (group, propensity, at))
        places = {one: place for place, tied in enumerate(groups) for one in tied}
        votes[comparison].append((annotator, places))
    for comparison, found in votes.items():
        group, propensity, first = facts[comparison]
        yield (group, propensity, texts, first), found


def _lengths(project: Project) -> dict[int, int]:
    """Characters of the completions of dev prompts."""
    rows = Generation.objects.filter(
        completion__prompt__project=project, completion__prompt__split=Split.DEV
    ).values_list("completion_id", "completion__text")
    return {pk: len(text) for pk, text in rows.iterator()}


def _writers(project: Project) -> dict[int, list[str]]:
    """Who wrote each completion of a dev prompt."""
    found: dict[int, list[str]] = defaultdict(list)
    for pk, name in _generations(project):
        if name and name not in found[pk]:
            found[pk].append(name)
    return found


def _generations(project: Project) -> Iterator[tuple[int, str]]:
    rows = (
        Generation.objects.filter(
            completion__prompt__project=project, completion__prompt__split=Split.DEV
        )
        .order_by("pk")
        .values_list("completion_id", "origin", "model_version_id", "model_version__name", "writer")
    )
    for pk, origin, version, name, writer in rows.iterator():
        if version is not None:
            yield pk, f"{name} #{version}"
        else:
            yield pk, PEOPLE if origin == Origin.DEMONSTRATION else writer


def _identical(project: Project) -> tuple[list[Battle], list[Trial]]:
    """Ties of texts that two versions wrote alike when they were set against each other."""
    rows = Generation.objects.filter(
        completion__prompt__project=project,
        completion__prompt__split=Split.DEV,
        model_version__isnull=False,
        job__inputs__has_key="against",
    ).order_by("pk")
    seen: dict[tuple[int, int], list[tuple[str, datetime]]] = defaultdict(list)
    groups: dict[int, str] = {}
    for at, completion, job, version, name, group in rows.values_list(
        *("created_at", "completion_id", "job_id", "model_version_id", "model_version__name"),
        "completion__prompt__split_group",
    ).iterator():
        seen[job, completion].append((f"{name} #{version}", at))
        groups[completion] = group
    battles, trials = [], []
    for (_job, completion), wrote in seen.items():
        for (one, first), (other, second) in combinations(sorted(wrote), 2):
            if one != other:
                battles.append(
                    Battle(
                        left=one,
                        right=other,
                        score=0.5,
                        group=groups[completion],
                        annotator=None,
                    )
                )
                trials.append(Trial(one, other, 0.5, max(first, second)))
    return battles, trials
