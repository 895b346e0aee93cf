"""Which tokens a step of pretraining sees: a function of the step, so that a resumed run goes on as
before.

A row is a window of context + 1 tokens out of a file's documents, which stand one behind the other;
or, `packed` false, a document by itself. Without weights all files are one, passed over in epochs;
with weights each row's file is drawn, and each file has epochs of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from policy.config import PretrainConfig, require
from policy.corpus import Tokens
from policy.packing import NO_TOKEN, length_batches, pad_right, row_spans, window_starts
from policy.run import generator_for

CHUNK = 16
"""Steps whose rows are drawn together, and by like length where rows are documents."""


@dataclass(frozen=True, slots=True)
class Rows:
    """(B, longest) long: tokens, NO_TOKEN behind the shorter rows; the document that each is of."""

    tokens: Tensor
    documents: Tensor | None = None


class Order(Protocol):
    """What a loop asks."""

    def batch(self, step: int) -> Rows: ...


class Source(Protocol):
    """Rows of one file without end: an epoch's, in random order, then the next one's."""

    tokens_per_row: float
    """The mean."""

    def row(self, number: int) -> tuple[Tensor, Tensor | None]: ...


class Windows:
    """Windows of context + 1 tokens; each epoch cut and shuffled by its own number."""

    def __init__(self, tokens: Tokens, config: PretrainConfig, name: str = "windows") -> None:
        require(
            len(tokens) > config.context,
            f"the data makes {len(tokens)} tokens, one window takes {config.context + 1}",
        )
        self._tokens, self._config, self._name = tokens, config, name
        self._epoch, self._starts = -1, torch.zeros(0)
        self._per_epoch = (len(tokens) - 1) // config.context
        self.tokens_per_row = float(config.context)

    def row(self, number: int) -> tuple[Tensor, Tensor | None]:
        epoch, place = divmod(number, self._per_epoch)
        context = self._config.context
        if epoch != self._epoch:
            generator = generator_for(self._config.seed, epoch, self._name)
            self._starts = window_starts(len(self._tokens), context, generator)
            self._epoch = epoch
        places = (self._starts[place] + torch.arange(context + 1)) % len(self._tokens)
        apart = self._tokens.documents_at(places) if self._config.documents_apart else None
        return self._tokens.at(places), apart

    def batch(self, step: int) -> Rows:
        """(windows_per_step, context + 1)."""
        first = step * self._config.windows_per_step
        rows = [self.row(first + at) for at in range(self._config.windows_per_step)]
        return together(rows)


class Documents:
    """Documents, or parts of those that are longer than a row, in random order.

    A model sees nothing but the document itself, so it soon learns to look for an answer's words in
    its own question; in a packed window it first has to learn where the question begins.
    """

    def __init__(self, tokens: Tokens, config: PretrainConfig, name: str = "documents") -> None:
        self._tokens, self._config, self._name = tokens, config, name
        self._spans = row_spans(tokens.lengths.tolist(), config.context)
        require(bool(self._spans), "the data holds no document of two tokens")
        self._epoch = -1
        self._batches: list[list[int]] = []
        self._order = torch.zeros(0)
        self._per_epoch = -(-len(self._spans) // config.windows_per_step)
        learned = sum(end - start - 1 for start, end in self._spans)
        self.tokens_per_row = learned / len(self._spans)

    def row(self, number: int) -> tuple[Tensor, Tensor | None]:
        epoch, place = divmod(number, len(self._spans))
        if epoch != self._epoch:
            generator = generator_for(self._config.seed, epoch, self._name)
            self._order = torch.randperm(len(self._spans), generator=generator)
            self._epoch = epoch
        return self._span(int(self._order[place])), None

    def batch(self, step: int) -> Rows:
        """(windows_per_step or fewer, longest), rows of like length together."""
        epoch, place = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            generator = generator_for(self._config.seed, epoch, self._name)
            lengths = [end - start for start, end in self._spans]
            self._batches = length_batches(lengths, self._config.windows_per_step, generator)
            self._epoch = epoch
        return together([(self._span(row), None) for row in self._batches[place]])

    def _span(self, row: int) -> Tensor:
        return self._tokens.at(torch.arange(*self._spans[row]))


class Mixture:
    """Rows of several files, each row's file drawn so that the tokens have the shares asked for."""

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], config: PretrainConfig
    ) -> None:
        self._sources, self._config = sources, config
        per_row = torch.tensor([source.tokens_per_row for source in sources], dtype=torch.double)
        self._chances = torch.tensor(weights, dtype=torch.double) / per_row
        self._before = [torch.zeros(len(sources), dtype=torch.long)]
        """Rows that each file has given before each chunk."""
        self._chunk = -1
        self._batches: list[list[tuple[Tensor, Tensor | None]]] = []

    def batch(self, step: int) -> Rows:
        """(windows_per_step, longest); by like length where rows are documents."""
        chunk, place = divmod(step, CHUNK)
        if chunk != self._chunk:
            self._batches, self._chunk = self._drawn(chunk), chunk
        return together(self._batches[place])

    def _files(self, chunk: int) -> Tensor:
        generator = generator_for(self._config.seed, chunk, "files")
        count = CHUNK * self._config.windows_per_step
        return torch.multinomial(self._chances, count, replacement=True, generator=generator)

    def _drawn(self, chunk: int) -> list[list[tuple[Tensor, Tensor | None]]]:
        while len(self._before) <= chunk:  # a resumed run draws again what it had drawn
            drawn = self._files(len(self._before) - 1).bincount(minlength=len(self._sources))
            self._before.append(self._before[-1] + drawn)
        numbers = self._before[chunk].tolist()
        rows = []
        for file in self._files(chunk).tolist():
            rows.append(self._sources[file].row(numbers[file]))
            numbers[file] += 1
        generator = generator_for(self._config.seed, chunk, "batches")
        lengths = [len(tokens) for tokens, _ in rows]
        per_step = self._config.windows_per_step
        batches = length_batches(lengths, per_step, generator, chunk=CHUNK)
        return [[rows[row] for row in batch] for batch in batches]


def together(rows: Sequence[tuple[Tensor, Tensor | None]]) -> Rows:
    """Rows side by side."""
    documents = [document for _, document in rows if document is not None]
    return Rows(
        pad_right([tokens for tokens, _ in rows], NO_TOKEN)[0],
        pad_right(documents, NO_TOKEN)[0] if documents else None,
    )


def order_of(files: Sequence[Tokens], config: PretrainConfig) -> Order:
    """The order of training over the tokens of data files: of one, or of several with weights."""
    kind = Windows if config.packed else Documents
    if config.data_weights is None:
        (tokens,) = files
        return kind(tokens, config)
    wanted = [number for number, weight in enumerate(config.data_weights) if weight > 0]
    sources = [kind(files[number], config, f"file {number}") for number in wanted]
    return Mixture(sources, [config.data_weights[number] for number in wanted], config)
