"""Rows of tokens that grow by one each: their keys and values, and the logits of what comes next.

Axes: N rows, P columns of the longest prompt, G heads of keys and values, E width of a head, V
vocabulary. Prompts are padded on the left, so that every row writes the same column.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from policy.backbone import forward_arguments, head_only_at, without_pad
from policy.compute import LONGEST_SHORT_LINE
from policy.last_mlp import last_mlp_only_at
from policy.scoring import batches_by_length
from policy.stepping import Step

TOKENS_AT_ONCE = {"cpu": 512, "cuda": 32_768}
"""Padded tokens of prompts that are read together: more would be more padding on a CPU, and less
would leave a GPU idle."""
COLUMNS_MORE = 32
"""By which keys and values grow where there is no room left for a token."""


class Decoding(Protocol):
    """The rows of one batch."""

    logits: Tensor
    """(N, V) after what stands there now; the pad token's is `NEVER`."""
    retire_below: float
    """`keep` pays once at most this share of the rows is still wanted."""

    def append(self, tokens: Tensor) -> None:
        """Put a token behind each row, (N,)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, (n,), a copy of what they hold."""


def decoding_of(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    *,
    room: int,
    autocast: torch.dtype | None = None,
    step: Step | None = None,
) -> Decoding:
    """Read the prompts, each distinct one once. room: tokens that will be appended at most. step:
    how the model steps, where that is written out (policy/stepping.py): for prompts of moderate
    length, whose attention shares fit in memory all at once."""
    if step is None or max(map(len, prompts)) > LONGEST_SHORT_LINE:
        return ByForward(model, prompts, room=room, autocast=autocast)
    by = ByReplay if model.device.type == "cuda" else ByStep
    return by(model, step, prompts, room=room)


class ByForward:
    """By the model's own forward, any Hugging Face causal LM's."""

    retire_below = 0.75

    @torch.inference_mode()
    def __init__(
        self,
        model: Any,
        prompts: Sequence[tuple[int, ...]],
        *,
        room: int,
        autocast: torch.dtype | None,
    ) -> None:
        self.model, self.autocast = model, autocast
        self.device = next(model.parameters()).device
        distinct, rows = once_each(prompts, self.device)
        ids, mask = left_padded(distinct, self.device)
        self.columns = ids.shape[1]
        """Written so far, P to begin with."""
        self.cache: Any = DynamicCache(config=model.config)
        logits = self._forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))
        self.logits = without_pad(model, logits)[rows]
        self.mask = functional.pad(mask, (0, room))[rows]  # (N, P + room)
        self.positions = self.mask.sum(-1)  # (N,) where the next token goes
        if all(type(layer) is DynamicLayer for layer in self.cache.layers):
            self.cache = in_place(self.cache, rows, room)
        else:  # of another kind, which transformers lets grow
            self.cache.batch_select_indices(rows)

    @torch.inference_mode()
    def append(self, tokens: Tensor) -> None:
        self.mask[:, self.columns] = 1
        self.columns += 1
        seen = self.mask[:, : self.columns]
        logits = self._forward(tokens[:, None], seen, self.positions[:, None])
        self.logits = without_pad(self.model, logits)
        self.positions = self.positions + 1

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        self.logits, self.mask = self.logits[rows], self.mask[rows]
        self.positions = self.positions[rows]
        self.cache.batch_select_indices(rows)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """(n, V): logits after the last of `ids`, (n, t), which go on from what the cache holds."""
        names = forward_arguments(self.model.__class__)
        more = {"position_ids": positions} if "position_ids" in names else {}
        length = ids.shape[1]
        last = torch.arange(1, len(ids) + 1, device=self.device) * length - 1
        autocast = self.autocast
        with (
            torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None),
            head_only_at(self.model, last, in_fp32=True),
            last_mlp_only_at(last, self.model.base_model) if length > 1 else nullcontext(),
        ):
            return self.model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                **more,
            ).logits


class ByStep:
    """By a step that is written out."""

    retire_below = 0.75

    @torch.inference_mode()
    def __init__(
        self, model: Any, step: Step, prompts: Sequence[tuple[int, ...]], *, room: int
    ) -> None:
        self.model, self.step = model, step
        device = next(model.parameters()).device
        distinct, rows = once_each(prompts, device)
        longest = max(map(len, distinct))
        self.columns = longest
        count, width = len(distinct), step.width
        self.keys, self.values = (
            [
                torch.zeros(count, step.key_heads, longest, width, dtype=step.dtype, device=device)
                for _ in step.blocks
            ]
            for _ in range(2)
        )  # of each layer (N, G, C, E), C >= what is written
        unseen = torch.finfo(step.dtype).min
        added = torch.full((count, 1, longest + room), unseen, dtype=step.dtype, device=device)
        logits = torch.empty(count, model.get_output_embeddings().weight.shape[0], device=device)
        for part in batches_by_length(list(map(len, distinct)), TOKENS_AT_ONCE[device.type]):
            ids, mask = left_padded([distinct[at] for at in part], device)
            logits[part], keys, values = step.read(ids, mask)
            start = longest - ids.shape[1]
            for held, read in zip([*self.keys, *self.values], [*keys, *values], strict=True):
                held[part, :, start:] = read
            added[part, :, start:longest] = torch.where(mask == 1, 0.0, unseen)[:, None].to(added)
        self.logits, self.added = without_pad(model, logits)[rows], added[rows]
        self.keys = [each[rows] for each in self.keys]
        self.values = [each[rows] for each in self.values]
        lengths = torch.tensor(list(map(len, distinct)), device=device)
        self.positions = lengths[rows]

    @torch.inference_mode()
    def append(self, tokens: Tensor) -> None:
        if self.columns == self.keys[0].shape[2]:
            self._grow()
        self.added[..., self.columns] = 0
        added = self.added[..., : self.keys[0].shape[2]]
        last, positions = tokens[:, None], self.positions[:, None]
        logits = self.step(last, positions, added, self.keys, self.values, self.columns)
        self.logits = without_pad(self.model, logits)
        self.positions = self.positions + 1
        self.columns += 1

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        self.logits, self.added = self.logits[rows], self.added[rows]
        self.positions = self.positions[rows]
        self.keys = [each[rows] for each in self.keys]
        self.values = [each[rows] for each in self.values]

    def _grow(self) -> None:
        """A step reads what is not written yet too, hidden: a piece of a buffer would be copied in
        each of its products."""
        more = (0, 0, 0, min(COLUMNS_MORE, self.added.shape[2] - self.columns))
        self.keys = [functional.pad(each, more) for each in self.keys]
        self.values = [functional.pad(each, more) for each in self.values]


class ByReplay(ByStep):
    """By a step that a GPU replays whole.

    Launched one by one, the hundreds of kernels of a step take several times as long as they
    compute. The second step of the same rows is recorded, with everything it reads and writes at
    fixed places; it and the later ones are replayed.
    """

    retire_below = 0.25
    """Every copy wants a new recording."""

    @torch.inference_mode()
    def __init__(
        self, model: Any, step: Step, prompts: Sequence[tuple[int, ...]], *, room: int
    ) -> None:
        super().__init__(model, step, prompts, room=room)
        self.keys = [functional.pad(each, (0, 0, 0, room)) for each in self.keys]
        self.values = [functional.pad(each, (0, 0, 0, room)) for each in self.values]
        device = self.logits.device
        self.column = torch.tensor([self.columns], device=device)
        """The next one to be written."""
        self.tokens = torch.zeros(len(prompts), dtype=torch.long, device=device)
        self._recorded: torch.cuda.CUDAGraph | None = None
        self._warm = False
        """Whether the kernels have run on these rows: what they set up then can't be recorded."""

    @torch.inference_mode()
    def append(self, tokens: Tensor) -> None:
        self.tokens.copy_(tokens)
        if self._recorded is None and self._warm and self.tokens.is_cuda:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._advance()
            self._recorded = graph
        if self._recorded is None:
            self._advance()
            self._warm = True
        else:
            self._recorded.replay()

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.tokens = self.tokens[rows]
        self._recorded, self._warm = None, False

    def _advance(self) -> None:
        self.added.index_fill_(2, self.column, 0.0)
        last, positions = self.tokens[:, None], self.positions[:, None]
        logits = self.step(last, positions, self.added, self.keys, self.values, self.column)
        self.logits = without_pad(self.model, logits)
        self.positions += 1
        self.column += 1


def once_each(
    prompts: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[list[tuple[int, ...]], Tensor]:
    """The distinct ones, and which of them each prompt is, (N,)."""
    place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    return list(place), torch.tensor([place[prompt] for prompt in prompts], device=device)


def left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and mask, (n, T) long each, 1 = real token."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def in_place(cache: Any, rows: Tensor, room: int) -> Cache:
    """Rows `rows` of what the cache holds, with `room` free columns."""
    layers: Any = [InPlaceLayer(own.keys, own.values, rows, room) for own in cache.layers]
    return Cache(layers=layers)


class InPlaceLayer(DynamicLayer):
    """Keys and values of one layer, (N, heads, columns, head width), with room to grow.

    DynamicLayer copies everything it holds to append one column; this writes the column where it
    belongs and hands out views.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, room: int) -> None:
        """Rows `rows` of what a layer holds after the prompt, with `room` free columns."""
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.length = keys.shape[2]
        free = (0, 0, 0, room)
        self._keys, self._values = (functional.pad(each[rows], free) for each in (keys, values))
        self._show()
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._keys = self._keys[indices]
        self._values = self._values[indices]
        self._show()

    def _show(self) -> None:
        self.keys = self._keys[:, :, : self.length]
        self.values = self._values[:, :, : self.length]
