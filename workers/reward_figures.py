"""What else a gate asks of a reward model: calibration, length bias, and batch invariance.

The last refuses: a score that its neighbours move is no score. The others warn at a plain 95 %, for
neither is the model's alone: certainty is mended by the temperature that it carries, and people may
have reasons to prefer what is longer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotation import verdicts
from policy.comparisons import Comparison
from policy.intervals import Mean, bootstrap_mean
from policy.scoring import load_scorer
from rewardmodel.bootstrap import PairRow
from rewardmodel.calibration import (
    AGAINST,
    TOO_MODEST,
    TOO_SURE,
    Slope,
    reliability,
    reliability_slope,
)
from rewardmodel.evaluate import Evaluation
from rewardmodel.invariance import Invariance, invariance_of
from rewardmodel.length_bias import LengthBias
from workers.verdict import Verdict

MOST_BATCH_DIFFERENCE = 1e-3
"""In deviations of the score; in fp32 a sound model's differ by some 1e-6."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One reward model on the dev comparisons of a gate."""

    evaluation: Evaluation
    batches: Invariance

    @classmethod
    def of(cls, directory: Path, comparisons: Sequence[Comparison]) -> "Seen":
        scorer = load_scorer(directory)
        evaluation = Evaluation.of(scorer, comparisons)
        return cls(evaluation, invariance_of(scorer, evaluation.probed))

    @property
    def rows(self) -> list[PairRow]:
        return self.evaluation.rows

    def is_finite(self) -> bool:
        """Whether each of its scores is a number."""
        scores = (score for judged in self.evaluation.judged for score in judged.scores)
        return math.isfinite(self.batches.largest_difference) and all(map(math.isfinite, scores))

    def slope(self) -> Slope | None:
        pairs = self.evaluation.log_odds()
        return reliability_slope(pairs, self.evaluation.pair_groups()) if pairs else None

    def calibration(self) -> dict[str, Any] | None:
        """Its certainty at temperature 1, as the log loss has it."""
        slope = self.slope()
        if slope is None:
            return None
        return {"ece": reliability(self.evaluation.log_odds()).ece, **slope.as_json()}

    def length(self) -> dict[str, Any] | None:
        """How it follows length, beside the people's own."""
        bias = LengthBias.of(self.evaluation)
        figures = bias.figures()
        if not figures:
            return None
        return {**figures, "excess": bootstrap_mean(bias.rows()).as_json()}


def examined(verdict: Verdict, new: Seen, old: Seen | None = None) -> Verdict:
    """A verdict with these figures among its numbers, of both models where there are two, and with
    what they warn of; refused where scores depend on the batch, or are no numbers."""
    numbers = {
        **verdict.numbers,
        "batch_difference": new.batches.largest_difference,
        "batch_difference_allowed": MOST_BATCH_DIFFERENCE,
        "calibration": {"new": new.calibration()} | ({"old": old.calibration()} if old else {}),
        "length_bias": {"new": new.length()} | ({"old": old.length()} if old else {}),
    }
    verdict = replace(verdict, numbers=numbers, warnings=_warnings(new))
    if not new.is_finite():
        return replace(verdict, passed=False, verdict="failed", why=verdicts.NO_NUMBERS)
    if new.batches.largest_difference <= MOST_BATCH_DIFFERENCE:
        return verdict
    why = verdicts.BATCHES_DIFFER % {
        "difference": f"{new.batches.largest_difference:.1e}",
        "allowed": f"{MOST_BATCH_DIFFERENCE:.0e}",
    }
    return replace(verdict, passed=False, verdict="failed", why=why)


def _warnings(seen: Seen) -> list[str]:
    found = []
    slope = seen.slope()
    if slope is not None and slope.finding:
        within, at_the_end = CERTAINTY[slope.finding]
        low, high = slope.interval or (math.nan, math.nan)
        found.append(
            (within if slope.interval else at_the_end)
            % {"slope": f"{slope.slope:.2f}", "low": f"{low:.2f}", "high": f"{high:.2f}"}
        )
    bias = LengthBias.of(seen.evaluation)
    excess: Mean = bootstrap_mean(bias.rows())
    if excess.lies_above(0.0):
        figures = bias.figures()
        found.append(
            verdicts.FOLLOWS_LENGTH
            % {
                "expected": f"{figures['longer_expected']:.1%}",
                "preferred": f"{figures['longer_preferred']:.1%}",
                "excess": excess,
            }
        )
    return found


CERTAINTY = {
    TOO_SURE: (verdicts.TOO_SURE, verdicts.FAR_TOO_SURE),
    TOO_MODEST: (verdicts.TOO_MODEST, verdicts.FAR_TOO_MODEST),
    AGAINST: (verdicts.AGAINST_THE_VOTES, verdicts.AGAINST_THE_VOTES),
}
"""(sentence with an interval, sentence where the slope lies at the end of what is searched)."""
