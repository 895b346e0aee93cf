"""Does a model follow length more than the people whose votes it learned from?

A pair's length margin is the log ratio of the two texts' characters; its score margin the log odds
that the model gives the first over the second; people's margin 2 x share - 1. Pairs have no
direction of their own, so that means are 0 by themselves and correlations are about 0. Correlations
of scores and of votes cannot be held against each other, for single votes are noisy and scores are
not; what can is how often the longer text wins: by the votes, and as the model expects it. Pairs
of one length say nothing and are left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rewardmodel.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class LongerPair:
    """A pair of texts of two lengths, turned so that the longer one is the first."""

    group: str
    margin: float
    """Score margin, nats."""
    length: float
    """Length margin, above 0."""
    vote: float
    """Share of the votes for the longer one, of those that prefer one of the two."""
    weight: float

    @property
    def expected(self) -> float:
        """What the model takes the chance of the longer one to be, in [0, 1]."""
        return (1 + math.tanh(self.margin / 2)) / 2

    @property
    def excess(self) -> float:
        return self.expected - self.vote


@dataclass(frozen=True, slots=True)
class LengthBias:
    """The pairs of one evaluation."""

    pairs: tuple[LongerPair, ...]

    @classmethod
    def of(cls, evaluation: Evaluation) -> "LengthBias":
        return cls(tuple(_longer_first(evaluation)))

    def correlation(self) -> float | None:
        """Of score margin and length margin, in [-1, 1]; None where one of them is 0 throughout."""
        return self._with_length([pair.margin for pair in self.pairs])

    def correlation_of_votes(self) -> float | None:
        """Of people's margin and length margin."""
        return self._with_length([2 * pair.vote - 1 for pair in self.pairs])

    def _with_length(self, margins: list[float]) -> float | None:
        both = zip(self.pairs, margins, strict=True)
        together = sum(pair.weight * pair.length * margin for pair, margin in both)
        own = sum(pair.weight * margin**2 for pair, margin in zip(self.pairs, margins, strict=True))
        size = math.sqrt(own * sum(pair.weight * pair.length**2 for pair in self.pairs))
        return together / size if size else None

    def rows(self) -> list[tuple[str, float, float]]:
        """(group, how much oftener the model expects the longer one to win than it did, weight)."""
        return [(pair.group, pair.excess, pair.weight) for pair in self.pairs]

    def figures(self) -> dict[str, Any]:
        """For the JSON of `evaluate` and the gates; {} without a pair."""
        if not self.pairs:
            return {}
        weight = sum(pair.weight for pair in self.pairs)
        return {
            "num_pairs": len(self.pairs),
            "correlation": self.correlation(),
            "correlation_of_votes": self.correlation_of_votes(),
            "longer_expected": sum(pair.weight * pair.expected for pair in self.pairs) / weight,
            "longer_preferred": sum(pair.weight * pair.vote for pair in self.pairs) / weight,
        }


def _longer_first(evaluation: Evaluation) -> Iterator[LongerPair]:
    for judged in evaluation.judged:
        for (i, j), target, weight in judged.pairs():
            length = math.log((judged.chars[i] + 1) / (judged.chars[j] + 1))
            if length == 0:
                continue
            margin = evaluation.scale.deviation * (judged.scores[i] - judged.scores[j])
            yield (
                LongerPair(judged.group, margin, length, target, weight)
                if length > 0
                else LongerPair(judged.group, -margin, -length, 1 - target, weight)
            )
