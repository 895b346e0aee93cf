"""Comparisons as token ids, and the batches they are trained in.

C = comparisons, N = completions in a batch, P = pairs. A line is what goes through the model: the
completions of a comparison with their prompt, once (policy/shared_prompt.py), or one completion.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from policy.comparisons import Comparison, PairTable
from policy.config import require
from policy.data import Message
from policy.run import generator_for
from policy.scoring import Encoded, TooLong, encode
from policy.shared_prompt import Forest, Tree
from rewardmodel.targets import PLAIN, TargetBatch, TargetRule, Targets


@dataclass(frozen=True, slots=True)
class Example:
    """One comparison: its completions as ids, prompt and end token included, and its answers.

    table: the strict pairs, for figures. targets: what the loss asks. Both name scores, of which a
    completion has `num_heads`. group, weight: as in the row.
    """

    rows: tuple[Sequence[int], ...]
    table: PairTable
    targets: Targets
    id: str = ""
    """The row's, to name it by."""
    group: str = ""
    weight: float = 1.0
    num_heads: int = 1

    @property
    def num_scores(self) -> int:
        return len(self.rows) * self.num_heads

    @property
    def num_tokens(self) -> int:
        """Of its rows, each with its prompt."""
        return sum(len(row) for row in self.rows)

    def lines(self, shared: bool) -> list[Tree]:
        """What goes through the model: one tree of all rows, or each row by itself."""
        return [Tree.of(self.rows)] if shared else [Tree.of([row]) for row in self.rows]


@dataclass(slots=True)
class Funnel:
    """Where the comparisons of a split went; the first four add up to those read."""

    num_used: int = 0
    num_no_strict_pair: int = 0
    """Nor anything else that the loss learns from."""
    num_too_long: int = 0
    """With completions so long that nothing is left to learn from."""
    num_same_tokens: int = 0
    """Of two completions the model is given the same ids (unknown signs, letters without their
    case ...): whatever was preferred, it cannot see."""
    num_prompts_shortened: int = 0
    """Used, with a prompt that lost turns to keep a completion whole."""
    num_lists_shortened: int = 0
    """Used, without a completion that is too long: what was said of the others counts."""
    num_ties: int = 0
    """Pairs that votes left tied; they are in Davidson's loss alone."""


@dataclass(slots=True)
class Examples:
    items: list[Example] = field(default_factory=list)
    funnel: Funnel = field(default_factory=Funnel)

    def add(
        self,
        comparison: Comparison,
        tokenizer: Any,
        max_tokens: int,
        rule: TargetRule = PLAIN,
    ) -> None:
        """Encode one comparison, or count why it is left out."""
        self.funnel.num_ties += comparison.table.num_ties
        targets = rule.targets(comparison)
        if not targets or not comparison.weight:
            self.funnel.num_no_strict_pair += 1
            return
        encoded = fitting(comparison, lambda *pair: encode(tokenizer, *pair, max_tokens=max_tokens))
        shortened = len(encoded) < len(comparison.texts)
        if shortened:
            comparison = comparison.among(list(encoded))
            targets = rule.targets(comparison)
            if not targets:
                self.funnel.num_too_long += 1
                return
        if targets.pairs and same_tokens(encoded.values()):
            self.funnel.num_same_tokens += 1
            return
        self.funnel.num_used += 1
        self.funnel.num_lists_shortened += shortened
        self.funnel.num_prompts_shortened += any(each.dropped_turns for each in encoded.values())
        rows = tuple(array("i", each.ids) for each in encoded.values())
        self.items.append(
            Example(
                rows,
                rule.table(comparison),
                targets,
                id=comparison.id,
                group=comparison.group,
                weight=comparison.weight,
                num_heads=rule.num_heads,
            )
        )

    def counts(self, split: str) -> dict[str, int]:
        """The funnel, each name behind the split's: train_num_used ..."""
        return {f"{split}_{name}": value for name, value in asdict(self.funnel).items()}


def fitting(
    comparison: Comparison, encode_one: Callable[[Sequence[Message], str], Encoded]
) -> dict[int, Encoded]:
    """Index -> ids of those completions that are not too long, in order."""
    found = {}
    for index, text in enumerate(comparison.texts):
        try:
            found[index] = encode_one(comparison.prompt, text)
        except TooLong:
            continue
    return found


def same_tokens(completions: Collection[Encoded]) -> bool:
    """Whether two of a prompt's completions are the same to the model, whatever their texts."""
    return len({tuple(each.ids) for each in completions}) < len(completions)


@dataclass(frozen=True, slots=True)
class Batch:
    """forest: what goes through the model, with N completions; targets, with indices into their
    scores."""

    forest: Forest
    targets: TargetBatch

    @classmethod
    def of(
        cls, examples: Sequence[Example], pad_id: int, device: str = "cpu", *, shared: bool = True
    ) -> "Batch":
        """shared: a prompt is read once for all its completions."""
        lines = [line for example in examples for line in example.lines(shared)]
        counts = [example.num_scores for example in examples]
        return cls(
            forest=Forest.of(lines, pad_id, device),
            targets=TargetBatch.of(
                [example.targets for example in examples],
                starts=list(accumulate(counts, initial=0))[:-1],
                weights=[example.weight for example in examples],
                device=device,
            ),
        )


def weighted(examples: Sequence[Example], thread_weight: float | None) -> list[Example]:
    """Examples with weights of mean 1; those of one group share at most thread_weight before.

    A mean of 1 lets the learning rate mean what it means without weights.
    """
    totals: dict[str, float] = defaultdict(float)
    for example in examples:
        totals[example.group] += example.weight
    weights = [
        example.weight * min(1.0, thread_weight / totals[example.group])
        if thread_weight
        else example.weight
        for example in examples
    ]
    mean = sum(weights) / len(weights)
    return [
        replace(example, weight=weight / mean)
        for example, weight in zip(examples, weights, strict=True)
    ]


def require_each_axis(axes: Sequence[str], examples: Sequence[Example], data: Path) -> None:
    """Raise BadInput that names the first axis whose head would learn nothing."""
    answered = {
        score % len(axes)
        for example in examples
        for score in (
            *(pair.first for pair in example.targets.pairs),
            *(one.completion for one in example.targets.judged),
        )
        if axes
    }
    for number, axis in enumerate(axes):
        require(number in answered, f"no train row of {data} says anything of axis {axis!r}")


PIECE_TOKENS = 64
"""What one more forward and backward pass costs beside its tokens, in tokens: two pieces are better
than one where they save more padding than this."""


def pieces(
    examples: Sequence[Example], max_padded_tokens: int, *, shared: bool = True
) -> list[list[Example]]:
    """Whole comparisons in pieces of at most max_padded_tokens, cut so that little is padding.

    A comparison is never cut, for its pairs need all of its scores; one beyond the limit is a piece
    by itself. How a step is cut changes memory and time, not its gradient.
    """
    lines = [example.lines(shared) for example in examples]
    longest = [max(len(line.ids) for line in each) for each in lines]
    order = sorted(range(len(examples)), key=longest.__getitem__)
    best = [0]  # cost of the first `end` in order
    starts = [0]  # where their last piece begins
    for end in range(1, len(order) + 1):
        height, cheapest, begin = 0, None, end - 1
        for start in range(end - 1, -1, -1):
            height += len(lines[order[start]])
            padded = height * longest[order[end - 1]]
            if padded > max_padded_tokens and start < end - 1:
                break
            cost = best[start] + padded + PIECE_TOKENS
            if cheapest is None or cost < cheapest:
                cheapest, begin = cost, start
        assert cheapest is not None
        best.append(cheapest)
        starts.append(begin)
    cut: list[list[Example]] = []
    end = len(order)
    while end:
        cut.append([examples[index] for index in order[starts[end] : end]])
        end = starts[end]
    return cut[::-1]


def num_steps(num_examples: int, *, per_step: int, num_epochs: int) -> int:
    return num_epochs * -(-num_examples // per_step)


def examples_of_step(
    examples: Sequence[Example], step: int, *, per_step: int, seed: int
) -> list[Example]:
    """The examples of a step counted from 1: each once an epoch, in an order that depends on seed
    and epoch alone, so that a resumed run asks for the step it needs."""
    steps_per_epoch = num_steps(len(examples), per_step=per_step, num_epochs=1)
    epoch, place = divmod(step - 1, steps_per_epoch)
    order = torch.randperm(len(examples), generator=generator_for(seed, epoch, "order")).tolist()
    return [examples[index] for index in order[place * per_step : (place + 1) * per_step]]
