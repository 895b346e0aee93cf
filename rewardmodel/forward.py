"""How a run asks its model for scores: what is shared, in which precision, how much at once."""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from policy.compute import attend_in_three_products, autocast_dtype, compiled, fuse_gelu
from policy.lanes import alias, num_lanes, shares
from policy.scoring import scores_of_forest
from policy.shared_prompt import shares_exactly
from rewardmodel.batches import Batch, Example, pieces
from rewardmodel.config import RewardConfig

Result = TypeVar("Result")


class Forward:
    """A model, and the way in which comparisons go through it."""

    def __init__(self, model: Any, config: RewardConfig, *, max_tokens: int) -> None:
        """The fastest way that the config allows and that is exact for this model: found by trying.

        The model's GELU is fused, which changes no number beyond rounding.
        """
        self.model = model
        self.shared = shares_exactly(model, max_tokens)
        """A prompt is read once for all its completions; else once for each."""
        self.tokens_per_forward = config.tokens_per_forward
        self.autocast = autocast_dtype(config.precision, model.device)
        self.checkpoints = config.gradient_checkpointing
        fuse_gelu(model)
        if self.autocast is torch.bfloat16:
            attend_in_three_products(model)
        self.trunk = compiled(model.base_model) if config.compile and self.shared else None
        if self.checkpoints:
            kept = {"use_reentrant": False}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=kept)
        self._in_pieces = False
        self._largest_piece = 0
        self.direction = 1
        """-1 in every second lane, so that their longest pieces do not want memory at once."""
        self.lanes = self._lanes()
        """This one, and those that take a part of each step beside it (policy/lanes.py)."""

    def _lanes(self) -> "list[Forward]":
        count = 1 if self.trunk is not None else num_lanes(self.model)
        self.tokens_per_forward = max(1, self.tokens_per_forward // count)  # as much at once as one
        others = [copy.copy(self) for _ in range(count - 1)]
        for number, each in enumerate(others, 1):
            each.model, each.direction = alias(self.model), (-1) ** number
        return [self, *others]

    def batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        """A step's comparisons, cut into what goes through the model at once."""
        self._in_pieces = True
        cut = self.pieces(examples)
        self._largest_piece = max(map(len, cut), default=0)
        pad_id, device = self.model.config.pad_token_id, self.model.device
        for piece in cut[:: self.direction]:
            yield Batch.of(piece, pad_id, device, shared=self.shared)
        self._in_pieces = False

    def pieces(self, examples: Sequence[Example]) -> list[list[Example]]:
        """How comparisons are cut that go through one lane."""
        return pieces(examples, self.tokens_per_forward, shared=self.shared)

    def shares(self, examples: Sequence[Example]) -> list[list[Example]]:
        """A step's comparisons, a part for each lane."""
        return shares(examples, lambda each: each.num_tokens, len(self.lanes))

    def scores(self, batch: Batch) -> Tensor:
        """(N,) float32, one per completion, with gradient; (N x A,) of A axes, those of one
        completion side by side."""
        self.model.train(self.checkpoints)  # transformers recomputes in training alone; no dropout
        scores = scores_of_forest(
            self.model, batch.forest, autocast=self.autocast, trunk=self.trunk
        )
        self.model.eval()
        return scores.flatten()

    def within_memory(self, step: Callable[[], Result]) -> Result:
        """step(), again from its start with half as much at once where the GPU's memory ran out.

        `step` may change nothing before all pieces are through, its gradients excepted. Once a
        comparison by itself is too much, the error is raised.
        """
        while True:
            try:
                return step()
            except torch.OutOfMemoryError:
                if not self._in_pieces or self._largest_piece == 1:
                    raise
                self.tokens_per_forward //= 2
            torch.cuda.empty_cache()
            sys.stderr.write(
                f"out of memory: {self.tokens_per_forward} tokens go through at once from now on\n"
            )

    def warm_up(self, examples: Sequence[Example]) -> None:
        """Let the compiler do its work before the first step, and say how long it took."""
        if self.trunk is None:
            return
        began = time.monotonic()
        for count in (1, 2):  # a single line is a shape of its own to it
            for batch in self.batches(examples[:count]):
                self.scores(batch).sum().backward()
        self.model.zero_grad(set_to_none=True)
        sys.stderr.write(f"compiled in {time.monotonic() - began:.0f} s\n")

    def described(self) -> dict[str, int]:
        """For the run's log."""
        return {
            "shared_prompt": int(self.shared),
            "bf16": int(self.autocast is torch.bfloat16),
            "compiled": int(self.trunk is not None),
        }
