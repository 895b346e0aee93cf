"""Windows and batches: every token and every row once."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from policy.packing import (
    document_rows,
    length_batches,
    pad_right,
    stream,
    window_starts,
    windows,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_share_their_border_token():
    assert windows(stream([[1, 2, 3], [4, 5, 6, 7, 8]]), 3).tolist() == [[1, 2, 3, 4], [4, 5, 6, 7]]


def test_too_few_tokens_make_no_window():
    assert windows(torch.arange(3), 3).shape == (0, 4)


@given(tokens=st.integers(5, 60), context=st.integers(1, 4), seed=st.integers(0, 99))
def test_an_epoch_foretells_each_token_at_most_once_and_always_as_many(tokens, context, seed):
    starts = window_starts(tokens, context, seeded(seed))
    assert len(starts) == (tokens - 1) // context
    foretold = [(start + at) % tokens for start in starts.tolist() for at in range(1, context + 1)]
    assert len(foretold) == len(set(foretold))


def test_epochs_differ_and_repeat_by_seed():
    first = window_starts(100, 4, seeded(1))
    assert torch.equal(first, window_starts(100, 4, seeded(1)))
    assert not torch.equal(first, window_starts(100, 4, seeded(2)))
    assert len({start % 4 for start in window_starts(100, 4, seeded(1)).tolist()}) == 1


def test_documents_are_rows_and_long_ones_are_cut_where_they_share_a_token():
    assert document_rows([[1, 2], [3], [4, 5, 6, 7, 8, 9]], 2) == [
        [1, 2],
        [4, 5, 6],
        [6, 7, 8],
        [8, 9],
    ]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), rows=st.integers(1, 8))
def test_each_row_is_in_one_batch(lengths, rows):
    batches = length_batches(lengths, rows, seeded(), chunk=3)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // rows)
    assert all(len(batch) <= rows for batch in batches)


def test_rows_of_like_length_are_together():
    lengths = torch.randint(1, 200, (512,), generator=seeded()).tolist()

    def padding(batches):
        return sum(max(lengths[r] for r in b) - lengths[r] for b in batches for r in b)

    shuffled = torch.randperm(512, generator=seeded()).tolist()
    plain = [shuffled[at : at + 16] for at in range(0, 512, 16)]
    assert padding(length_batches(lengths, 16, seeded())) < 0.2 * padding(plain)


def test_padding_goes_behind():
    ids, mask = pad_right([[5, 6, 7], [8]], fill=0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
