"""Does a completion's score depend on what it is scored beside?

It must not: PPO would be paid for its neighbours, and no figure could be had again. A model whose
padding leaks into its scores (a wrong pad token, a mask that is not passed on, statistics over the
batch) shows it here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from policy.scoring import Scorer

IN_ONE_BATCH = 10**9
"""Padded tokens: all rows at once, the short ones padded to the longest."""


@dataclass(frozen=True, slots=True)
class Invariance:
    """largest_difference: |score in a batch - score alone| / max(1, |score alone|), the largest of
    all completions and batches, in units of the score's own deviation; 0 without a completion."""

    num_completions: int
    largest_difference: float


def invariance_of(scorer: Scorer, rows: Sequence[Sequence[int]]) -> Invariance:
    """Scores of rows of ids, each alone, against those in three batches: all rows as they come, all
    in one batch, and every second one, with which neighbours and padding change. A score that is
    no number differs by more than any other."""
    alone = [scorer.score_ids([row])[0] for row in rows]
    batches = (
        (alone, scorer.score_ids(rows)),
        (alone, scorer.score_ids(rows, IN_ONE_BATCH)),
        (alone[::2], scorer.score_ids(rows[::2])),
    )
    apart = [
        abs(one - other) / max(1.0, abs(one))
        for own, found in batches
        for one, other in zip(own, found, strict=True)
    ]
    largest = max(
        (difference if difference == difference else float("inf") for difference in apart),
        default=0.0,
    )
    return Invariance(len(rows), largest)
