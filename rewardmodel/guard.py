"""What a reward model's step that is not finite was made from (policy/guard.py)."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from rewardmodel.batches import Example
from rewardmodel.forward import Forward


@torch.no_grad()
def comparisons_of(batch: Sequence[Example], forward: Forward) -> dict[str, Any]:
    """The comparisons with their scores, each by itself; a score that is not finite is null."""
    comparisons: list[dict[str, Any]] = []
    for example in batch:
        (alone,) = forward.batches([example])
        scores = forward.scores(alone).tolist()
        finite = [score if math.isfinite(score) else None for score in scores]
        comparisons.append({"id": example.id, "scores": finite})
    return {"comparisons": comparisons}
