"""From a reward-model directory to scores: the only code that does it.

N = completions in a batch, T = tokens of the longest. A score is read where the completion ends: at
its last real token, which is found from the mask. The pad id says nothing about it, for a model may
well have sampled that id.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.backbone import context_of, forward_hidden, score_model_from
from policy.compute import attend_in_three_products, autocast_dtype, fuse_gelu
from policy.config import BadInput, require
from policy.data import Message
from policy.ensemble import Ensemble, Scored, is_ensemble, load_ensemble
from policy.lanes import alias, num_lanes, shares, side_by_side
from policy.score_scale import ScoreScale
from policy.shared_prompt import Forest, Tree, alike, hidden_of_forest, shares_exactly
from policy.text import encode_completion, render_prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt with one completion, ready to be scored."""

    ids: list[int]
    dropped_turns: int
    """Turns that the prompt lost, oldest first, to fit."""


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether ids of one mean the same text and turns to the other."""
    return (
        one.get_vocab() == other.get_vocab()
        and one.eos_token_id == other.eos_token_id
        and one.chat_template == other.chat_template
    )


EMPTY_TURN: list[Message] = [{"role": "user", "content": ""}]


class TooLong(BadInput):
    """A completion leaves no room for any prompt."""


def require_room(scorer: "Scorer", longest: int, name: str) -> None:
    """Raise BadInput unless an answer of `longest` tokens, cut and given its end token, can be
    scored; name: the setting that it is."""
    empty = empty_turn_tokens(scorer.tokenizer)
    needed = longest + 1 + empty
    require(
        needed <= scorer.max_tokens,
        f"{name} {longest} is too long for the reward model: with the end token and the {empty} "
        f"tokens of an empty turn it takes {needed}, the reward model {scorer.max_tokens}",
    )


def require_room_for_text(
    scorer: "Scorer", tokenizer: Any, texts: Iterable[str], longest: int, name: str
) -> None:
    """`require_room` for answers of another tokenizer, which are scored as text.

    How many tokens an answer is to the reward model cannot be known before it is sampled: it is
    taken to be as many for each of its own as these texts, the prompts', are. One that is longer
    after all is read cut (`encode_cut`).
    """
    sizes = [
        [len(encode_completion(each, text)) - 1 for each in (scorer.tokenizer, tokenizer)]
        for text in texts
    ]
    theirs, own = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
    expected = math.ceil(longest * theirs / own) if own else longest
    empty = empty_turn_tokens(scorer.tokenizer)
    needed = expected + 1 + empty
    require(
        needed <= scorer.max_tokens,
        f"{name} {longest} is too long for the reward model, whose tokenizer is another: by the "
        f"prompts' text that is {expected} of its tokens, with the end token and the {empty} of an "
        f"empty turn {needed}; it takes {scorer.max_tokens}",
    )


def encode_cut(
    tokenizer: Any, prompt: Sequence[Message], completion: str, *, max_tokens: int
) -> tuple[Encoded, bool]:
    """`encode`, and whether the completion had to be cut: to its beginning and the end token, so
    much that an empty turn fits. For answers that must have a score."""
    try:
        return encode(tokenizer, prompt, completion, max_tokens=max_tokens), False
    except TooLong:
        kept = max_tokens - empty_turn_tokens(tokenizer) - 1
        require(kept > 0, f"a reward model of {max_tokens} tokens has no room for any answer")
        *answer, end = encode_completion(tokenizer, completion)
        return encode_ids(tokenizer, prompt, [*answer[:kept], end], max_tokens=max_tokens), True


def encode(
    tokenizer: Any, prompt: Sequence[Message], completion: str, *, max_tokens: int
) -> Encoded:
    """Prompt, completion and end token as ids, at most max_tokens of them.

    The completion stays whole; a prompt that does not fit loses its oldest turns. What a completion
    is read with depends on nothing but itself and its prompt, so that a score seen in training is
    the score seen later. Raises TooLong where the completion leaves no room for an empty turn.
    """
    answer = encode_completion(tokenizer, completion)
    return encode_ids(tokenizer, prompt, answer, max_tokens=max_tokens)


def encode_ids(
    tokenizer: Any, prompt: Sequence[Message], answer: Sequence[int], *, max_tokens: int
) -> Encoded:
    """`encode` of a completion that is ids already: they are kept, and no end token is added."""
    room = max_tokens - len(answer)
    try:
        rendered = render_prompt(tokenizer, prompt, max_tokens=room)
    except BadInput:
        if empty_turn_tokens(tokenizer) <= room:
            raise  # the prompt is at fault
        raise TooLong(
            f"a completion of {len(answer)} tokens is too long: the model takes {max_tokens}, "
            f"prompt included"
        ) from None
    return Encoded([*rendered.ids, *answer], rendered.dropped_turns)


def empty_turn_tokens(tokenizer: Any) -> int:
    """Tokens of the shortest prompt: what a completion must leave room for."""
    return len(render_prompt(tokenizer, EMPTY_TURN).ids)


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """ids (N, T) long, and mask (N, T) bool, True = real token."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[place, : len(row)] = True
    return ids, mask


def batches_by_length(lengths: Sequence[int], max_padded_tokens: int) -> Iterator[list[int]]:
    """Indices of rows in batches, shortest first; rows x longest stays within the limit.

    A row longer than the limit is a batch by itself.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_padded_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def scores_at_last_token(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """One score per row, (N,) float32, or (N, A) of a model with A axes, with gradient where the
    model has it.

    ids: (N, T) long; mask: (N, T) bool, True = real token, at least one in a row. Equal to the
    model's own forward on right-padded rows that hold no pad id. A model whose head is not a
    `score` matrix over the last token (encoders) is asked for its own answer.
    """
    head = getattr(model, "score", None)
    if head is None:
        logits = model(input_ids=ids, attention_mask=mask.long()).logits  # (N, A)
        return logits.squeeze(-1).float()
    hidden = forward_hidden(model, ids, mask)  # (N, T, D)
    places = torch.arange(ids.shape[1], device=ids.device)
    last = torch.where(mask, places, -1).amax(dim=1)  # (N,)
    rows = torch.arange(ids.shape[0], device=ids.device)
    return head(hidden[rows, last]).squeeze(-1).float()


def scores_of_forest(
    model: Any,
    forest: Forest,
    *,
    autocast: torch.dtype | None = None,
    trunk: Callable[..., Any] | None = None,
) -> Tensor:
    """One score per row of the trees, (N,) float32, or (N, A) of a model with A axes, with gradient
    where the model has it.

    Equal to `scores_at_last_token` of the rows one by one. Trees that share anything are for models
    of which `shares_exactly` is true. autocast: what the trunk computes in; the head is fp32.
    trunk: the model's own trunk, compiled.
    """
    head = getattr(model, "score", None)
    with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
        if head is None:
            return scores_at_last_token(model, forest.ids, forest.mask)
        hidden = hidden_of_forest(model, forest, trunk)  # (N, D)
    return head(hidden.float()).squeeze(-1)


Planted = list[tuple[list[int], Tree]]
"""Indices of rows, and the tree of each group of them: what goes through the model at once."""


class Scorer:
    """A loaded reward model. Scores depend on nothing but prompt and completion: not on the batch,
    its order or its padding (to 1e-5 x max(1, |score|) in fp32). In bf16 they are rounded to some
    hundredths, and depend on the batch as much, for several times the speed.

    They are on the scale that the model's config names (policy/score_scale.py): its shift is added
    here, where the weights do not hold it."""

    def __init__(
        self, model: Any, tokenizer: Any, *, max_tokens: int, precision: str = "fp32"
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.scale = ScoreScale.of(model)
        self.autocast = autocast_dtype(precision, model.device)
        if self.autocast is not None:
            fuse_gelu(model)
            attend_in_three_products(model)

    def encode(self, prompt: Sequence[Message], completion: str) -> Encoded:
        return encode(self.tokenizer, prompt, completion, max_tokens=self.max_tokens)

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[str],
        batch_tokens: int = 8192,
    ) -> list[float]:
        """A score for each prompt with its completion, in order.

        batch_tokens: padded tokens per forward pass. Raises TooLong for a completion that leaves no
        room for a prompt.
        """
        require(
            len(prompts) == len(completions),
            f"as many prompts as completions: {len(prompts)} and {len(completions)}",
        )
        rows = [self.encode(*pair).ids for pair in zip(prompts, completions, strict=True)]
        return self.score_ids(rows, batch_tokens)

    def score_tokens(
        self,
        prompts: Sequence[Sequence[Message]],
        completion_ids: Sequence[Sequence[int]],
        batch_tokens: int = 8192,
    ) -> list[float]:
        """Scores of sampled tokens, which are kept as they are: nothing is decoded or added.

        The ids are of this model's own tokenizer (see `shares_tokenizer`). completion_ids hold the
        end token where it was sampled; a completion without it is scored where it stops. A prompt
        is read as `encode` reads it, whatever the sampler saw of it.
        """
        rows = [
            encode_ids(self.tokenizer, prompt, answer, max_tokens=self.max_tokens).ids
            for prompt, answer in zip(prompts, completion_ids, strict=True)
        ]
        return self.score_ids(rows, batch_tokens)

    def shares_tokenizer(self, tokenizer: Any) -> bool:
        """Whether ids of that tokenizer mean the same text and turns here."""
        return same_tokenizer(self.tokenizer, tokenizer)

    def scored_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[Scored]:
        """`score_ids`, with what an ensemble or a model of several axes knows beside the score."""
        heads = self.heads(rows, batch_tokens)
        parts = zip(self.scale.scores(heads), self.scale.by_axis(heads), strict=True)
        return [Scored(score, axes=axes) for score, axes in parts]

    def scored_cut(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[str],
        batch_tokens: int = 8192,
    ) -> list[Scored]:
        """`scored_ids` of completions that must have a score: one that leaves no room for a prompt
        is read cut (`encode_cut`), and says so."""
        read = [
            encode_cut(self.tokenizer, *pair, max_tokens=self.max_tokens)
            for pair in zip(prompts, completions, strict=True)
        ]
        scored = self.scored_ids([row.ids for row, _ in read], batch_tokens)
        return [each._replace(was_cut=was) for each, (_, was) in zip(scored, read, strict=True)]

    @cached_property
    def shares_prompts(self) -> bool:
        """Whether rows that begin alike can be read together: tried once."""
        return shares_exactly(self.model, self.max_tokens)

    def score_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[float]:
        """Scores of rows of ids, prompt and completion together, in the order given."""
        return self.scale.scores(self.heads(rows, batch_tokens))

    @cached_property
    def lanes(self) -> list[Any]:
        """The model, and those that share its weights and score beside it (policy/lanes.py)."""
        return [self.model, *(alias(self.model) for _ in range(num_lanes(self.model) - 1))]

    def heads(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> Tensor:
        """What the weights say of rows of ids, (N, A) float32 on the CPU; A is 1 without axes."""
        found = torch.empty(len(rows), self.model.config.num_labels)
        lanes = self.lanes
        batches = self._batches(rows, batch_tokens // len(lanes))
        parts = shares(batches, lambda batch: sum(len(tree.ids) for _, tree in batch), len(lanes))

        @torch.inference_mode()
        def score(model: Any, part: Sequence[Planted]) -> None:
            for batch in part:
                places, forest = self._forest(batch)
                values = scores_of_forest(model, forest, autocast=self.autocast)
                found[places] = values.view(len(places), -1).cpu()

        side_by_side([partial(score, *each) for each in zip(lanes, parts, strict=True)])
        return found

    def forests(
        self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192
    ) -> Iterator[tuple[list[int], Forest]]:
        """Rows of ids as they go through the model: (indices of some, their forest), of
        batch_tokens at most.

        Rows that begin alike, such as completions of one prompt, are read together where the model
        allows it.
        """
        return map(self._forest, self._batches(rows, batch_tokens))

    def _batches(self, rows: Sequence[Sequence[int]], batch_tokens: int) -> list[Planted]:
        longest = min(batch_tokens, 2 * self.max_tokens)
        groups = alike(rows, longest) if self.shares_prompts else [[at] for at in range(len(rows))]
        trees = [Tree.of([rows[index] for index in group]) for group in groups]
        lengths = [len(tree.ids) for tree in trees]
        return [
            [(groups[number], trees[number]) for number in batch]
            for batch in batches_by_length(lengths, batch_tokens)
        ]

    def _forest(self, batch: Planted) -> tuple[list[int], Forest]:
        pad_id, device = self.model.config.pad_token_id, self.model.device
        forest = Forest.of([tree for _, tree in batch], pad_id, device)
        return [index for group, _ in batch for index in group], forest


class EnsembleScorer(Scorer):
    """Several reward models with one tokenizer, and one score by the rule of their ensemble."""

    def __init__(self, ensemble: Ensemble, members: Sequence[Scorer]) -> None:
        """Raises BadInput where a member reads other tokens than the first."""
        first = members[0]
        for member, described in zip(members, ensemble.members, strict=True):
            require(
                member.shares_tokenizer(first.tokenizer),
                f"{described.directory} of the ensemble has another tokenizer or chat template "
                f"than {ensemble.members[0].directory}",
            )
        shortest = min(member.max_tokens for member in members)
        super().__init__(first.model, first.tokenizer, max_tokens=shortest)
        self.ensemble = ensemble
        self.members = members
        self.scale = ensemble.scale

    def score_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[float]:
        return [each.score for each in self.scored_ids(rows, batch_tokens)]

    def scored_ids(self, rows: Sequence[Sequence[int]], batch_tokens: int = 8192) -> list[Scored]:
        if not rows:
            return []
        told = [member.scored_ids(rows, batch_tokens) for member in self.members]
        scores = [[each.score for each in own] for own in told]
        scored = self.ensemble.combine(torch.tensor(scores, dtype=torch.float64))
        if not self.scale.axes:
            return scored
        heads = torch.tensor([[each.axes for each in own] for own in told], dtype=torch.float64)
        axes = self.ensemble.combine_axes(heads)  # of (M, N, A)
        return [each._replace(axes=own) for each, own in zip(scored, axes, strict=True)]


def load_scorer(directory: str | Path, device: str = "cpu", *, precision: str = "fp32") -> Scorer:
    """The reward model in a directory of `AutoModelForSequenceClassification`, or the ensemble of
    such in one with an ensemble.json. precision: of policy.compute.PRECISIONS; the weights are in
    fp32 in each, and so is the head, except an encoder's.

    Raises BadInput for a folder that is absent or holds something else.
    """
    if is_ensemble(directory):
        ensemble = load_ensemble(directory)
        folders = [Path(directory) / member.directory for member in ensemble.members]
        members = [load_scorer(folder, device, precision=precision) for folder in folders]
        return EnsembleScorer(ensemble, members)
    model, tokenizer = score_model_from(directory, seed=0, device=device)
    kind = (model.config.architectures or ["?"])[0]
    require(
        kind.endswith("ForSequenceClassification"),
        f"{directory} holds a {kind}, not a reward model",
    )
    longest = max_tokens_of(model, tokenizer)
    return Scorer(model, tokenizer, max_tokens=longest, precision=precision)


def max_tokens_of(model: Any, tokenizer: Any) -> int:
    """Prompt and completion together: the smaller of the model's positions and the tokenizer's
    limit, which a reward-model run sets to the one that it trained with."""
    return min(context_of(model), int(tokenizer.model_max_length))
