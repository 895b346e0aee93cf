"""How PPO's models read prompts with their answers: in which precision, what is shared, and in how
many lanes beside each other (policy/lanes.py).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from policy.backbone import context_of
from policy.compute import attend_in_three_products, autocast_dtype, fuse_gelu
from policy.lanes import add_gradients, alias, num_lanes, shares, side_by_side
from policy.scoring import batches_by_length
from policy.shared_prompt import shares_exactly
from policy.value import ValueHead

Result = TypeVar("Result")


class Reader:
    """A model, with the value head on its trunk if it has one."""

    def __init__(
        self, model: Any, *, head: ValueHead | None = None, precision: str = "fp32"
    ) -> None:
        """The model's GELU is fused, which changes no number beyond rounding."""
        self.model, self.head = model, head
        self.autocast = autocast_dtype(precision, model.device)
        self.shared = shares_exactly(model, context_of(model))
        """A prompt is read once for all its answers; else once for each."""
        fuse_gelu(model)
        if self.autocast is torch.bfloat16:
            attend_in_three_products(model)
        self.modules = nn.ModuleList([model] if head is None else [model, head])
        self._lanes = [self.modules, *(alias(self.modules) for _ in range(num_lanes(model) - 1))]

    @property
    def num_lanes(self) -> int:
        return len(self._lanes)

    def lines(
        self,
        rows: Iterable[int],
        prompt_of: Callable[[int], Sequence[int]],
        num_tokens: Callable[[Sequence[int]], int],
        max_tokens: int,
    ) -> list[list[int]]:
        """`rows` as this model reads them: those of one prompt in a line, where it can share the
        prompt and max_tokens, of all its lanes together, leave room."""
        limit = max_tokens // self.num_lanes
        found: list[list[int]] = []
        open_lines: dict[tuple[int, ...], list[int]] = {}  # by prompt, while they take rows
        for row in rows:
            prompt = tuple(prompt_of(row))
            line = open_lines.get(prompt)
            if line is None or num_tokens([*line, row]) > limit:
                line = []
                found.append(line)
                if self.shared:
                    open_lines[prompt] = line
            line.append(row)
        return found

    def read(
        self,
        work: Callable[[Any, ValueHead | None, list[int]], Result],
        lines: Sequence[Sequence[int]],
        num_tokens: Callable[[Sequence[int]], int],
        max_tokens: int,
        *,
        learns: bool = False,
    ) -> list[Result]:
        """work(model, head, rows) of parts of the lines' rows, each in one part; in an order that
        depends on nothing but the lines and the number of lanes.

        A line is what the model reads as one; parts hold lines of similar length, at most
        max_tokens of num_tokens in all lanes together. learns: `work` leaves gradients, which end
        up in the model's own, summed in an order that does not depend on who was faster.
        """
        limit = max(1, max_tokens // self.num_lanes)
        works = []
        for lane, own in zip(self._lanes, shares(lines, num_tokens, self.num_lanes), strict=True):
            cut = batches_by_length([num_tokens(line) for line in own], limit)
            parts = [[row for place in part for row in own[place]] for part in cut]
            works.append(partial(self._read_in, lane, work, parts, learns))
        found = side_by_side(works)
        if learns:
            add_gradients(self.modules, self._lanes[1:])
        return [result for lane in found for result in lane]

    def _read_in(
        self,
        lane: nn.ModuleList,
        work: Callable[[Any, ValueHead | None, list[int]], Result],
        parts: Sequence[list[int]],
        learns: bool,
    ) -> list[Result]:
        model, *heads = lane
        head: Any = heads[0] if heads else None
        device = self.model.device.type
        with (
            torch.set_grad_enabled(learns),  # a thread has its own
            torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None),
        ):
            return [work(model, head, part) for part in parts]
