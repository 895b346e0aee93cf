"""What PPO samples in one step, and how it is laid out for the models.

B rollouts of a step, n of them in a micro-batch; R response columns, N response tokens of a
micro-batch, V tokens of the vocabulary, D width. A mask is bool, True = real token.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.backbone import head_only_at, without_pad
from policy.data import Message
from policy.kl import KLEstimator, k1, k3
from policy.last_mlp import last_mlp_only_at
from policy.losses import entropy, token_logprobs
from policy.processes import ALONE, Processes
from policy.reader import Reader
from policy.sampling import Sampled
from policy.shared_prompt import Forest, Tree, inputs_of_forest
from policy.value import ValueHead

Found = dict[str, Tensor]
"""(n, R) each, by the rollouts' name for it."""

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
    """Some rollouts as one model input, padded on the right. A prompt may stand there once for
    several responses (policy/shared_prompt.py).

    What the models say of the N response tokens is computed as (N,) or (N, V), rollout by rollout,
    so that neither prompts nor padding cost the head anything.
    """

    forest: Forest
    sources: Tensor
    """(N,) long, the place in B x S of the id in whose state each response token was chosen."""
    response_ids: Tensor
    """(N,) the tokens that were chosen."""
    response_mask: Tensor
    """(n, R)"""

    def in_rows(self, flat: Tensor) -> Tensor:
        """(N,) -> (n, R), 0 in padding."""
        rows = torch.zeros_like(self.response_mask, dtype=flat.dtype)
        return rows.masked_scatter(self.response_mask, flat)


def pad(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: str | torch.device = "cpu",
    shared: bool = False,
) -> Padded:
    """Rows of ids as one rectangle. No prompt is empty.

    shared: rows with one prompt that stand behind each other become one line; for models of which
    `shares_exactly` is true.
    """
    pairs = list(zip(prompts, responses, strict=True))
    groups: list[list[int]] = []
    for row, prompt in enumerate(prompts):
        if shared and row and prompt == prompts[row - 1]:
            groups[-1].append(row)
        else:
            groups.append([row])
    trees = [Tree.of([[*pairs[row][0], *pairs[row][1]] for row in group]) for group in groups]
    longest_line = max(len(tree.ids) for tree in trees)
    sources: list[int] = []
    for line, (group, tree) in enumerate(zip(groups, trees, strict=True)):
        for place, row in enumerate(group):
            start, end = len(prompts[row]), len(prompts[row]) + len(responses[row])
            sources += [line * longest_line + at for at in tree.path(place)[start - 1 : end - 1]]
    longest = max(len(response) for response in responses)
    response_mask = torch.zeros((len(pairs), longest), dtype=torch.bool)
    for row, response in enumerate(responses):
        response_mask[row, : len(response)] = True
    return Padded(
        Forest.of(trees, pad_id, device),
        torch.tensor(sources, device=device),
        torch.tensor([token for response in responses for token in response], device=device),
        response_mask.to(device),
    )


def response_logits(model: Any, padded: Padded) -> Tensor:
    """(N, V): the logits that each response token was chosen from."""
    return response_logits_and_states(model, padded)[0]


def response_logits_and_values(
    model: Any, head: ValueHead, padded: Padded
) -> tuple[Tensor, Tensor]:
    """Both of one pass: (N, V) logits, (n, R) values in score units."""
    logits, states = response_logits_and_states(model, padded)
    with torch.autocast(states.device.type, enabled=False):
        return logits, padded.in_rows(head(states).squeeze(-1))


def response_logits_and_states(model: Any, padded: Padded) -> tuple[Tensor, Tensor]:
    """(N, V) float32 logits and (N, D) float32 last hidden states that they came from.

    The model's own forward runs whole, so logits that an architecture scales or caps are scaled
    and capped; its head is only shown fewer hidden states, and computes in fp32 in any precision:
    log-probs of bf16 logits would be off by hundredths.
    """
    sources = padded.sources
    with (
        head_only_at(model, sources, in_fp32=True) as shown,
        last_mlp_only_at(sources, model.base_model),
    ):
        logits = model(**inputs_of_forest(model, padded.forest)).logits
    return without_pad(model, logits), shown[0]


def response_values(model: Any, padded: Padded) -> Tensor:
    """(n, R) values of the states that the response tokens were chosen in, score units."""
    with last_mlp_only_at(padded.sources, model.base_model):
        hidden = model.base_model(**inputs_of_forest(model.base_model, padded.forest))
    states = hidden.last_hidden_state.flatten(0, 1)[padded.sources].float()
    with torch.autocast(states.device.type, enabled=False):
        return padded.in_rows(model.score(states).squeeze(-1))


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

    def padded(self, rows: Sequence[int], reader: Reader) -> Padded:
        """These rollouts as this model's input; its R is their own longest response."""
        return pad(
            [self.prompts[i].ids for i in rows],
            [self.samples[i].tokens for i in rows],
            pad_id=self.pad_id,
            device=reader.model.device,
            shared=reader.shared,
        )

    def num_tokens_of(self, rows: Sequence[int]) -> int:
        """Tokens that these rollouts are read as, their common prompt once."""
        return len(self.prompts[rows[0]].ids) + sum(len(self.samples[i].tokens) for i in rows)

    def lines(self, rows: Iterable[int], reader: Reader, max_tokens: int) -> list[list[int]]:
        """`rows` as this model reads them: see `Reader.lines`."""
        return reader.lines(rows, lambda i: self.prompts[i].ids, self.num_tokens_of, max_tokens)

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


def recompute(
    rollouts: Rollouts,
    *,
    policy: Reader,
    reference: Reader,
    value: Reader | None,
    temperature: float,
    max_tokens: int,
    processes: Processes = ALONE,
) -> None:
    """Fill log-probs of policy and reference, entropies and values, by the trainer's own forward.

    value: a model of its own; None where a head on the policy's trunk gives the values, or none
    does. max_tokens: as of `Reader.read`.

    The same forward runs in the update, so the ratio of the first minibatch is 1, to rounding. Each
    process looks at its share of the prompts, and all end up with all that was found.
    """

    def look(reader: Reader, found: Callable[[Any, ValueHead | None, Padded], Found]) -> None:
        def fill(model: Any, head: ValueHead | None, rows: list[int]) -> None:
            padded = rollouts.padded(rows, reader)
            columns = padded.response_mask.shape[1]
            for name, values in found(model, head, padded).items():
                getattr(rollouts, name)[rows, :columns] = values

        lines = rollouts.lines(range(len(rollouts)), reader, max_tokens)
        lines = processes.share(lines, rollouts.num_tokens_of)
        reader.read(fill, lines, rollouts.num_tokens_of, max_tokens)

    def of_policy(model: Any, head: ValueHead | None, padded: Padded) -> Found:
        if head is None:
            logits, more = response_logits(model, padded), {}
        else:
            logits, values = response_logits_and_values(model, head, padded)
            more = {"values": values}
        logprobs = token_logprobs(logits, padded.response_ids, temperature=temperature)
        spread = entropy(logits, temperature=temperature)
        return {"logprobs": padded.in_rows(logprobs), "entropy": padded.in_rows(spread), **more}

    def of_reference(model: Any, _: ValueHead | None, padded: Padded) -> Found:
        logits = response_logits(model, padded)
        logprobs = token_logprobs(logits, padded.response_ids, temperature=temperature)
        return {"ref_logprobs": padded.in_rows(logprobs)}

    look(policy, of_policy)
    look(reference, of_reference)
    if value is not None:
        look(value, lambda model, _, padded: {"values": response_values(model, padded)})
    processes.sum_tensors(  # a row is 0 but where it was looked at
        (rollouts.logprobs, rollouts.ref_logprobs, rollouts.entropy, rollouts.values)
    )


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
