"""From token lists of many lengths to rectangles: packed windows, and batches of like length."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def stream(documents: Iterable[Sequence[int]]) -> Tensor:
    """All documents one behind the other, (tokens,) long. Each ends with its own end token."""
    return torch.tensor([token for document in documents for token in document], dtype=torch.long)


def windows(tokens: Tensor, context: int) -> Tensor:
    """(W, context + 1): consecutive windows that share one token.

    The first `context` columns are read, the last `context` foretold, so each token after the first
    is foretold exactly once. What does not fill a window is left out.
    """
    count = max(0, (len(tokens) - 1) // context)
    if count == 0:
        return tokens.new_zeros(0, context + 1)
    return tokens[: count * context + 1].unfold(0, context + 1, context)


def window_starts(num_tokens: int, context: int, generator: torch.Generator) -> Tensor:
    """(W,) where the windows of one pass over the data begin, in random order; as many in every
    pass.

    The data is taken as a ring and begun at a random place, so that no token always stands at a
    window's start.
    """
    place = int(torch.randint(0, num_tokens, (), generator=generator))
    count = (num_tokens - 1) // context
    return (place + torch.randperm(count, generator=generator) * context) % num_tokens


NO_TOKEN = -1
"""Fills rows of documents up to a rectangle; never read, never foretold."""


def row_spans(lengths: Iterable[int], context: int) -> list[tuple[int, int]]:
    """Start and end, in the stream of all documents, of rows of at most context + 1 tokens, each of
    one document of these lengths.

    A longer one is cut into rows that share one token, as windows do; what is left over is the
    last row, so that each token after the first is foretold exactly once.
    """
    spans = []
    begin = 0
    for length in lengths:
        for start in range(0, length - 1, context):
            spans.append((begin + start, begin + min(start + context + 1, length)))
        begin += length
    return spans


def document_rows(documents: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """Each document as a row of its own, or several where it is longer; see row_spans."""
    tokens = [token for document in documents for token in document]
    return [tokens[start:end] for start, end in row_spans(map(len, documents), context)]


def length_batches(
    lengths: Sequence[int], rows: int, generator: torch.Generator, *, chunk: int = 16
) -> list[list[int]]:
    """Row numbers in batches of `rows`, shuffled, with rows of like length together.

    The shuffled rows are sorted by length within chunks of `chunk` batches, then the batches are
    shuffled: nearly no padding, and still another order in every epoch. Each row is in one batch.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), rows * chunk):
        part = sorted(order[start : start + rows * chunk], key=lambda row: lengths[row])
        batches += [part[at : at + rows] for at in range(0, len(part), rows)]
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]


def pad_right(rows: Sequence[Sequence[int] | Tensor], fill: int) -> tuple[Tensor, Tensor]:
    """(ids, mask), both (B, T): rows with `fill` behind them; mask bool, True = real token."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[number, : len(row)] = True
    return ids, mask
