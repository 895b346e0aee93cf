"""What a comparison's answers ask of the scores: the targets of each loss, with their weights.

Whatever the loss, the weights of one comparison sum to 1: each vote shares its own weight equally
among what it says, so neither K nor the number of votes makes a comparison count for more.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from policy.comparisons import Comparison, PairTable, Vote
from policy.judgments import Judgment
from rewardmodel.config import RewardConfig
from rewardmodel.losses import NOBODY
from rewardmodel.strength import Strengths
from rewardmodel.survey import Survey, log_lengths


class Pair(NamedTuple):
    """Answers on two completions that are worth the same.

    target: the share that puts `first` above `second`, and half of those that tie them. ties: the
    share that ties them. confidence and margin: as in `losses.softened` and `losses.pair_nats`.
    """

    first: int
    second: int
    target: float
    ties: float
    weight: float
    confidence: float = 1.0
    margin: float = 0.0


class Choice(NamedTuple):
    """The winner was put above all other contestants, which are in no order here."""

    winner: int
    contestants: tuple[int, ...]
    weight: float


class Judged(NamedTuple):
    """A completion was given a level, from 0, of the scale with this number."""

    completion: int
    scale: int
    level: int
    weight: float


@dataclass(frozen=True, slots=True)
class Targets:
    """Of one comparison. pairs of Plackett-Luce are for figures and centring alone."""

    pairs: tuple[Pair, ...] = ()
    choices: tuple[Choice, ...] = ()
    judged: tuple[Judged, ...] = ()
    lengths: tuple[float, ...] = ()
    """Of each completion, where length is learned apart."""

    @classmethod
    def of_axes(cls, targets: Sequence["Targets"]) -> "Targets":
        """Those of one comparison's A axes as one, over (N x A) scores as in `PairTable.of_axes`;
        the axes that were answered share the weight equally."""
        num_axes, answered = len(targets), sum(map(bool, targets))
        parts = list(enumerate(targets))
        return cls(
            pairs=tuple(
                one._replace(
                    first=one.first * num_axes + axis,
                    second=one.second * num_axes + axis,
                    weight=one.weight / answered,
                )
                for axis, each in parts
                for one in each.pairs
            ),
            choices=tuple(
                Choice(
                    one.winner * num_axes + axis,
                    tuple(at * num_axes + axis for at in one.contestants),
                    one.weight / answered,
                )
                for axis, each in parts
                for one in each.choices
            ),
            judged=tuple(
                one._replace(
                    completion=one.completion * num_axes + axis, weight=one.weight / answered
                )
                for axis, each in parts
                for one in each.judged
            ),
            lengths=tuple(length for length in targets[0].lengths for _ in targets),
        )

    def __bool__(self) -> bool:
        return bool(self.pairs or self.judged)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRule:
    """How answers become targets; see RewardConfig for the first three."""

    loss: str = "bradley_terry"
    strength: str = "ignore"
    strength_margin: float = 1.0
    strengths: Strengths | None = None
    scales: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Ratings that are learned, each with its lowest and highest level."""
    axes: tuple[str, ...] = ()
    """Each learned by a head of its own; with none, one head learns all votes."""
    length_unit: float | None = None
    """Of log length, where it is learned apart."""

    @classmethod
    def of(cls, config: RewardConfig, survey: Survey) -> "TargetRule":
        return cls(
            loss=config.loss,
            strength=config.strength,
            strength_margin=config.strength_margin,
            strengths=survey.strengths.fitted(),
            scales=survey.scales(config.rating) if config.pointwise_weight else {},
            axes=tuple(config.axes or ()),
            length_unit=survey.length_unit if config.length_head else None,
        )

    @property
    def num_heads(self) -> int:
        """Scores of each completion."""
        return max(1, len(self.axes))

    def table(self, comparison: Comparison) -> PairTable:
        """The strict pairs, for figures, over the same scores as the targets."""
        if not self.axes:
            return comparison.table
        return PairTable.of_axes([comparison.on(axis).table for axis in self.axes])

    def targets(self, comparison: Comparison) -> Targets:
        if not self.axes:
            return self._targets(comparison)
        return Targets.of_axes([self._targets(comparison.on(axis)) for axis in self.axes])

    def _targets(self, comparison: Comparison) -> Targets:
        votes = comparison.votes
        return Targets(
            pairs=() if self.loss == "pointwise" else tuple(self._pairs(votes)),
            choices=tuple(_choices(votes)) if self.loss == "plackett_luce" else (),
            judged=tuple(self._judged(comparison.judgments)),
            lengths=tuple(each / self.length_unit for each in log_lengths(comparison.texts))
            if self.length_unit
            else (),
        )

    def without_strength(self) -> "TargetRule":
        """For measuring: an answer is an answer, however strong."""
        return replace(self, strength="ignore")

    def figures(self) -> dict[str, float]:
        """What was fitted, for the log: a confidence, and the answers behind it, per strength."""
        found: dict[str, float] = {}
        if self.strength == "soft" and self.strengths is not None:
            for level, confidence in self.strengths.confidences.items():
                found[f"strength_{level:g}_confidence"] = confidence
                found[f"strength_{level:g}_answers"] = self.strengths.num_answers[level]
        return found

    def _pairs(self, votes: Sequence[Vote]) -> Iterator[Pair]:
        """One for each two completions, confidence and margin; with a margin the better is first.

        A vote's ties are answers of Davidson's model, and nothing for the others.
        """
        told = [(vote, vote.strict_pairs(), self._ties(vote)) for vote in votes]
        opinions = [(vote, strict, ties) for vote, strict, ties in told if strict or ties]
        total = sum(vote.weight for vote, _, _ in opinions)
        mass: dict[tuple[int, int, float, float], float] = defaultdict(float)
        for_first: dict[tuple[int, int, float, float], float] = defaultdict(float)
        tied: dict[tuple[int, int, float, float], float] = defaultdict(float)
        for vote, strict, ties in opinions:
            share = vote.weight / total / (len(strict) + len(ties))
            for better, worse in strict:
                confidence, margin = self._worth(vote, better, worse)
                turned = better > worse and not margin
                first, second = (worse, better) if turned else (better, worse)
                key = (first, second, confidence, margin)
                mass[key] += share
                for_first[key] += 0.0 if turned else share
            for first, second in ties:
                key = (first, second, 1.0, 0.0)
                mass[key] += share
                tied[key] += share
        for key in sorted(mass):
            first, second, confidence, margin = key
            yield Pair(
                first,
                second,
                target=(for_first[key] + tied[key] / 2) / mass[key],
                ties=tied[key] / mass[key],
                weight=mass[key],
                confidence=confidence,
                margin=margin,
            )

    def _ties(self, vote: Vote) -> list[tuple[int, int]]:
        return vote.tied_pairs() if self.loss == "davidson" else []

    def _worth(self, vote: Vote, better: int, worse: int) -> tuple[float, float]:
        """(confidence, margin) of one strict pair; a vote without strengths is worth (1, 0)."""
        if self.strength == "ignore" or self.strengths is None or not vote.strengths:
            return 1.0, 0.0
        places = vote.places()
        levels = vote.strengths[places[better] : places[worse]]
        if self.strength == "soft":
            return self.strengths.confidence(levels), 0.0
        return 1.0, self.strength_margin * self.strengths.margin(levels)

    def _judged(self, judgments: Sequence[Judgment]) -> Iterator[Judged]:
        kept = [one for one in judgments if one.name in self.scales]
        total = sum(one.weight for one in kept)
        names = list(self.scales)
        mass: dict[tuple[int, int, int], float] = defaultdict(float)
        for one in kept:
            low, high = self.scales[one.name]
            level = min(high, max(low, one.level)) - low
            mass[one.completion, names.index(one.name), level] += one.weight / total
        for key in sorted(mass):
            yield Judged(*key, weight=mass[key])


PLAIN = TargetRule()
"""Bradley-Terry on votes as they are."""


def _choices(votes: Sequence[Vote]) -> Iterator[Choice]:
    """Each ranking as one choice after the other, from the top.

    Completions that are tied were each chosen from themselves and what stands lower, and say
    nothing of each other; what was not ranked took no part. The last group chose from nothing.
    """
    decided = [vote for vote in votes if len(vote.ranking) > 1]
    total = sum(vote.weight for vote in decided)
    mass: dict[tuple[int, tuple[int, ...]], float] = defaultdict(float)
    for vote in decided:
        winners = [(place, one) for place, group in enumerate(vote.ranking[:-1]) for one in group]
        for place, winner in winners:
            lower = [index for group in vote.ranking[place + 1 :] for index in group]
            mass[winner, (winner, *sorted(lower))] += vote.weight / total / len(winners)
    for winner, contestants in sorted(mass):
        yield Choice(winner, contestants, mass[winner, contestants])


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Targets of several comparisons, their completions counted through: indices into (N,) scores.

    Axes as in losses.py. Weights hold the weight of the comparison too.
    """

    pairs: Tensor  # (P, 2)
    targets: Tensor  # (P,)
    ties: Tensor  # (P,)
    weights: Tensor  # (P,)
    confidences: Tensor  # (P,)
    margins: Tensor  # (P,)
    winners: Tensor  # (Q,)
    contestants: Tensor  # (Q, M)
    choice_weights: Tensor  # (Q,)
    judged: Tensor  # (J,) completions
    scales: Tensor  # (J,)
    levels: Tensor  # (J,)
    judged_weights: Tensor  # (J,)
    lengths: Tensor  # (N,), or none

    @classmethod
    def of(
        cls,
        targets: Sequence[Targets],
        starts: Sequence[int],
        weights: Sequence[float],
        device: str | torch.device = "cpu",
    ) -> "TargetBatch":
        """starts: the index of each comparison's first completion; weights: of each comparison."""
        parts = list(zip(targets, starts, weights, strict=True))
        pairs = [(one, start, weight) for each, start, weight in parts for one in each.pairs]
        choices = [(one, start, weight) for each, start, weight in parts for one in each.choices]
        judged = [(one, start, weight) for each, start, weight in parts for one in each.judged]
        widest = max((len(one.contestants) for one, _, _ in choices), default=0)

        def numbers(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        def indices(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return cls(
            pairs=indices(
                [at + start for one, start, _ in pairs for at in (one.first, one.second)]
            ).view(-1, 2),
            targets=numbers([one.target for one, _, _ in pairs]),
            ties=numbers([one.ties for one, _, _ in pairs]),
            weights=numbers([one.weight * weight for one, _, weight in pairs]),
            confidences=numbers([one.confidence for one, _, _ in pairs]),
            margins=numbers([one.margin for one, _, _ in pairs]),
            winners=indices([one.winner + start for one, start, _ in choices]),
            contestants=indices(
                [
                    one.contestants[at] + start if at < len(one.contestants) else NOBODY
                    for one, start, _ in choices
                    for at in range(widest)
                ]
            ).view(len(choices), widest),
            choice_weights=numbers([one.weight * weight for one, _, weight in choices]),
            judged=indices([one.completion + start for one, start, _ in judged]),
            scales=indices([one.scale for one, _, _ in judged]),
            levels=indices([one.level for one, _, _ in judged]),
            judged_weights=numbers([one.weight * weight for one, _, weight in judged]),
            lengths=numbers([length for each in targets for length in each.lengths]),
        )
