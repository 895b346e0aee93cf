"""workers.statistics: differences against hand-made tables."""

import pytest

from rewardmodel.bootstrap import PairRow
from workers.statistics import paired_difference


def rows(*groups, log_loss=0.5):
    """(group, correct) pairs as PairRow."""
    return [PairRow(group, log_loss, correct, 1.0) for group, correct in groups]


def test_a_difference_is_paired_by_group_and_leaves_out_what_one_model_could_not_score():
    new = rows(("a", 1.0), ("a", 1.0), ("b", 0.0), ("c", 1.0))
    old = rows(("a", 1.0), ("a", 0.0), ("b", 1.0))
    difference = paired_difference(new, old, "correct")
    assert difference.groups == 2
    assert difference.mean == pytest.approx((1.0 - 1.0) / 3)
    half = [*old, PairRow("d", 0.5, 1.0, 1.0)]  # of d one model scored two, the other one
    whole = [*new, PairRow("d", 0.5, 0.0, 1.0), PairRow("d", 0.5, 0.0, 1.0)]
    assert paired_difference(whole, half, "correct") == difference
