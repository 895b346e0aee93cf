"""How strongly a vote prefers, and what that is worth: a margin, or a softer target.

A strength is a level on a gap between neighbouring groups of a ranking, 1 the weakest. Two
completions with several gaps between them are as far apart as their gaps together, in log-odds,
which is what scores are differences of.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.optimize import isotonic_regression

from policy.comparisons import Comparison, Vote

PRIOR_ANSWERS = 10.0
"""What the guess before the data counts for, in answers of a second annotator."""
LEAST, MOST = 0.5, 0.99
"""A vote's target is never below even, and never so sure that a few gaps make it certain."""


@dataclass(frozen=True, slots=True)
class Strengths:
    """What each level of strength of a file is worth.

    num_levels: the highest. confidences: level -> how likely a second annotator prefers the same.
    num_answers: level -> answers of second annotators that this was fitted on; the rest is guessed.
    """

    num_levels: float
    confidences: dict[float, float]
    num_answers: dict[float, float]

    def margin(self, levels: Iterable[float]) -> float:
        """From 0 for the weakest level to 1 for the strongest, over the gaps between two.

        Four levels are Llama 2's 0, 1/3, 2/3, 1 (arXiv:2307.09288, table 27, "small").
        """
        steps = self.num_levels - 1
        return sum((level - 1) / steps for level in levels) if steps else 0.0

    def confidence(self, levels: Iterable[float]) -> float:
        """How likely another annotator orders two completions with these gaps the same way."""
        log_odds = sum(_logit(self.confidences[level]) for level in levels)
        return 1 / (1 + math.exp(-log_odds))


def guessed_confidence(level: float, num_levels: float) -> float:
    """Before any data: evenly from one half to certain; three levels have 5/8, 6/8, 7/8."""
    return 0.5 + 0.5 * level / (num_levels + 1)


class StrengthCount:
    """Second annotators' answers, gathered over a file. Levels and who agreed with what."""

    def __init__(self) -> None:
        self.num_levels = 0.0
        self.answers: dict[float, float] = defaultdict(float)
        self.agreed: dict[float, float] = defaultdict(float)

    def add(self, comparison: Comparison) -> None:
        """Hold every graded gap of each vote against the other annotators' votes on its axis.

        The same order counts 1, a tie one half, the opposite 0; what a vote does not rank, nothing.
        """
        for vote in comparison.votes:
            if vote.strengths:
                top = max(vote.strengths)
                self.num_levels = max(self.num_levels, vote.strength_levels or top, top)
                others = [
                    other
                    for other in comparison.votes
                    if other is not vote
                    and other.axis == vote.axis
                    and (other.annotator is None or other.annotator != vote.annotator)
                ]
                self._hold_against(vote, others)

    def _hold_against(self, vote: Vote, others: Sequence[Vote]) -> None:
        places = [other.places() for other in others]
        for gap, level in enumerate(vote.strengths):
            self.answers[level] += 0.0  # a level that is seen is guessed where nobody answers
            for better in vote.ranking[gap]:
                for worse in vote.ranking[gap + 1]:
                    for place in places:
                        if better in place and worse in place:
                            ahead = place[worse] - place[better]
                            self.answers[level] += 1
                            self.agreed[level] += 1.0 if ahead > 0 else 0.5 if ahead == 0 else 0.0

    def fitted(self) -> Strengths:
        """Shares of agreement, drawn to the guess by PRIOR_ANSWERS, and rising with the level
        (the nearest rising values by least squares, each level by its answers)."""
        levels = sorted(self.answers)
        if not levels:
            return Strengths(0.0, {}, {})
        counts = [self.answers[level] + PRIOR_ANSWERS for level in levels]
        guesses = [guessed_confidence(level, self.num_levels) for level in levels]
        shares = [
            (self.agreed[level] + PRIOR_ANSWERS * guess) / count
            for level, guess, count in zip(levels, guesses, counts, strict=True)
        ]
        rising = isotonic_regression(shares, weights=counts).x
        return Strengths(
            num_levels=self.num_levels,
            confidences={
                level: min(MOST, max(LEAST, float(share)))
                for level, share in zip(levels, rising, strict=True)
            },
            num_answers={level: self.answers[level] for level in levels},
        )


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
