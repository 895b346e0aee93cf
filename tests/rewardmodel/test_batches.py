"""rewardmodel.batches: nothing is lost, cut or counted twice."""

from array import array

import pytest
import torch

from rewardmodel.batches import Batch, Example, examples_of_step, num_steps, pieces
from rewardmodel.data import PairTable, Vote


def example(*rows: list[int], ranking=None) -> Example:
    places = ranking or tuple((i,) for i in range(len(rows)))
    return Example(tuple(array("i", row) for row in rows), PairTable.of([Vote(places)]))


EXAMPLES = [
    example([1, 2, 3], [1, 2]),
    example([4] * 9, [5] * 4, [6] * 5),
    example([7], [8, 8], ranking=((1,), (0,))),
    example([9] * 30, [9] * 2),
]


def test_a_batch_pads_on_the_right_and_points_pairs_at_its_rows():
    batch = Batch.of([EXAMPLES[0], EXAMPLES[2]], pad_id=0)
    assert batch.ids.tolist() == [[1, 2, 3], [1, 2, 0], [7, 0, 0], [8, 8, 0]]
    assert batch.mask.tolist() == (batch.ids != 0).tolist()
    assert batch.pairs.tolist() == [[0, 1], [2, 3]]
    assert batch.targets.tolist() == [1.0, 0.0]
    assert batch.weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("limit", [1, 20, 40, 1000])
def test_pieces_hold_every_comparison_once_and_whole_within_the_limit(limit):
    cut = list(pieces(EXAMPLES, limit))
    assert sorted(map(id, (each for piece in cut for each in piece))) == sorted(map(id, EXAMPLES))
    for piece in cut:
        rows = sum(len(each.rows) for each in piece)
        assert len(piece) == 1 or rows * max(each.longest for each in piece) <= limit


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_every_epoch_shows_each_comparison_once_in_an_order_of_its_own(count):
    examples = [example([i], [i, i]) for i in range(count)]
    per_epoch = num_steps(count, per_step=4, num_epochs=1)
    epochs = []
    for epoch in range(2):
        steps = range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)
        shown = [
            each.rows[0][0]
            for step in steps
            for each in examples_of_step(examples, step, per_step=4, seed=3)
        ]
        assert sorted(shown) == list(range(count))
        epochs.append(shown)
    assert count < 7 or epochs[0] != epochs[1]


def test_steps_are_counted_with_the_ragged_one():
    assert num_steps(9, per_step=4, num_epochs=2) == 6


def test_the_mask_says_true_for_real_tokens():
    assert Batch.of(EXAMPLES, pad_id=0).mask.dtype == torch.bool
