"""Preferences as tokens: answers to one prompt, the pairs that votes decide, one step of DPO.

P = pairs, K = answers of an example, n = answers of a micro-batch, R response columns. The loss of
an example's pairs sums to its weight whatever its K, and each answer is run once, not once a pair.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor

from policy.comparisons import Comparison
from policy.config import BadInput, require, require_all_positive
from policy.losses import PREFERENCE_LOSSES
from policy.optim import clip_grad_norm, require_finite
from policy.processes import ALONE, Processes
from policy.reader import Reader
from policy.response_logprobs import padded_logprobs, response_logprobs
from policy.rollout import pad
from policy.text import encode_completion, render_prompt
from policy.value import ValueHead

ROUNDING_NATS = 1e-4
"""What log-probs of an answer depend on their batch by, about: what is closer is in no order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """What a step on pairs is made of, offline and online."""

    loss: str = "dpo"
    """`dpo` or `ipo` (policy/losses.py)."""
    beta: float = 0.1
    """Per nat: how dear it is to leave the reference. For ipo 1 / (2 beta) nats are asked for."""
    label_smoothing: float = 0.0
    """Each vote is wrong with this probability."""
    temperature: float = 1.0
    """Of every log-probability, the reference's too."""
    micro_batch_tokens: int = 2048
    """Padded tokens in one forward and backward; bounds memory, changes no gradient."""
    lr_peak: float = 1e-4
    """For one to three million parameters; 5e-7 to 5e-6 is usual from 1B up."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    checkpoint_every: int = 50
    """Steps between two checkpoints."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_all_positive(
            self,
            *("beta", "temperature", "micro_batch_tokens", "lr_peak", "max_grad_norm"),
            "checkpoint_every",
        )
        require(self.weight_decay >= 0, f"weight_decay must be >= 0: {self.weight_decay}")
        require(
            self.loss in PREFERENCE_LOSSES,
            f"loss must be one of {', '.join(PREFERENCE_LOSSES)}: {self.loss!r}",
        )
        require(
            0 <= self.label_smoothing < 0.5,
            f"label_smoothing must be in [0, 0.5): {self.label_smoothing}",
        )


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with its K answers as ids, and what is known of their pairs."""

    prompt: list[int]
    responses: list[list[int]]
    """With the end token, where the answer has one."""
    pairs: Sequence[tuple[int, int]]
    targets: Sequence[float]
    """The share of votes for the first of each pair."""
    weights: Sequence[float]
    """Of each pair; they sum to the example's weight."""

    @property
    def num_tokens(self) -> int:
        """Padded, as the example takes them in a forward pass with a prompt for each answer."""
        longest = max(len(response) for response in self.responses)
        return len(self.responses) * (len(self.prompt) + longest)

    def num_read(self, reader: Reader) -> int:
        """Tokens that it takes in this model's forward pass."""
        if not reader.shared:
            return self.num_tokens
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(slots=True)
class Encoded:
    """Examples of a file, and what became of the rows that are none."""

    examples: list[Example] = field(default_factory=list)
    pairs: int = 0
    ties: int = 0
    """Tied pairs, which DPO cannot learn from, counted per vote."""
    no_strict_pair: int = 0
    """Comparisons left out, as the following two."""
    too_long: int = 0
    same_tokens: int = 0
    """With two answers that the tokenizer makes the same of."""
    prompts_cut: int = 0
    """Comparisons whose prompt lost turns or its beginning."""

    @classmethod
    def of(cls, tokenizer: Any, rows: Iterable[Comparison], max_tokens: int) -> "Encoded":
        """Answers stay whole, and all of a comparison see the same prompt, which gives way."""
        found = cls()
        for row in rows:
            found._add(tokenizer, row, max_tokens)
        return found

    def _add(self, tokenizer: Any, row: Comparison, max_tokens: int) -> None:
        self.ties += row.table.num_ties
        if not row.table.pairs or not row.weight:
            self.no_strict_pair += 1
            return
        responses = [encode_completion(tokenizer, text) for text in row.texts]
        if len({tuple(response) for response in responses}) < len(responses):
            self.same_tokens += 1
            return
        try:
            room = max_tokens - max(len(response) for response in responses)
            prompt = render_prompt(tokenizer, row.prompt, room)
        except BadInput:
            self.too_long += 1
            return
        self.prompts_cut += prompt.dropped_turns > 0
        self.pairs += len(row.table.pairs)
        weights = [weight * row.weight for weight in row.table.weights]
        self.examples.append(
            Example(prompt.ids, responses, row.table.pairs, row.table.targets, weights)
        )


def logprob_sums(
    reader: Reader,
    examples: Sequence[Example],
    config: PairConfig,
    processes: Processes = ALONE,
) -> list[Tensor]:
    """Of each example the log-prob of each of its answers, (K,) nats; without gradient. Each
    process looks at its share of the examples."""

    def some(places: list[int]) -> list[Tensor]:
        mine = [examples[place] for place in places]
        rows = [(one.prompt, response) for one in mine for response in one.responses]
        found = iter(
            response_logprobs(
                reader,
                [prompt for prompt, _ in rows],
                [response for _, response in rows],
                temperature=config.temperature,
                max_tokens=config.micro_batch_tokens,
            )
        )
        return [torch.stack([next(found).sum() for _ in one.responses]) for one in mine]

    alone = [[place] for place in range(len(examples))]
    return processes.spread(alone, some, lambda group: examples[group[0]].num_tokens)


@dataclass(slots=True)
class PairSums:
    """Weighted sums over pairs; divided by the weight they are the step's figures."""

    weight: float = 0.0
    loss: float = 0.0
    correct: float = 0.0
    """Votes that beta x log(pi / ref), the implicit reward, orders the same way."""
    margin: float = 0.0
    """Implicit reward of what the votes prefer less that of the other."""
    chosen_nats: float = 0.0
    """log(pi / ref) of what is preferred: it may well fall while the margin grows."""
    rejected_nats: float = 0.0

    @classmethod
    def over(cls, parts: Sequence["PairSums"], processes: Processes) -> "PairSums":
        """Of all parts of all processes."""
        return cls(*processes.sum([sum(row) for row in zip(*map(astuple, (cls(), *parts)))]))

    def figures(self) -> dict[str, float]:
        sums = {
            "loss": self.loss,
            "accuracy": self.correct,
            "reward_margin": self.margin,
            "chosen_nats": self.chosen_nats,
            "rejected_nats": self.rejected_nats,
        }
        return {name: value / self.weight for name, value in sums.items()}


def pair_loss(
    ratios: Sequence[Tensor], examples: Sequence[Example], config: PairConfig, sums: PairSums
) -> Tensor:
    """Weighted sum of the pairs' losses, a scalar with gradient; adds to `sums`.

    ratios: of each example log pi - log ref of each answer, (K,) nats.
    """
    first = torch.stack([own[i] for own, one in zip(ratios, examples) for i, _ in one.pairs])
    second = torch.stack([own[j] for own, one in zip(ratios, examples) for _, j in one.pairs])
    targets, weights = (
        torch.tensor([value for one in examples for value in getattr(one, name)]).to(first)
        for name in ("targets", "weights")
    )  # (P,) each
    losses = PREFERENCE_LOSSES[config.loss](
        first, second, targets, beta=config.beta, label_smoothing=config.label_smoothing
    )
    loss = (weights * losses).sum()
    with torch.no_grad():
        difference = first - second
        lean = 2 * targets - 1  # 1 where every vote prefers the first
        ordered = difference.sign() * (difference.abs() > ROUNDING_NATS)
        agrees = 0.5 + 0.5 * lean * ordered
        chosen = torch.where(targets >= 0.5, first, second)
        rejected = torch.where(targets >= 0.5, second, first)
        sums.weight += float(weights.sum())
        sums.loss += float(loss)
        sums.correct += float((weights * agrees).sum())
        sums.margin += float((weights * config.beta * lean * difference).sum())
        sums.chosen_nats += float((weights * chosen).sum())
        sums.rejected_nats += float((weights * rejected).sum())
    return loss


def train_step(
    reader: Reader,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    reference: Sequence[Tensor],
    config: PairConfig,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """One optimizer step; the loss is the weighted mean over its pairs. reference: (K,) nats each.
    processes: all are given the same, and each adds its share of the examples to the gradient.

    Raises Diverged before the weights take in a number that is not finite.
    """
    total = sum(sum(one.weights) for one in examples)

    def backward(model: Any, _: ValueHead | None, part: list[int]) -> PairSums:
        sums, some = PairSums(), [examples[at] for at in part]
        ratios = _ratios(model, reader.shared, some, [reference[at] for at in part], config)
        loss = pair_loss(ratios, some, config, sums) / total
        loss.backward()
        return sums

    def num_read(line: Sequence[int]) -> int:
        return sum(examples[at].num_read(reader) for at in line)

    optimizer.zero_grad(set_to_none=True)
    lines = processes.share([[at] for at in range(len(examples))], num_read)
    parts = reader.read(backward, lines, num_read, config.micro_batch_tokens, learns=True)
    processes.sum_gradients(reader.model)
    grad_norm = clip_grad_norm(reader.model, config.max_grad_norm)
    figures = PairSums.over(parts, processes).figures()
    require_finite(loss=figures["loss"], grad_norm=grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**figures, "grad_norm": grad_norm.item()}


@torch.no_grad()
def measure(
    reader: Reader,
    examples: Sequence[Example],
    reference: Sequence[Tensor],
    config: PairConfig,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """The step's figures over all examples, the model as it is."""
    own = logprob_sums(reader, examples, config, processes)
    ratios = [one - other for one, other in zip(own, reference, strict=True)]
    sums = PairSums()
    pair_loss(ratios, examples, config, sums)
    return sums.figures()


def _ratios(
    model: Any,
    shared: bool,
    examples: Sequence[Example],
    reference: Sequence[Tensor],
    config: PairConfig,
) -> list[Tensor]:
    padded = pad(
        [one.prompt for one in examples for _ in one.responses],
        [response for one in examples for response in one.responses],
        pad_id=model.config.pad_token_id,
        device=model.device,
        shared=shared,
    )
    own = padded_logprobs(model, padded, temperature=config.temperature).sum(dim=1)  # (n,)
    parts = own.split([len(one.responses) for one in examples])
    return [part - other.to(part) for part, other in zip(parts, reference, strict=True)]
