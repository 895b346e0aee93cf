"""Completions from a policy: our own decoding loop, temperature only.

transformers' generate() re-reads a checkpoint's sampling settings and copies the whole cache at
every step; PPO needs exactly the distribution that it scores, and spends much of its time here. The
loop reads each distinct prompt once, keeps keys and values in buffers that are written in place
(policy/decoding.py), retires the rows that have ended, and shares the rows out among lanes. Axes: N
rows, V vocabulary.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from policy.backbone import context_of
from policy.compute import autocast_dtype
from policy.config import require
from policy.decoding import Decoding, decoding_of
from policy.lanes import alias, num_lanes, side_by_side
from policy.stepping import step_of
from policy.text import end_token_id

ROWS_PER_BATCH = 128


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
    precision: str = "fp32",
    rows_per_batch: int = ROWS_PER_BATCH,
) -> list[Sampled]:
    """One completion per prompt, in order.

    seeds: one per row; a row's draws depend on its seed alone, so it can be sampled again without
    the others. temperature 0 is greedy. precision: what the layers compute in (policy/compute.py);
    the head is fp32. Raises BadInput if a prompt is empty or leaves no room for max_new_tokens in
    the model's context.
    """
    require(len(seeds) == len(prompt_ids), f"{len(prompt_ids)} prompts, {len(seeds)} seeds")
    for ids in prompt_ids:
        _require_room(model, len(ids), max_new_tokens)
    autocast = autocast_dtype(precision, next(model.parameters()).device)
    step = step_of(model, autocast or torch.float32)
    # Rows of like length together: left padding costs time in every step.
    order = sorted(range(len(prompt_ids)), key=lambda row: len(prompt_ids[row]))
    count = min(num_lanes(model), len(order))
    models = [model, *(alias(model) for _ in range(count - 1))]
    work = [len(prompt_ids[row]) + max_new_tokens for row in order]
    done: dict[int, Sampled] = {}

    def run(model: Any, rows: Sequence[int]) -> None:
        for start in range(0, len(rows), rows_per_batch):
            some = rows[start : start + rows_per_batch]
            batch = _sample_batch(
                decoding_of(
                    model,
                    [tuple(prompt_ids[row]) for row in some],
                    room=max_new_tokens,
                    autocast=autocast,
                    step=step,
                ),
                [seeds[row] for row in some],
                end=end_token_id(tokenizer),
                temperature=temperature,
                max_new_tokens=max_new_tokens,
            )
            done.update(zip(some, batch, strict=True))

    side_by_side([partial(run, *each) for each in zip(models, _split(order, work, count))])
    return [done[row] for row in range(len(prompt_ids))]


def _split(order: Sequence[int], work: Sequence[int], count: int) -> list[Sequence[int]]:
    """The rows in `count` stretches of about the same work, which is given in their order."""
    until = list(accumulate(work))
    ends = [bisect_left(until, until[-1] * part / count) + 1 for part in range(1, count)]
    places = [0, *ends, len(order)]
    return [order[start:end] for start, end in pairwise(places)]


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
    step_in_fp32 = step_of(model, torch.float32)
    decoding = decoding_of(model, [prompt], room=max_new_tokens, step=step_in_fp32)
    for step in range(max_new_tokens):
        chosen, _ = _choose(decoding.logits, draws[:, step], temperature)
        yield int(chosen)
        if int(chosen) == end or step + 1 == max_new_tokens:
            return
        decoding.append(chosen)


def _require_room(model: Any, num_tokens: int, max_new_tokens: int) -> None:
    require(
        0 < num_tokens <= context_of(model) - max_new_tokens,
        f"a prompt of {num_tokens} tokens and {max_new_tokens} new ones do not fit the context "
        f"of {context_of(model)}",
    )


@torch.inference_mode()
def _sample_batch(
    decoding: Decoding,
    seeds: Sequence[int],
    *,
    end: int,
    temperature: float,
    max_new_tokens: int,
) -> list[Sampled]:
    device, count = decoding.logits.device, len(seeds)
    draws = _uniform(seeds, max_new_tokens).to(device)  # (N, max_new_tokens)
    alive = torch.arange(count, device=device)  # (n,) rows of the batch that still run
    tokens = torch.full((count, max_new_tokens), end, device=device)
    logprobs = torch.zeros(count, max_new_tokens, device=device)
    lengths = torch.full((count,), max_new_tokens, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)

    for step in range(max_new_tokens):
        chosen, logprob = _choose(decoding.logits, draws[alive, step], temperature)
        running = ~ended[alive]  # rows that ended still sit in the batch until it is compacted
        tokens[alive, step] = torch.where(running, chosen, end)
        logprobs[alive, step] = torch.where(running, logprob, 0.0)
        lengths[alive[running & (chosen == end)]] = step + 1
        ended[alive] |= chosen == end
        living = int((~ended).sum())
        if living == 0 or step + 1 == max_new_tokens:
            break
        if living <= decoding.retire_below * len(alive):
            kept = (~ended[alive]).nonzero().squeeze(-1)
            alive, chosen = alive[kept], chosen[kept]
            decoding.keep(kept)
        decoding.append(chosen)

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
