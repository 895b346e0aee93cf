"""Which way strict answers lean: to what was shown first, to the longer text; a model beside them.

The same answers as on the page of quality (services.quality.newest_answers), and the same measures
of them (annotation/quality.py), so that a figure that stands on both pages is one figure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.db.models.functions import Length

from annotation import quality
from annotation.intervals import Resampling, Statistic
from annotation.models import (
    ComparisonCompletion,
    Completion,
    ModelVersion,
    Outcome,
    Project,
    Ranking,
    Split,
)
from annotation.services.quality import (
    PEOPLE,
    RESAMPLES,
    newest_answers,
    rankings_of,
    strict_pair,
)
from annotation.services.scores import known_scores

RATIOS = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Characters of the longer text by those of the shorter one: where a bucket ends."""


@dataclass(frozen=True, slots=True)
class StrictAnswer:
    """One axis of one vote that puts a completion above another."""

    vote: int
    pseudonym: str
    group: str
    """Split group of its prompt."""
    split: str
    winner: int
    loser: int
    pair: quality.StrictPair

    @property
    def ratio(self) -> float:
        """Of the longer text to the shorter one, at least 1."""
        winner, loser = self.pair.winner_length, self.pair.loser_length
        return winner / max(loser, 1) if winner > loser else loser / max(winner, 1)


@dataclass(frozen=True, slots=True)
class StrictAnswers:
    """What was read."""

    answers: list[StrictAnswer]
    votes: int
    """First answers in all, ties and the like among them."""
    there_are_more: bool

    @property
    def one_of_each_vote(self) -> list[StrictAnswer]:
        """As quality.one_of_each_vote has it."""
        found: dict[int, StrictAnswer] = {}
        for one in self.answers:
            found.setdefault(one.vote, one)
        return list(found.values())

    @property
    def how(self) -> Resampling:
        """Groups and resamples of every interval."""
        return how_of(self.answers)


def how_of(answers: Iterable[StrictAnswer]) -> Resampling:
    """Intervals that draw the prompts' groups."""
    groups = {one.pair.unit: one.group for one in answers}
    return Resampling(groups=groups, resamples=RESAMPLES)


def strict_answers(
    project: Project, kinds: Iterable[str] = PEOPLE, *, with_lengths: bool = False
) -> StrictAnswers:
    """Those among the newest first answers that put something above something and were shown here
    or elsewhere in a known order, oldest first. Lengths are 0 where nobody asks for them."""
    found, num_votes, there_are_more = newest_answers(project, kinds)
    if not num_votes:
        return StrictAnswers([], 0, False)
    lengths: Mapping[int, int] = {}
    if with_lengths:
        shown = ComparisonCompletion.objects.filter(comparison__in=found.values("comparison"))
        texts = Completion.objects.filter(pk__in=shown.values("completion"))
        lengths = dict(texts.values_list("pk", Length("text")))
    answers = [
        StrictAnswer(
            vote=vote,
            pseudonym=pseudonym,
            group=group,
            split=split,
            winner=said[0][0],
            loser=said[-1][0],
            pair=strict_pair(unit=unit, who=who, groups=said, order=order, lengths=lengths),
        )
        for vote, unit, who, pseudonym, group, split, said, order in rankings_of(
            Ranking.objects.filter(preference__in=found, outcome=Outcome.RANKED),
            "preference_id",
            "preference__comparison_id",
            "preference__annotator_id",
            "preference__annotator__pseudonym",
            "preference__comparison__prompt__split_group",
            "preference__comparison__prompt__split",
        )
        if order
    ]
    return StrictAnswers(answers, num_votes, there_are_more)


def first_shares(found: StrictAnswers) -> Iterator[tuple[str, int, Statistic]]:
    """(pseudonym, votes that what was shown first won, share) by how many votes there are; the
    first line, without a name, is everybody's."""
    if not found.answers:
        return
    pairs = [one.pair for one in found.one_of_each_vote]
    yield "", sum(pair.first_won for pair in pairs), quality.first_bias(pairs, found.how)
    names = {one.pair.annotator: one.pseudonym for one in found.answers}
    won = dict.fromkeys(names, 0)
    for pair in pairs:
        won[pair.annotator] += pair.first_won
    biases = quality.position_bias(pairs)
    for who in sorted(names, key=lambda who: (-biases[who].first_share.n, names[who])):
        yield names[who], won[who], biases[who].first_share


@dataclass(frozen=True, slots=True)
class LengthBucket:
    """Strict answers between texts of about the same ratio of lengths."""

    number: int
    low: float
    high: float | None
    people: Statistic
    """Answers that the longer text won."""
    scored: Statistic | None
    """Of people again, on the answers whose two texts have scores; None without a model."""
    model: Statistic | None
    """Of the same answers, how often the longer text has the higher score."""


def bucket_number(ratio: float) -> int:
    """Place of a ratio above 1 in RATIOS."""
    return sum(ratio >= end for end in RATIOS)


def by_length(found: StrictAnswers, scores: Mapping[int, float] | None) -> list[LengthBucket]:
    """Every bucket, those without an answer too; texts of the same length are in none. scores: of a
    reward model, by completion."""
    parts: list[list[StrictAnswer]] = [[] for _ in range(len(RATIOS) + 1)]
    for one in found.answers:
        if one.pair.winner_length != one.pair.loser_length:
            parts[bucket_number(one.ratio)].append(one)
    buckets = []
    for number, part in enumerate(parts):
        scored = model = None
        how = how_of(part)
        people = quality.length_bias((one.pair for one in part), how)
        if scores is not None:
            rated = [one for one in part if one.winner in scores and one.loser in scores]
            scored = people
            if len(rated) < len(part):
                scored = quality.length_bias((one.pair for one in rated), how)
            model = quality.length_bias(as_the_model_says(rated, scores), how)
        low = RATIOS[number - 1] if number else 1.0
        high = RATIOS[number] if number < len(RATIOS) else None
        buckets.append(LengthBucket(number, low, high, people, scored, model))
    return buckets


def as_the_model_says(
    answers: Sequence[StrictAnswer], scores: Mapping[int, float]
) -> Iterator[quality.StrictPair]:
    """The same questions, won by the completion of the higher score; equal scores say nothing."""
    for one in answers:
        pair = one.pair
        if scores[one.winner] > scores[one.loser]:
            yield pair
        elif scores[one.winner] < scores[one.loser]:
            yield quality.StrictPair(
                unit=pair.unit,
                annotator=pair.annotator,
                first_won=not pair.first_won,
                winner_length=pair.loser_length,
                loser_length=pair.winner_length,
            )


def scores_of(found: StrictAnswers, reward: ModelVersion) -> dict[int, float]:
    """Completion -> score, of what was voted on outside the test split, which stays sealed."""
    open_ones = [one for one in found.answers if one.split != Split.TEST]
    return known_scores(reward, {pk for one in open_ones for pk in (one.winner, one.loser)})
