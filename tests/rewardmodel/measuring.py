"""Models measured on comparisons, as tests want it."""

from collections.abc import Iterable
from pathlib import Path

from policy.comparisons import Comparison
from policy.scoring import Scorer, load_scorer
from rewardmodel.bootstrap import PairRow
from rewardmodel.evaluate import Evaluation


def evaluate_pairs(model: str | Path | Scorer, comparisons: Iterable[Comparison]) -> list[PairRow]:
    """One row per comparison that counts, in order."""
    scorer = model if isinstance(model, Scorer) else load_scorer(model)
    return Evaluation.of(scorer, comparisons).rows
