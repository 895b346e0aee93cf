"""Differences between two models, as the gates need them."""

from collections.abc import Sequence

from policy.intervals import Mean, bootstrap_mean
from rewardmodel.bootstrap import PairRow


def paired_difference(new: Sequence[PairRow], old: Sequence[PairRow], figure: str) -> Mean:
    """Mean of new - old, by groups of which both models scored as many comparisons."""
    return bootstrap_mean(paired_rows(new, old, figure))


def paired_rows(
    new: Sequence[PairRow], old: Sequence[PairRow], figure: str
) -> list[tuple[str, float, float]]:
    """(group, new - old, weight) of the groups of which both scored as many comparisons."""
    sums = {"new": _group_sums(new, figure), "old": _group_sums(old, figure)}
    both = [
        group
        for group, (_, weight) in sums["new"].items()
        if group in sums["old"] and sums["old"][group][1] == weight
    ]
    rows = []
    for group in both:
        (total, weight), (old_total, _) = sums["new"][group], sums["old"][group]
        rows.append((group, (total - old_total) / weight, weight))
    return rows


def _group_sums(rows: Sequence[PairRow], figure: str) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for row in rows:
        total, weight = sums.get(row.group, (0.0, 0.0))
        sums[row.group] = (total + row.weight * getattr(row, figure), weight + row.weight)
    return sums


def weighted_mean(rows: Sequence[PairRow], figure: str) -> float | None:
    """Of one figure of the rows; None where there is no row."""
    weight = sum(row.weight for row in rows)
    return sum(row.weight * getattr(row, figure) for row in rows) / weight if rows else None
