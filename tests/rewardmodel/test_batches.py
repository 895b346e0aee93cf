"""rewardmodel.batches: nothing is lost, cut or counted twice."""

import itertools
import random
from array import array
from dataclasses import replace

import pytest

from policy.comparisons import Comparison, PairTable, Vote
from rewardmodel.batches import (
    PIECE_TOKENS,
    Batch,
    Example,
    examples_of_step,
    num_steps,
    pieces,
    weighted,
)
from rewardmodel.targets import PLAIN


def comparison_of(votes: list[Vote], k: int) -> Comparison:
    return Comparison(
        id="c",
        split=None,
        group="g",
        prompt=(),
        completion_ids=tuple(map(str, range(k))),
        texts=tuple(map(str, range(k))),
        votes=tuple(votes),
        table=PairTable.of(votes),
    )


def example(*rows: list[int], ranking=None) -> Example:
    places = ranking or tuple((i,) for i in range(len(rows)))
    comparison = comparison_of([Vote(places)], len(rows))
    ids = tuple(array("i", row) for row in rows)
    return Example(ids, comparison.table, PLAIN.targets(comparison))


EXAMPLES = [
    example([1, 2, 3], [1, 2]),
    example([4] * 9, [5] * 4, [6] * 5),
    example([7], [8, 8], ranking=((1,), (0,))),
    example([9] * 30, [9] * 2),
]


@pytest.mark.parametrize(
    ("shared", "lines"),
    [
        (True, [[1, 2, 3], [7, 8, 8]]),
        (False, [[1, 2, 3], [1, 2, 0], [7, 0, 0], [8, 8, 0]]),
    ],
)
def test_a_batch_pads_on_the_right_and_points_pairs_at_its_completions(shared, lines):
    batch = Batch.of([EXAMPLES[0], EXAMPLES[2]], pad_id=0, shared=shared)
    assert batch.forest.ids.tolist() == lines
    assert batch.forest.mask.tolist() == (batch.forest.ids != 0).tolist()
    assert batch.forest.ids.flatten()[batch.forest.ends].tolist() == [3, 2, 7, 8]
    assert batch.targets.pairs.tolist() == [[0, 1], [2, 3]]
    assert batch.targets.targets.tolist() == [1.0, 0.0]
    assert batch.targets.weights.tolist() == [1.0, 1.0]


def padded(piece, shared: bool) -> int:
    lines = [line for each in piece for line in each.lines(shared)]
    return len(lines) * max(len(line.ids) for line in lines)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("limit", [1, 20, 40, 1000])
def test_pieces_hold_every_comparison_once_and_whole_within_the_limit(limit, shared):
    cut = pieces(EXAMPLES, limit, shared=shared)
    assert sorted(map(id, (each for piece in cut for each in piece))) == sorted(map(id, EXAMPLES))
    assert all(len(piece) == 1 or padded(piece, shared) <= limit for piece in cut)


def every_cut(examples):
    """All ways to cut a list into lists."""
    for marks in itertools.product([False, True], repeat=len(examples) - 1):
        cut = [[examples[0]]]
        for each, mark in zip(examples[1:], marks, strict=True):
            if mark:
                cut.append([])
            cut[-1].append(each)
        yield cut


@pytest.mark.parametrize("seed", range(10))
def test_no_other_cut_of_a_step_costs_less(seed):
    draw = random.Random(seed)
    examples = [example([1] * draw.randint(1, 200), [2] * draw.randint(1, 200)) for _ in range(7)]

    def cost(cut):
        return sum(padded(piece, True) + PIECE_TOKENS for piece in cut)

    by_length = sorted(examples, key=lambda each: len(each.lines(True)[0].ids))
    within = [
        cut
        for cut in every_cut(by_length)
        if all(len(piece) == 1 or padded(piece, True) <= 900 for piece in cut)
    ]
    assert cost(pieces(examples, 900)) == min(map(cost, within))


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


def test_the_comparisons_of_a_thread_share_at_most_its_weight():
    made = [
        replace(example([1], [2]), group=group, weight=weight)
        for group, weight in (("long", 1.0), ("long", 1.0), ("long", 2.0), ("short", 1.0))
    ]
    # Half of the long thread's 4 is kept: 0.5, 0.5, 1 and 1; their mean is 0.75.
    capped = [each.weight for each in weighted(made, 2.0)]
    assert capped == pytest.approx([0.5 / 0.75, 0.5 / 0.75, 1 / 0.75, 1 / 0.75])
    assert [each.weight for each in weighted(made, None)] == pytest.approx([0.8, 0.8, 1.6, 0.8])


def test_without_weights_each_comparison_counts_once():
    assert [each.weight for each in weighted(EXAMPLES, None)] == [1.0] * 4
