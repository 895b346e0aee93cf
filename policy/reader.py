"""How PPO's models read prompts with their answers: in which precision, what is shared, and in how
many lanes beside each other (policy/lanes.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from policy.backbone import context_of
from policy.compute import attend_in_three_products, autocast_dtype, fuse_gelu
from policy.lanes import add_gradients, alias, num_lanes, shares, side_by_side
from policy.shared_prompt import shares_exactly
from policy.value import ValueHead

Part = TypeVar("Part")
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

    def read(
        self,
        work: Callable[[Any, ValueHead | None, Part], Result],
        parts: Sequence[Part],
        size: Callable[[Part], int],
        *,
        learns: bool = False,
    ) -> list[Result]:
        """work(model, head, part) of each part, in order; lanes take parts side by side.

        size: of a part, in any unit. learns: `work` leaves gradients, which end up in the model's
        own, summed in an order that does not depend on who was faster.
        """
        numbered = shares(list(enumerate(parts)), lambda item: size(item[1]), len(self._lanes))
        found = side_by_side(
            [
                partial(self._read_in, lane, work, own, learns)
                for lane, own in zip(self._lanes, numbered, strict=True)
            ]
        )
        if learns:
            add_gradients(self.modules, self._lanes[1:])
        by_number = {number: result for lane in found for number, result in lane}
        return [by_number[number] for number in range(len(parts))]

    def _read_in(
        self,
        lane: nn.ModuleList,
        work: Callable[[Any, ValueHead | None, Part], Result],
        parts: Sequence[tuple[int, Part]],
        learns: bool,
    ) -> list[tuple[int, Result]]:
        model, *heads = lane
        device = self.model.device.type
        with (
            torch.set_grad_enabled(learns),  # a thread has its own
            torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None),
        ):
            head: Any = heads[0] if heads else None
            return [(number, work(model, head, part)) for number, part in parts]
