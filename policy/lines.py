"""Lines of token ids, and which tokens are to be learned where.

B lines, T places; a line holds one document, or several blocks that do not see each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy.packing import NO_TOKEN


@dataclass(frozen=True, slots=True)
class Lines:
    """What goes through a language model in a step, padded on the right."""

    ids: Tensor  # (B, T) long, 0 or the pad token on padding
    mask: Tensor  # (B, T) bool, True = real token
    targets: Tensor  # (B, T) long, the token to learn at each place; NO_TOKEN = none
    blocks: Tensor | None = None  # (B, T) long, which block a token is of; None: a line is one

    @classmethod
    def next_tokens(cls, tokens: Tensor, documents: Tensor | None = None) -> "Lines":
        """Each token but the first is learned at the place before it.

        tokens: (B, T + 1), NO_TOKEN behind the shorter rows. documents: (B, T + 1), which document
        each token is of, each number in one stretch: none is then foretold from another's.
        """
        targets = tokens[:, 1:]
        if documents is None:
            blocks = None
        else:
            blocks = documents[:, :-1]
            targets = targets.masked_fill(documents[:, 1:] != blocks, NO_TOKEN)
        return cls(tokens.clamp(min=0)[:, :-1], tokens[:, :-1] != NO_TOKEN, targets, blocks)

    @property
    def num_learned(self) -> int:
        """Tokens to learn."""
        return int((self.targets != NO_TOKEN).sum())

    @property
    def lengths(self) -> list[int]:
        """Places up to the last real token of each line."""
        places = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        return [int(length) for length in (self.mask * places).amax(-1).tolist()]

    @property
    def positions(self) -> Tensor:
        """(B, T) long: 0, 1, 2 ... from the start of each block."""
        assert self.blocks is not None
        place = torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)
        starts = torch.ones_like(self.mask)
        starts[:, 1:] = self.blocks[:, 1:] != self.blocks[:, :-1]
        return place - torch.where(starts, place, 0).cummax(-1).values

    @property
    def sees(self) -> Tensor:
        """(B, T, T) bool, True = the token of that row attends to the one of that column: to itself
        and to what stands before it in its block."""
        assert self.blocks is not None
        same = self.blocks[:, :, None] == self.blocks[:, None, :]
        return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()

    def take(self, rows: Sequence[int]) -> "Lines":
        """These lines, as wide as the longest of them."""
        if list(rows) == list(range(len(self.ids))):
            return self
        lengths = self.lengths
        width = max(lengths[row] for row in rows)
        chosen = torch.tensor(rows, device=self.ids.device)
        parts = (self.ids, self.mask, self.targets, self.blocks)
        taken = [None if part is None else part[chosen, :width] for part in parts]
        return Lines(*taken)  # type: ignore[arg-type]

    def pieces(self, tokens_per_forward: int | None) -> "list[Lines]":
        """Cut where more than so many padded tokens would stand together; one line at the least."""
        if tokens_per_forward is None or self.ids.numel() <= tokens_per_forward:
            return [self] if len(self.ids) else []
        lengths = self.lengths
        pieces: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
            if pieces and (len(pieces[-1]) + 1) * lengths[row] <= tokens_per_forward:
                pieces[-1].append(row)
            else:
                pieces.append([row])
        return [self.take(rows) for rows in pieces]

    def to(self, device: torch.device | str) -> "Lines":
        """The same on a device."""
        parts = (self.ids, self.mask, self.targets, self.blocks)
        moved = [None if part is None else part.to(device) for part in parts]
        return Lines(*moved)  # type: ignore[arg-type]


def packed(rows: Sequence[Sequence[int]], starts: Sequence[int], longest: int, fill: int) -> Lines:
    """Rows laid one behind another into lines of at most `longest` places, each a block of its own.

    starts: where in each row the tokens begin that are learned, 1 at the least. The longest row
    goes first, each into the first line that has room for it.
    """
    lines: list[list[int]] = []
    used: list[int] = []
    for row in sorted(range(len(rows)), key=lambda row: -len(rows[row])):
        length = len(rows[row])
        line = next((at for at, filled in enumerate(used) if filled + length <= longest), None)
        if line is None:
            lines.append([])
            used.append(0)
            line = len(lines) - 1
        lines[line].append(row)
        used[line] += length
    shape = (len(lines), max(used))
    ids = torch.full(shape, fill, dtype=torch.long)
    targets = torch.full(shape, NO_TOKEN, dtype=torch.long)
    blocks = torch.full(shape, NO_TOKEN, dtype=torch.long)
    for number, line_rows in enumerate(lines):
        at = 0
        for block, row in enumerate(line_rows):
            tokens, start = torch.tensor(rows[row]), starts[row]
            end = at + len(tokens)
            ids[number, at:end] = tokens
            blocks[number, at:end] = block
            targets[number, at + start - 1 : end - 1] = tokens[start:]
            at = end
    return Lines(ids, blocks != NO_TOKEN, targets, blocks)
