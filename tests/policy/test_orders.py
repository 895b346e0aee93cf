"""Which rows a step sees: windows in which documents keep apart, shares of several files."""

from dataclasses import replace

import torch

from policy.config import PretrainConfig
from policy.corpus import Tokens
from policy.lines import Lines
from policy.orders import order_of
from policy.packing import NO_TOKEN

CONFIG = PretrainConfig(context=4, windows_per_step=3, width=4, heads=1)


def test_tokens_lie_in_a_file_and_come_back_by_place():
    tokens = Tokens.of([[5, 6, 7], [8], [9, 70_000]])
    assert len(tokens) == 6
    assert tokens.at(torch.tensor([5, 0, 3])).tolist() == [70_000, 5, 8]
    assert tokens.documents_at(torch.arange(6)).tolist() == [0, 0, 0, 1, 2, 2]
    assert tokens.lengths.tolist() == [3, 1, 2]
    assert len(Tokens.of([])) == 0


def test_neighbours_in_a_window_are_neighbours_in_the_ring():
    tokens = Tokens.of([range(30)])
    order = order_of([tokens], CONFIG)
    for step in range(5):
        rows = order.batch(step).tokens
        assert rows.shape == (3, 5)
        assert torch.equal((rows[:, :-1] + 1) % 30, rows[:, 1:])


def test_kept_apart_a_documents_first_token_is_not_foretold():
    documents = [[100, 101, 102], [200, 201], [300, 301, 302, 303]]
    order = order_of([Tokens.of(documents)], replace(CONFIG, documents_apart=True))
    seen = 0
    for step in range(4):
        rows = order.batch(step)
        lines = Lines.next_tokens(rows.tokens, rows.documents)
        for row, (ids, targets) in enumerate(zip(lines.ids, lines.targets, strict=True)):
            positions = lines.positions[row].tolist()
            for place, (token, target) in enumerate(
                zip(ids.tolist(), targets.tolist(), strict=True)
            ):
                same = target // 100 == token // 100
                assert target == (token + 1 if same else NO_TOKEN)
                starts = place == 0 or ids[place - 1] // 100 != token // 100
                assert positions[place] == (0 if starts else positions[place - 1] + 1)
                visible = [ids[at].item() for at in range(4) if lines.sees[row, place, at]]
                assert visible == list(range(token - positions[place], token + 1))
                seen += 1
    assert seen == 48


def test_files_have_the_shares_of_tokens_that_were_asked_for():
    """Whatever their lengths; and any step is the same without those before it."""
    files = [Tokens.of([[1] * 5] * 40), Tokens.of([[2] * 3] * 200), Tokens.of([[3] * 5] * 9)]
    for packed in (True, False):
        config = replace(CONFIG, packed=packed, data_weights=[1.0, 3.0, 0.0], windows_per_step=8)
        order = order_of(files, config)
        batches = [order.batch(step).tokens for step in range(160)]
        learned = torch.cat([batch[:, 1:].flatten() for batch in batches])
        counts = [int((learned == file).sum()) for file in (1, 2, 3)]
        assert counts[2] == 0
        share = counts[1] / sum(counts)
        assert abs(share - 0.75) < 0.04, (packed, share)  # 1280 draws: deviation 0.012 to 0.015
        again = order_of(files, config)
        for step in (150, 37, 0):
            assert torch.equal(again.batch(step).tokens, batches[step])


def test_an_epoch_of_a_weighted_file_is_each_of_its_rows_once():
    files = [Tokens.of([[row] * 3 for row in range(1, 33)])]
    order = order_of(files, replace(CONFIG, packed=False, data_weights=[2.0]))
    first = [order.batch(step).tokens[:, 0] for step in range(64)]  # 192 rows in four chunks
    counts = torch.cat(first).bincount()[1:]
    assert counts.tolist() == [6] * 32
