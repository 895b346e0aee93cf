"""Answers as battles between those who wrote the texts: versions, people, outside models.

Only evaluation comparisons on held-out prompts count, which are drawn uniformly and from which
nothing learns: dev, or test, whose looks are recorded (services/sealed.py). A text that two
versions wrote alike is a tie without anybody asked, and a blank one loses. What a project's mix set
against each other (annotation/asking.py) is left out: there a text that was like the other was
drawn anew, so that it says nothing of how often the two are even.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Length

from annotation.asking import ACROSS, selector_of
from annotation.models import (
    AnnotatorKind,
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
from annotation.services.meetings import PEOPLE, meetings_of, player_of
from annotation.standings import Battle
from annotation.trials import Trial, in_turn

OF_THE_MIX = [selector_of(one, matched=False) for one in ACROSS]
HUMAN = (AnnotatorKind.PERSON, AnnotatorKind.OUTSIDE)


def battles_of(project: Project, split: str = Split.DEV) -> tuple[list[Battle], list[Trial]]:
    """All battles of the project's evaluation on a split, and its trials in the order they came.

    A player is a version by its name and id, an outside writer by name, or PEOPLE. What needs no
    answer counts once its turn among the answers of its job has come, in both.
    """
    writers = _writers(project, split)
    meetings = meetings_of(project, split)
    met_in = {texts: meeting for meeting in meetings for texts in meeting.asked}
    answered: dict[int, list[Trial]] = defaultdict(list)
    battles: list[Battle] = []
    trials: list[Trial] = []
    for comparison, votes in _by_comparison(project, split):
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
    return battles, sorted(trials, key=lambda trial: trial.at)


def votes_between(
    project: Project, one: str, other: str = "", split: str = Split.DEV
) -> QuerySet[Preference]:
    """Answers in which one player met the other, or anybody where no other is named."""
    writers = _writers(project, split)
    wanted = []
    for comparison, shown in _shown(project, split).items():
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


def _by_comparison(
    project: Project, split: str
) -> Iterator[tuple[Facts, list[tuple[int, dict[int, int]]]]]:
    """Of each comparison its facts and (annotator, completion -> place) of each valid answer.

    The first axis speaks: both bad there is a tie, and who cannot tell there says nothing.
    """
    answers = (
        Preference.objects.valid()
        .filter(
            project=project,
            annotator__kind__in=HUMAN,
            comparison__purpose=Purpose.EVALUATION,
            comparison__prompt__split=split,
        )
        .exclude(comparison__selector__in=OF_THE_MIX)
        .order_by("comparison_id", "pk", "rankings__pk")
        .values_list(
            "comparison_id",
            "pk",
            "created_at",
            "annotator_id",
            "rankings__outcome",
            "rankings__groups",
            "comparison__prompt__split_group",
            "comparison__propensity",
        )
    )
    texts, shown = _lengths(project, split), _shown(project, split)
    votes: dict[int, list[tuple[int, dict[int, int]]]] = defaultdict(list)
    facts: dict[int, tuple[str, float | None, datetime]] = {}
    read: set[int] = set()
    for comparison, pk, at, annotator, outcome, groups, group, propensity in answers.iterator():
        if pk in read:
            continue
        read.add(pk)
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
        yield (group, propensity, frozenset(shown[comparison]), texts, first), found


def _shown(project: Project, split: str) -> dict[int, list[int]]:
    """The completions of each comparison that may count."""
    found: dict[int, list[int]] = defaultdict(list)
    rows = _entries(project, split).values_list("comparison_id", "completion_id")
    for comparison, completion in rows.iterator():
        found[comparison].append(completion)
    return found


def _entries(project: Project, split: str) -> QuerySet[ComparisonCompletion]:
    return ComparisonCompletion.objects.filter(
        comparison__project=project,
        comparison__purpose=Purpose.EVALUATION,
        comparison__prompt__split=split,
    )


def _lengths(project: Project, split: str) -> dict[int, int]:
    """Characters of the completions that are compared."""
    rows = _entries(project, split).values_list("completion_id", Length("completion__text"))
    return dict(rows.iterator())


def _writers(project: Project, split: str) -> dict[int, list[str]]:
    """Who wrote each completion that is compared."""
    rows = (
        Generation.objects.filter(
            completion__in=_entries(project, split).values("completion").order_by()
        )
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
