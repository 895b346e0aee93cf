"""Where a reward model and people part: comparisons whose votes and scores point apart, by how far.

Of each two completions of a comparison, on one axis: the net share of its votes is (those that put
the first above - those that put it below) / those that place both, ties among these. A comparison
parts by net share x score margin, where the model prefers the other one; of a list the two count
that part most. So three of three against a margin of 1.5 are 1.5, and two of three are 0.5. Scores
are in deviations of the model's anchors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from annotation.funnel import NEVER_USED
from annotation.models import (
    ComparisonCompletion,
    Completion,
    ModelVersion,
    Preference,
    Project,
    Ranking,
    Split,
)
from annotation.models.comparisons import PreferenceQuerySet
from annotation.services import search
from annotation.services.quality import MOST_ANSWERS, PEOPLE, rankings_of
from annotation.services.scores import known_scores
from annotation.services.search import Wanted

Two = tuple[int, int]
"""Completions of one comparison, the lower id first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parting:
    """One comparison on one axis."""

    comparison: int
    axis: str
    by_people: int
    """The completion of the two that most votes put above."""
    by_model: int
    """The one of the higher score."""
    for_people: int
    """Votes that put the first above."""
    against: int
    votes: int
    """That place both, with ties."""
    score_by_people: float
    score_by_model: float

    @property
    def margin(self) -> float:
        """In deviations of the anchors; above 0."""
        return self.score_by_model - self.score_by_people

    @property
    def size(self) -> float:
        """How far votes and scores part."""
        return (self.for_people - self.against) / self.votes * self.margin


@dataclass(frozen=True, slots=True)
class Partings:
    """What was found, the farthest apart first."""

    found: list[Parting]
    num_compared: int
    """Comparisons that have votes and scores."""
    there_are_more: bool
    """Votes than were read."""


def partings(
    project: Project,
    reward: ModelVersion,
    *,
    kinds: Iterable[str] = PEOPLE,
    wanted: Wanted | None = None,
    least_votes: int = 1,
) -> Partings:
    """Of the newest valid votes that fit. Test prompts are left out, whatever is wanted: what a
    model says of them stays sealed. Raises BadInput as services.search.found does."""
    votes = (
        Preference.objects.valid()
        .filter(project=project, annotator__kind__in=list(kinds), comparison__repeat_of=None)
        .exclude(comparison__purpose__in=NEVER_USED)
        .exclude(comparison__prompt__split=Split.TEST)
    )
    if wanted is not None:
        votes = _narrowed(project, votes, wanted)
    newest = list(votes.order_by("-pk").values_list("pk", flat=True)[: MOST_ANSWERS + 1])
    if not newest:
        return Partings([], 0, False)
    votes = votes.filter(pk__gte=newest[:MOST_ANSWERS][-1])
    said: dict[tuple[int, str], list[list[list[int]]]] = defaultdict(list)
    rankings = Ranking.objects.filter(preference__in=votes)
    for axis, unit, groups, _shown in rankings_of(rankings, "axis", "preference__comparison_id"):
        if groups:
            said[unit, axis].append(groups)
    placed = {
        pk for rankings in said.values() for groups in rankings for group in groups for pk in group
    }
    scores = known_scores(reward, placed)
    found, compared = [], set()
    for (unit, axis), rankings_said in said.items():
        if parts := _parted(unit, axis, rankings_said, scores):
            compared.add(unit)
            worst = max(parts, key=lambda one: (one.size, one.votes))
            if worst.size > 0 and worst.votes >= least_votes:
                found.append(worst)
    found.sort(key=lambda one: (-one.size, -one.votes, -one.comparison, one.axis))
    return Partings(found, len(compared), len(newest) > MOST_ANSWERS)


def _narrowed(project: Project, votes: PreferenceQuerySet, wanted: Wanted) -> PreferenceQuerySet:
    """What a vote's comparison says itself is asked of it; only the rest needs a search, which
    reads every comparison that fits."""
    if wanted.language:
        votes = votes.filter(comparison__language=wanted.language)
    if wanted.split:
        votes = votes.filter(comparison__prompt__split=wanted.split)
    if wanted.version is not None:
        wrote = ComparisonCompletion.objects.filter(
            completion__generations__model_version=wanted.version
        )
        votes = votes.filter(comparison__in=wrote.values("comparison"))
    rest = replace(wanted, language="", split="", version=None)
    if rest != Wanted():
        fitting = search.found(project, rest).order_by().values("pk")
        votes = votes.filter(comparison__in=fitting)
    return votes


def _parted(
    unit: int, axis: str, said: Sequence[list[list[int]]], scores: Mapping[int, float]
) -> list[Parting]:
    """Every two of a comparison that votes place and the model has scored, people's choice first;
    of two that people are even on, the one with the lower id."""
    above: dict[Two, list[int]] = defaultdict(lambda: [0, 0, 0])  # first, second, equal
    for groups in said:
        places = {pk: place for place, group in enumerate(groups) for pk in group if pk in scores}
        ranked = sorted(places)
        for number, one in enumerate(ranked):
            for other in ranked[number + 1 :]:
                gap = places[other] - places[one]
                above[one, other][0 if gap > 0 else 1 if gap < 0 else 2] += 1
    parts = []
    for (one, other), (first, second, equal) in above.items():
        winner, loser = (one, other) if first >= second else (other, one)
        most, least = max(first, second), min(first, second)
        parts.append(
            Parting(
                comparison=unit,
                axis=axis,
                by_people=winner,
                by_model=loser,
                for_people=most,
                against=least,
                votes=first + second + equal,
                score_by_people=scores[winner],
                score_by_model=scores[loser],
            )
        )
    return parts


def texts_of(found: Iterable[Parting]) -> dict[int, str]:
    """Completion -> text, of both sides of each."""
    ids = {pk for one in found for pk in (one.by_people, one.by_model)}
    return dict(Completion.objects.filter(pk__in=ids).values_list("pk", "text"))
