"""Completions from a policy: our own decoding loop, temperature only.

transformers' generate() re-reads a checkpoint's sampling settings and copies the whole cache at
every step; PPO needs exactly the distribution that it scores, and spends most of its time here. The
loop prefills each distinct prompt once, keeps keys and values in buffers that are written in place,
and retires the rows that have ended. Axes: N rows, P prompt columns, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from policy.backbone import context_of, forward_arguments, without_pad
from policy.config import require
from policy.text import end_token_id

ROWS_PER_BATCH = 128
RETIRE_BELOW = 0.75
"""Ended rows leave the batch when the living are at most this share: a copy of the cache each."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion."""

    tokens: list[int]
    """With the end token as its last, where finish is "end"."""
    logprobs: list[float]
    """Of each token under the tempered distribution that it was drawn from, nats; greedy: under
    temperature 1."""
    finish: Literal["end", "length"]

    def ended(self, end: int) -> list[int]:
        """Its tokens as they are scored: a cut answer is read with an end token too, which is where
        a reward model was taught to look."""
        return list(self.tokens) if self.finish == "end" else [*self.tokens, end]


def sample(
    model: Any,
    tokenizer: Any,
    prompt_ids: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_new_tokens: int,
    seeds: Sequence[int],
    rows_per_batch: int = ROWS_PER_BATCH,
) -> list[Sampled]:
    """One completion per prompt, in order.

    seeds: one per row; a row's draws depend on its seed alone, so it can be sampled again without
    the others. temperature 0 is greedy. Raises BadInput if a prompt is empty or leaves no room for
    max_new_tokens in the model's context.
    """
    require(len(seeds) == len(prompt_ids), f"{len(prompt_ids)} prompts, {len(seeds)} seeds")
    for ids in prompt_ids:
        _require_room(model, len(ids), max_new_tokens)
    # Rows of like length together: left padding costs time in every step.
    order = sorted(range(len(prompt_ids)), key=lambda row: len(prompt_ids[row]))
    done: dict[int, Sampled] = {}
    for start in range(0, len(order), rows_per_batch):
        rows = order[start : start + rows_per_batch]
        batch = _sample_batch(
            model,
            [tuple(prompt_ids[row]) for row in rows],
            [seeds[row] for row in rows],
            end=end_token_id(tokenizer),
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
        done.update(zip(rows, batch, strict=True))
    return [done[row] for row in range(len(prompt_ids))]


def stream(
    model: Any,
    tokenizer: Any,
    prompt_ids: Sequence[int],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Iterator[int]:
    """The tokens of one completion as they are drawn, the end token last where it ends by itself.

    The same tokens as `sample` gives for this prompt and seed. Raises BadInput, before the first
    token, for a prompt that is empty or leaves no room.
    """
    _require_room(model, len(prompt_ids), max_new_tokens)
    return _stream(
        model,
        tuple(prompt_ids),
        end=end_token_id(tokenizer),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )


@torch.inference_mode()
def _stream(
    model: Any,
    prompt: tuple[int, ...],
    *,
    end: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Iterator[int]:
    device = next(model.parameters()).device
    draws = _uniform([seed], max_new_tokens).to(device)  # (1, max_new_tokens)
    logits, cache, mask = _prefill(model, [prompt], room=max_new_tokens)
    mask[:] = 1  # one row has no padding: what is written is seen
    position = len(prompt)
    for step in range(max_new_tokens):
        chosen, _ = _choose(without_pad(model, logits), draws[:, step], temperature)
        yield int(chosen)
        if int(chosen) == end or step + 1 == max_new_tokens:
            return
        positions = torch.tensor([[position + step]], device=device)
        seen = mask[:, : position + step + 1]
        logits = _next_logits(model, chosen[:, None], seen, positions, cache)


def _require_room(model: Any, num_tokens: int, max_new_tokens: int) -> None:
    require(
        0 < num_tokens <= context_of(model) - max_new_tokens,
        f"a prompt of {num_tokens} tokens and {max_new_tokens} new ones do not fit the context "
        f"of {context_of(model)}",
    )


@torch.inference_mode()
def _sample_batch(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    *,
    end: int,
    temperature: float,
    max_new_tokens: int,
) -> list[Sampled]:
    device = next(model.parameters()).device
    draws = _uniform(seeds, max_new_tokens).to(device)  # (N, max_new_tokens)
    logits, cache, mask = _prefill(model, prompts, room=max_new_tokens)
    columns = mask.shape[1] - max_new_tokens  # P
    positions = mask.sum(-1)  # (N,) where the next token goes
    alive = torch.arange(len(prompts), device=device)  # (n,) rows of the batch that still run
    tokens = torch.full((len(prompts), max_new_tokens), end, device=device)
    logprobs = torch.zeros(len(prompts), max_new_tokens, device=device)
    lengths = torch.full((len(prompts),), max_new_tokens, device=device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    for step in range(max_new_tokens):
        chosen, logprob = _choose(without_pad(model, logits), draws[alive, step], temperature)
        running = ~ended[alive]  # rows that ended still sit in the batch until it is compacted
        tokens[alive, step] = torch.where(running, chosen, end)
        logprobs[alive, step] = torch.where(running, logprob, 0.0)
        lengths[alive[running & (chosen == end)]] = step + 1
        ended[alive] |= chosen == end
        living = int((~ended).sum())
        if living == 0 or step + 1 == max_new_tokens:
            break
        if living <= RETIRE_BELOW * len(alive):
            kept = (~ended[alive]).nonzero().squeeze(-1)
            alive, positions, mask = alive[kept], positions[kept], mask[kept]
            chosen = chosen[kept]
            cache.batch_select_indices(kept)
        mask[:, columns + step] = 1
        logits = _next_logits(
            model, chosen[:, None], mask[:, : columns + step + 1], positions[:, None], cache
        )
        positions = positions + 1

    return [
        Sampled(row[:length], values[:length], "end" if is_ended else "length")
        for row, values, length, is_ended in zip(
            tokens.tolist(), logprobs.tolist(), lengths.tolist(), ended.tolist(), strict=True
        )
    ]


def _uniform(seeds: Sequence[int], count: int) -> Tensor:
    """(N, count) doubles in [0, 1): row n from seed n alone."""
    rows = [
        torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(rows)


def _choose(logits: Tensor, draws: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A token per row, (N,), and its log-prob: the inverse of the distribution function at `draws`.

    logits: (N, V); draws: (N,) uniform in [0, 1).
    """
    scaled = logits.float() if temperature == 0 else logits.float() / temperature
    top = scaled.amax(-1, keepdim=True)
    cumulative = (scaled - top).exp_().cumsum(-1, dtype=torch.float64)  # (N, V)
    total = cumulative[:, -1:]
    if temperature == 0:
        chosen = scaled.argmax(-1, keepdim=True)
    else:
        # right=True: the first token whose cumulative share is above, so never one of share 0
        chosen = torch.searchsorted(cumulative, draws[:, None] * total, right=True)
        chosen = chosen.clamp(max=logits.shape[-1] - 1)
    logprobs = scaled.gather(-1, chosen) - top - total.log()
    return chosen.squeeze(-1), logprobs.squeeze(-1).float()


def _prefill(
    model: Any, prompts: Sequence[tuple[int, ...]], *, room: int
) -> tuple[Tensor, Any, Tensor]:
    """(logits (N, V) after each prompt, cache of N rows, mask (N, P + room) long).

    A prompt that stands in several rows is run once. Left padding.
    """
    device = next(model.parameters()).device
    distinct = list(dict.fromkeys(prompts))
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=device)
    columns = max(len(prompt) for prompt in distinct)
    ids = torch.zeros(len(distinct), columns, dtype=torch.long)
    mask = torch.zeros(len(distinct), columns + room, dtype=torch.long)
    for row, prompt in enumerate(distinct):
        ids[row, columns - len(prompt) :] = torch.tensor(prompt)
        mask[row, columns - len(prompt) : columns] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask[:, :columns].cumsum(-1) - 1).clamp(min=0)
    cache: Any = DynamicCache(config=model.config)
    logits = _next_logits(model, ids, mask[:, :columns], positions, cache)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        cache = Cache(
            layers=[InPlaceLayer(part.keys, part.values, rows, room) for part in cache.layers]
        )
    else:
        cache.batch_select_indices(rows)
    return logits[rows], cache, mask[rows]


def _next_logits(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """(N, V): logits after the last of `ids` (N, t), which go on from what the cache holds."""
    names = forward_arguments(model.__class__)
    more: dict[str, Any] = {}
    if "position_ids" in names:
        more["position_ids"] = positions
    if "logits_to_keep" in names:
        more["logits_to_keep"] = 1
    output = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **more
    )
    return output.logits[:, -1]


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
        shape = (len(rows), keys.shape[1], self.length + room)
        self._keys = keys.new_zeros(*shape, keys.shape[3])
        self._values = values.new_zeros(*shape, values.shape[3])
        self._keys[:, :, : self.length] = keys[rows]
        self._values[:, :, : self.length] = values[rows]
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
