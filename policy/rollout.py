"""What PPO samples in one step, and how it is laid out for the models.

B rollouts of a step, n of them in a micro-batch; T columns of prompt and response, R response
columns, V tokens of the vocabulary, D width. A mask is bool, True = real token.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.backbone import logits_and_states_at, logits_at
from policy.data import Message
from policy.kl import KLEstimator, k1, k3
from policy.losses import entropy, token_logprobs
from policy.sampling import Sampled
from policy.scoring import batches_by_length
from policy.value import ValueHead, forward_values

REPEATED = 4
"""Tokens in the n-grams that repetition counts, as in arXiv:1908.04319."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as the policy reads it. The ids are kept; nothing is tokenised twice."""

    id: str
    messages: Sequence[Message]
    ids: list[int]
    dropped_turns: int = 0
    """Turns left out or cut so that a whole response fits behind."""


ScoreFn = Callable[[Sequence[PromptTokens], Sequence[list[int]]], Sequence[float]]
"""Scores of completions, given as token ids with the end token, in the order given."""


@dataclass(frozen=True, slots=True)
class Padded:
    """Some rollouts as one model input: prompt and response in one piece, padding on the right.

    N is the number of response tokens of all rows. What the models say of them is computed as (N,)
    or (N, V), in reading order, so that neither prompts nor padding cost the head anything.
    """

    ids: Tensor
    """(n, T)"""
    mask: Tensor
    """(n, T)"""
    chooses: Tensor
    """(n, T) True = the next column is a response token, chosen in this column's state."""
    response_mask: Tensor
    """(n, R)"""

    @property
    def response_ids(self) -> Tensor:
        """(N,) the tokens that were chosen."""
        return self.ids.roll(-1, dims=1)[self.chooses]

    def in_rows(self, flat: Tensor) -> Tensor:
        """(N,) -> (n, R), 0 in padding."""
        rows = torch.zeros_like(self.response_mask, dtype=flat.dtype)
        return rows.masked_scatter(self.response_mask, flat)

    def to(self, device: str | torch.device) -> "Padded":
        return Padded(*(getattr(self, each.name).to(device) for each in fields(self)))


def pad(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, pad_id: int
) -> Padded:
    """Rows of ids as one rectangle. No prompt is empty."""
    pairs = list(zip(prompts, responses, strict=True))
    shape = (len(pairs), max(len(prompt) + len(response) for prompt, response in pairs))
    ids = torch.full(shape, pad_id, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    chooses = torch.zeros(shape, dtype=torch.bool)
    longest = max(len(response) for response in responses)
    response_mask = torch.zeros((len(pairs), longest), dtype=torch.bool)
    for i, (prompt, response) in enumerate(pairs):
        start, end = len(prompt), len(prompt) + len(response)
        ids[i, :end] = torch.tensor([*prompt, *response], dtype=torch.long)
        mask[i, :end] = True
        chooses[i, start - 1 : end - 1] = True
        response_mask[i, : len(response)] = True
    return Padded(ids, mask, chooses, response_mask)


def response_logits(model: Any, padded: Padded) -> Tensor:
    """(N, V): the logits that each response token was chosen from."""
    return logits_at(model, padded.ids, padded.mask, padded.chooses)


def response_logits_and_values(
    model: Any, head: ValueHead, padded: Padded
) -> tuple[Tensor, Tensor]:
    """Both of one pass: (N, V) logits, (n, R) values in score units."""
    logits, states = logits_and_states_at(model, padded.ids, padded.mask, padded.chooses)
    return logits, padded.in_rows(head(states).squeeze(-1))


def response_values(model: Any, padded: Padded) -> Tensor:
    """(n, R) values of the states that the response tokens were chosen in, score units."""
    return padded.in_rows(forward_values(model, padded.ids, padded.mask)[padded.chooses])


@dataclass(slots=True, kw_only=True)
class Rollouts:
    """The B rollouts of one step. Tensors are (B, R) unless said otherwise, 0 in padding."""

    step: int
    prompts: list[PromptTokens]
    samples: list[Sampled]
    seeds: list[int]
    pad_id: int
    mask: Tensor
    """True = real response token."""
    sampler_logprobs: Tensor
    """As the sampler saw them, nats."""
    logprobs: Tensor
    """Recomputed by the trainer before any update; the ratio's denominator."""
    ref_logprobs: Tensor
    values: Tensor
    """Score units, also of the old values that the value clip holds to."""
    entropy: Tensor
    scores: Tensor
    """(B,) as the reward model gave them."""
    baselines: Tensor
    """(B,) mean score of the reference's answers, 0 where there is no baseline."""
    missing_end: Tensor
    """(B,) what a missing end token adds to score - baseline; see `PPOConfig.missing_end`."""
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What the scores are sums of, and in `seen` what is known besides (policy/reward.py)."""
    seen: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        step: int,
        prompts: list[PromptTokens],
        samples: list[Sampled],
        seeds: list[int],
        pad_id: int,
        scores: Tensor,
        baselines: Tensor,
        missing_end: Tensor,
        device: str | torch.device,
        parts: Mapping[str, Sequence[float]] | None = None,
        seen: Mapping[str, Sequence[float]] | None = None,
    ) -> "Rollouts":
        """Rollouts as the sampler left them; `recompute` fills in what the models say."""
        columns = max(len(sample.tokens) for sample in samples)
        sampler_logprobs = torch.zeros(len(samples), columns)
        mask = torch.zeros(len(samples), columns, dtype=torch.bool)
        for i, one in enumerate(samples):
            sampler_logprobs[i, : len(one.tokens)] = torch.tensor(one.logprobs)
            mask[i, : len(one.tokens)] = True
        sampler_logprobs = sampler_logprobs.to(device)
        return cls(
            step=step,
            prompts=prompts,
            samples=samples,
            seeds=seeds,
            pad_id=pad_id,
            mask=mask.to(device),
            sampler_logprobs=sampler_logprobs,
            logprobs=torch.zeros_like(sampler_logprobs),
            ref_logprobs=torch.zeros_like(sampler_logprobs),
            values=torch.zeros_like(sampler_logprobs),
            entropy=torch.zeros_like(sampler_logprobs),
            scores=scores.to(device),
            baselines=baselines.to(device),
            missing_end=missing_end.to(device),
            parts=parts or {},
            seen=seen or {},
        )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_tokens(self) -> int:
        return sum(len(sample.tokens) for sample in self.samples)

    def padded(self, rows: Sequence[int], device: str | torch.device) -> Padded:
        """These rollouts as one model input; its R is their own longest response."""
        prompts = [self.prompts[i].ids for i in rows]
        responses = [self.samples[i].tokens for i in rows]
        return pad(prompts, responses, pad_id=self.pad_id).to(device)

    def micro_batches(self, rows: Sequence[int], max_tokens: int) -> Iterable[list[int]]:
        """`rows` in parts of at most max_tokens padded tokens, of similar length."""
        lengths = [len(self.prompts[i].ids) + len(self.samples[i].tokens) for i in rows]
        for part in batches_by_length(lengths, max_tokens):
            yield [rows[place] for place in part]

    def sequence_kl(self, estimator: KLEstimator) -> Tensor:
        """(B,) KL to the reference summed over each response, nats."""
        return torch.where(self.mask, estimator(self.logprobs, self.ref_logprobs), 0.0).sum(dim=1)

    @property
    def kl_nats(self) -> float:
        """Mean KL to the reference per response (k1), nats."""
        return self.sequence_kl(k1).mean().item()

    @property
    def rewards_before_kl(self) -> Tensor:
        """(B,) score - baseline + missing_end."""
        return self.scores - self.baselines + self.missing_end


@torch.no_grad()
def recompute(
    rollouts: Rollouts,
    *,
    policy: Any,
    reference: Any,
    value_model: Any | None,
    temperature: float,
    max_tokens: int,
) -> None:
    """Fill log-probs of policy and reference, entropies and values, by the trainer's own forward.

    value_model: a ValueHead reads the policy's own pass; None leaves the values at 0.

    The same forward runs in the update, so the ratio of the first minibatch is 1, to rounding.
    """
    for rows in rollouts.micro_batches(range(len(rollouts)), max_tokens):
        padded = rollouts.padded(rows, policy.device)
        columns = padded.response_mask.shape[1]
        tokens = padded.response_ids
        if isinstance(value_model, ValueHead):
            logits, values = response_logits_and_values(policy, value_model, padded)
            rollouts.values[rows, :columns] = values
        else:
            logits = response_logits(policy, padded)
        ref_logits = response_logits(reference, padded)
        found = {
            "logprobs": token_logprobs(logits, tokens, temperature=temperature),
            "entropy": entropy(logits, temperature=temperature),
            "ref_logprobs": token_logprobs(ref_logits, tokens, temperature=temperature),
        }
        for name, flat in found.items():
            getattr(rollouts, name)[rows, :columns] = padded.in_rows(flat)
        if value_model is not None and not isinstance(value_model, ValueHead):
            rollouts.values[rows, :columns] = response_values(value_model, padded)


def rows_of(rollouts: Rollouts, decode: Callable[[list[int]], str]) -> Iterable[dict[str, Any]]:
    """Rollouts as the rows of their file (README), with the response's text."""
    kl_nats = rollouts.sequence_kl(k1).tolist()
    kl_k3_nats = rollouts.sequence_kl(k3).tolist()
    for i, (prompt, sample) in enumerate(zip(rollouts.prompts, rollouts.samples, strict=True)):
        length = len(sample.tokens)
        yield {
            "step": rollouts.step,
            "prompt_id": prompt.id,
            "tokens": [*prompt.ids, *sample.tokens],
            "response_start": len(prompt.ids),
            "logprobs": rollouts.logprobs[i, :length].tolist(),
            "ref_logprobs": rollouts.ref_logprobs[i, :length].tolist(),
            "values": rollouts.values[i, :length].tolist(),
            "score": rollouts.scores[i].item(),
            "baseline": rollouts.baselines[i].item(),
            "missing_end": rollouts.missing_end[i].item(),
            "parts": {name: values[i] for name, values in rollouts.parts.items()},
            "seen": {name: values[i] for name, values in rollouts.seen.items()},
            "kl": kl_nats[i],
            "kl_k3": kl_k3_nats[i],
            "seed": rollouts.seeds[i],
            "finish": sample.finish,
            "text": decode(sample.tokens),
        }


def shard_path(directory: Path, step: int) -> Path:
    return directory / "rollouts" / f"step-{step:05d}.jsonl"


def write_shard(directory: Path, rollouts: Rollouts, decode: Callable[[list[int]], str]) -> Path:
    """Write DIR/rollouts/step-NNNNN.jsonl by rename; a step written again replaces itself."""
    path = shard_path(directory, rollouts.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    with staged.open("w", encoding="utf-8") as file:
        for row in rows_of(rollouts, decode):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    staged.replace(path)
    return path


def distinct_n(responses: Iterable[Sequence[int]], n: int) -> float:
    """Different n-grams over all n-grams of these token rows (arXiv:1510.03055); 0 if none."""
    grams: Counter[tuple[int, ...]] = Counter()
    for row in responses:
        grams.update(tuple(row[i : i + n]) for i in range(len(row) - n + 1))
    return len(grams) / total if (total := grams.total()) else 0.0


def repetition(tokens: Sequence[int], n: int = REPEATED) -> float:
    """The share of an answer's n-grams that stood in it before (arXiv:1908.04319, seq-rep-n); 0
    where it has none."""
    return 1.0 - distinct_n([tokens], n) if len(tokens) >= n else 0.0
