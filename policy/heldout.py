"""What documents that are not trained on cost, read as training reads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from policy.config import PretrainConfig
from policy.corpus import Tokens
from policy.lines import Lines
from policy.orders import Rows, together
from policy.packing import row_spans
from policy.reading import Reading

AT_ONCE = 16
"""Rows."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What is held out of a data file."""

    name: str
    tokens: Tokens
    num_bytes: int
    """Of its texts."""


class Read(Protocol):
    """Rows as what the objective makes of them; `batch` is their number in the tail."""

    def heldout(self, rows: Rows, batch: int) -> Lines: ...


def figures_of(
    reading: Reading, tails: Sequence[Tail], config: PretrainConfig, read: Read
) -> dict[str, float]:
    """Of all tails and, where there are several, of each: `bits_per_byte`, or `masked_nats`, the
    mean of the tokens that a masked objective asks for.

    Bits per byte are the nats of every token but the first of each row, in bits, over the bytes of
    the texts. End and role tokens are counted in the sum and have no bytes: a tokenizer cannot hide
    behind its vocabulary. Windows do not see each other, so a token may lack what stood before it.
    """
    causal = config.objective == "causal"
    name = "bits_per_byte" if causal else "masked_nats"
    costs = []
    for tail in tails:
        nats, count = _nats(reading, tail, config, read)
        costs.append((nats / math.log(2), tail.num_bytes) if causal else (nats, count))
    total, size = (sum(part) for part in zip(*costs, strict=True))
    figures = {name: total / max(1, size)}
    if len(tails) > 1:
        for tail, (total, size) in zip(tails, costs, strict=True):
            figures[f"{name}_{tail.name}"] = total / max(1, size)
    return figures


@torch.no_grad()
def _nats(reading: Reading, tail: Tail, config: PretrainConfig, read: Read) -> tuple[float, int]:
    """The sum over the tokens that are asked for, and their number."""
    nats, count = 0.0, 0
    with reading.eagerly():
        for number, rows in enumerate(_rows(tail.tokens, config)):
            lines = read.heldout(rows, number)
            nats += float(reading.nats(lines.to(reading.model.device)).double().sum())
            count += lines.num_learned
    return nats, count


def _rows(tokens: Tokens, config: PretrainConfig) -> Iterator[Rows]:
    """Each token but the first is foretold once: in windows, or in rows of one document each."""
    lengths = [len(tokens)] if config.packed else tokens.lengths.tolist()
    spans = row_spans(lengths, config.context)
    if not config.packed:
        spans.sort(key=lambda span: span[1] - span[0])
    for start in range(0, len(spans), AT_ONCE):
        places = [torch.arange(*span) for span in spans[start : start + AT_ONCE]]
        yield together([_row(tokens, place, config.documents_apart) for place in places])


def _row(tokens: Tokens, places: Tensor, apart: bool) -> tuple[Tensor, Tensor | None]:
    return tokens.at(places), tokens.documents_at(places) if apart else None
