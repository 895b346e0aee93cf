"""Answers as battles between those who wrote the texts: versions, people, outside models.

Only evaluation comparisons on held-out prompts count, which are drawn uniformly and from which
nothing learns: dev, or test, whose looks are recorded (services/sealed.py). A text that two
versions wrote alike is a tie without anybody asked, and a blank one loses. What a project's mix set
against each other (annotation/asking.py) is left out: there a text that was like the other was
drawn anew, so that it says nothing of how often the two are even.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations

from django.db.models import OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Length

from annotation.asking import ACROSS, selector_of
from annotation.models import (
    AnnotatorKind,
    Comparison,
    ComparisonCompletion,
    Generation,
    Origin,
    Outcome,
    Preference,
    Project,
    Purpose,
    Ranking,
    Split,
)
from annotation.services.meetings import PEOPLE, Meeting, meetings_of, player_of
from annotation.standings import Battle
from annotation.trials import Trial, in_turn

OF_THE_MIX = [selector_of(one) for one in ACROSS]
HUMAN = (AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)
MOST_QUESTIONS = 10_000
"""The newest; a dataset that came in may have a hundred thousand, and a page waits for them."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a project's evaluation on a split."""

    battles: list[Battle]
    trials: list[Trial]
    """In the order in which they came."""
    there_are_more: bool
    """Questions than were counted."""


def evaluation_of(project: Project, split: str = Split.DEV) -> Evaluation:
    """The battles and trials of a project's evaluation on a split.

    A player is a version by its name and id, an outside writer by name, or PEOPLE. What needs no
    answer counts once its turn among the answers of its job has come, in both. All questions of
    jobs count, and of the others the newest MOST_QUESTIONS.
    """
    meetings = meetings_of(project, split)
    parts = _counted(project, split, meetings)
    writers = {pk: names for part in parts for pk, names in _writers(part).items()}
    met_in = {texts: meeting for meeting in meetings for texts in meeting.asked}
    answered: dict[int, list[Trial]] = defaultdict(list)
    battles: list[Battle] = []
    trials: list[Trial] = []
    for comparison, votes in (one for part in parts for one in _by_comparison(project, part)):
        of_pair: dict[tuple[str, str], list[float]] = defaultdict(list)
        group, propensity, shown, texts, first = comparison
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
        meeting = met_in.get(shown)
        for pair, scores in of_pair.items():
            trial = Trial(*pair, sum(scores) / len(scores), first)
            if meeting and pair == meeting.pair:
                answered[meeting.job].append(trial)
            else:
                trials.append(trial)
    for meeting in meetings:
        come = sorted(answered[meeting.job], key=lambda trial: trial.at)
        for trial, battle in in_turn(meeting.drawn, come, meeting.since):
            trials.append(trial)
            if battle is not None:
                battles.append(battle)
    trials.sort(key=lambda trial: trial.at)
    return Evaluation(battles, trials, there_are_more=len(parts) > 1)


def votes_between(
    project: Project, one: str, other: str = "", split: str = Split.DEV
) -> QuerySet[Preference]:
    """Of the questions that count, answers in which one player met the other, or anybody where no
    other is named."""
    parts = _counted(project, split, meetings_of(project, split))
    writers = {pk: names for part in parts for pk, names in _writers(part).items()}
    asked = [row for part in parts for row in _shown(part)[1].items()]
    wanted = []
    for comparison, shown in asked:
        places = dict.fromkeys(shown, 0)
        pairs = (_met(writers, left, right, places) for left, right in combinations(shown, 2))
        met = {frozenset(pair) for found in pairs for *pair, _score in found}
        if any(one in pair and (not other or other in pair) for pair in met):
            wanted.append(comparison)
    first_word = Ranking.objects.filter(preference=OuterRef("pk")).order_by("pk")
    return (
        Preference.objects.valid()
        .filter(project=project, annotator__kind__in=HUMAN, comparison__in=wanted)
        .annotate(word=Subquery(first_word.values("outcome")[:1]))
        .filter(word__in=(Outcome.RANKED, Outcome.EQUAL, Outcome.BOTH_BAD))
    )


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


Facts = tuple[str, float | None, frozenset[int], dict[int, int], datetime]
"""(group, propensity, completions shown, characters by completion, when the first answer came)."""


def _counted(
    project: Project, split: str, meetings: Sequence[Meeting]
) -> list[QuerySet[Comparison]]:
    """The newest questions, and before them those that jobs put, however old; no question twice."""
    questions = Comparison.objects.filter(
        project=project, purpose=Purpose.EVALUATION, prompt__split=split
    ).exclude(selector__in=OF_THE_MIX)
    newest = list(questions.order_by("-pk").values_list("pk", flat=True)[: MOST_QUESTIONS + 1])
    if len(newest) <= MOST_QUESTIONS:
        return [questions]
    oldest = newest[MOST_QUESTIONS - 1]
    by_jobs = ComparisonCompletion.objects.filter(
        completion__generations__job__in=[meeting.job for meeting in meetings]
    )
    put = questions.filter(pk__lt=oldest, pk__in=by_jobs.values("comparison"))
    return [put, questions.filter(pk__gte=oldest)]


def _by_comparison(
    project: Project, questions: QuerySet[Comparison]
) -> Iterator[tuple[Facts, list[tuple[int, dict[int, int]]]]]:
    """Of each comparison its facts and (annotator, completion -> place) of each valid answer.

    The first axis speaks: both bad there is a tie, and who cannot tell there says nothing. Groups
    and times come as text, as in services.quality.rankings_of.
    """
    answers = list(
        Preference.objects.valid()
        .filter(project=project, annotator__kind__in=HUMAN, comparison__in=questions)
        .order_by("comparison_id", "pk", "rankings__pk")
        .values_list(
            Cast("rankings__groups", TextField()),
            Cast("created_at", TextField()),
            "comparison_id",
            "pk",
            "annotator_id",
            "rankings__outcome",
            "comparison__prompt__split_group",
            "comparison__propensity",
        )
    )
    said = json.loads(f"[{','.join(row[0] or '[]' for row in answers)}]")
    texts, shown = _shown(questions)
    votes: dict[int, list[tuple[int, dict[int, int]]]] = defaultdict(list)
    facts: dict[int, tuple[str, float | None, str]] = {}
    last = None
    for groups, (_groups, at, comparison, pk, annotator, outcome, group, propensity) in zip(
        said, answers, strict=True
    ):
        if pk == last:
            continue
        last = pk
        if outcome in (Outcome.RANKED, Outcome.EQUAL):
            places = {one: place for place, tied in enumerate(groups) for one in tied}
        elif outcome == Outcome.BOTH_BAD:
            places = dict.fromkeys(shown[comparison], 0)
        else:
            continue
        facts.setdefault(comparison, (group, propensity, at))
        votes[comparison].append((annotator, places))
    for comparison, found in votes.items():
        group, propensity, first = facts[comparison]
        yield (group, propensity, frozenset(shown[comparison]), texts, _time(first)), found


def _time(text: str) -> datetime:
    """As the database writes it; SQLite leaves out that it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _shown(questions: QuerySet[Comparison]) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Characters of the completions that are compared, and the completions of each comparison."""
    lengths: dict[int, int] = {}
    shown: dict[int, list[int]] = defaultdict(list)
    rows = ComparisonCompletion.objects.filter(comparison__in=questions)
    for comparison, completion, length in rows.values_list(
        "comparison_id", "completion_id", Length("completion__text")
    ):
        shown[comparison].append(completion)
        lengths[completion] = length
    return lengths, shown


def _writers(questions: QuerySet[Comparison]) -> dict[int, list[str]]:
    """Who wrote each completion that is compared."""
    entries = ComparisonCompletion.objects.filter(comparison__in=questions)
    rows = (
        Generation.objects.filter(completion__in=entries.values("completion"))
        .order_by("pk")
        .values_list("completion_id", "origin", "model_version_id", "model_version__name", "writer")
    )
    found: dict[int, list[str]] = defaultdict(list)
    for pk, origin, version, name, writer in rows.iterator():
        if version is not None:
            name = player_of(name, version)
        else:
            name = PEOPLE if origin == Origin.DEMONSTRATION else writer
        if name and name not in found[pk]:
            found[pk].append(name)
    return found
