"""Means over comparisons with an interval that draws their groups.

A percentile bootstrap: groups (a row's `group`, else its prompt) are drawn with replacement, for
answers to one prompt are not independent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NUM_RESAMPLES = 2000
INTERVAL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Groups drawn together in the bootstrap: bounds memory."""


class PairRow(NamedTuple):
    """One comparison's share of the figures: what two models are compared on, group by group."""

    group: str
    log_loss: float
    """Nats, the mean over the comparison's votes."""
    correct: float
    """In [0, 1], the mean over the comparison's votes."""
    weight: float
    """1: each comparison counts once."""


def bootstrap(
    rows: Sequence[PairRow], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Weighted means of log_loss and correct, and their percentile intervals over groups; None
    where there is nothing to take them of."""
    names = ("log_loss", "correct")
    if not rows:
        return dict.fromkeys(names), dict.fromkeys(names)
    sums = group_sums(rows)  # (G, 3): weighted log loss, weighted correct, weight
    total = sums.sum(0)
    means: dict[str, float | None] = {
        name: (total[at] / total[2]).item() for at, name in enumerate(names)
    }
    if len(sums) < 2:
        return means, dict.fromkeys(names)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    at_once = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, num_resamples, at_once):
        shape = (min(at_once, num_resamples - start), len(sums))
        resample = sums[torch.randint(len(sums), shape, generator=generator)].sum(1)  # (R, 3)
        drawn.append(resample[:, :2] / resample[:, 2:])
    tails = torch.tensor([(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], dtype=torch.float64)
    ends = torch.quantile(torch.cat(drawn), tails, dim=0)  # (2, 2)
    return means, {name: ends[:, at].tolist() for at, name in enumerate(names)}


def group_sums(rows: Sequence[PairRow]) -> Tensor:
    """(G, 3) float64, one line per group in order of appearance."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        entry = sums.setdefault(row.group, [0.0, 0.0, 0.0])
        entry[0] += row.weight * row.log_loss
        entry[1] += row.weight * row.correct
        entry[2] += row.weight
    return torch.tensor(list(sums.values()), dtype=torch.float64)
