"""One forward pass for several completions of one prompt: what they begin with is read once.

Rows of ids that share a beginning are laid into one line as a tree: each id stands there once, its
position is the number of ids before it on its own row, and it attends to those alone. For causal
attention this is exact: what an id is read with is what it would be read with in a row of its own.

Axes: B trees, S ids of the longest, N rows of all trees, D width.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policy.backbone import forward_arguments, inputs_of
from policy.last_mlp import last_mlp_only_at

HIDDEN = -1e9
"""Added to the attention logits of what an id must not see: its share is 0 in every precision."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ids of a tree that stand in a line: they see `parent`, all that it sees, and each other."""

    start: int
    end: int
    parent: int
    """Place of the id before the first; -1 where a row begins."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows of ids in which equal beginnings stand once."""

    ids: tuple[int, ...]
    depths: tuple[int, ...]
    """Ids before each on its row: its position."""
    stretches: tuple[Stretch, ...]
    ends: tuple[int, ...]
    """Where each row's last id stands, rows as they were given."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Tree":
        """The tree of these rows; none may be empty.

        In sorted order a row shares with all earlier ones what it shares with the one before it.
        """
        ids: list[int] = []
        depths: list[int] = []
        stretches: list[Stretch] = []
        ends = [0] * len(rows)
        path: list[int] = []  # places of the row before
        before: Sequence[int] = ()
        for number in sorted(range(len(rows)), key=lambda number: list(rows[number])):
            row = rows[number]
            shared = num_shared(before, row)
            del path[shared:]
            start = len(ids)
            ids += row[shared:]
            depths += range(shared, len(row))
            if len(row) > shared:
                stretches.append(Stretch(start, len(ids), path[-1] if path else -1))
            path += range(start, len(ids))
            ends[number] = path[-1]
            before = row
        return cls(tuple(ids), tuple(depths), tuple(stretches), tuple(ends))

    def path(self, row: int) -> list[int]:
        """Where the row's ids stand, first to last."""
        found: list[int] = []
        at = self.ends[row]
        while at >= 0:
            stretch = next(each for each in self.stretches if each.start <= at < each.end)
            found += range(at, stretch.start - 1, -1)
            at = stretch.parent
        return found[::-1]


def num_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Ids that both begin with."""
    for place, (mine, other) in enumerate(zip(first, second, strict=False)):
        if mine != other:
            return place
    return min(len(first), len(second))


def alike(rows: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices of rows in groups that are worth a tree, of at most max_tokens ids each.

    A row joins the one before it in sorted order if they share half of it or more: attention in a
    tree costs what its length costs squared, so that a few equal ids at the start do not pay.
    """
    groups: list[list[int]] = []
    before: Sequence[int] = ()
    total = 0
    for index in sorted(range(len(rows)), key=lambda index: list(rows[index])):
        row = rows[index]
        shared = num_shared(before, row)
        if groups and 2 * shared >= len(row) and total + len(row) - shared <= max_tokens:
            groups[-1].append(index)
            total += len(row) - shared
        else:
            groups.append([index])
            total = len(row)
        before = row
    return groups


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees side by side, padded on the right.

    ids, positions: (B, S) long. mask: (B, S) bool, True = real token. sees: (B, S, S) bool, True =
    the id of that line attends to the id of that column; padding sees itself. ends: (N,) long,
    places in B x S, tree by tree. Where every tree is one row there is no `sees`: rows are padded
    on the right, for any model.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    sees: Tensor | None
    ends: Tensor

    @classmethod
    def of(cls, trees: Sequence[Tree], pad_id: int, device: torch.device | str = "cpu") -> "Forest":
        longest = max(len(tree.ids) for tree in trees)
        shape = (len(trees), longest)
        ids = torch.full(shape, pad_id, dtype=torch.long)
        positions = torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.bool)
        for number, tree in enumerate(trees):
            ids[number, : len(tree.ids)] = torch.tensor(tree.ids)
            positions[number, : len(tree.ids)] = torch.tensor(tree.depths)
            mask[number, : len(tree.ids)] = True
        ends = [number * longest + end for number, tree in enumerate(trees) for end in tree.ends]
        shares = any(len(tree.stretches) > 1 for tree in trees)
        return cls(
            ids=ids.to(device),
            positions=positions.to(device),
            mask=mask.to(device),
            sees=_seen(trees, longest).to(device) if shares else None,
            ends=torch.tensor(ends, device=device),
        )


def _seen(trees: Sequence[Tree], longest: int) -> Tensor:
    """`Forest.sees`, (B, S, S)."""
    sees = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    for seen, tree in zip(sees, trees, strict=True):
        for stretch in tree.stretches:
            start, end = stretch.start, stretch.end
            if stretch.parent >= 0:
                seen[start:end, :start] = seen[stretch.parent, :start]
            seen[start:end, start:end] = causal[: end - start, : end - start]
    return sees


def hidden_of_forest(model: Any, forest: Forest, trunk: Callable[..., Any] | None = None) -> Tensor:
    """Last hidden states of the trunk under any head at the forest's ends, (N, D).

    trunk: what is called for trees that share anything, the model's own by default.
    """
    inner = model.base_model
    read = inner if trunk is None or forest.sees is None else trunk
    with last_mlp_only_at(forest.ends, inner) if trunk is None else nullcontext():
        hidden = read(**inputs_of_forest(inner, forest)).last_hidden_state
    return hidden.flatten(0, 1)[forest.ends]


def inputs_of_forest(model: Any, forest: Forest) -> dict[str, Any]:
    """What the model's forward takes for these trees."""
    if forest.sees is None:
        return inputs_of(model, forest.ids, forest.mask)
    return {
        "input_ids": forest.ids,
        "attention_mask": attention_masks(model.base_model, forest.sees, forest.positions),
        "position_ids": forest.positions,
        "use_cache": False,
    }


def attention_masks(inner: Any, sees: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
    """(B, 1, S, S), added to the attention logits; by layer type where a model mixes them."""
    kinds = set(getattr(inner.config, "layer_types", None) or ())
    window = getattr(inner.config, "sliding_window", None)
    full = _added(inner, sees)
    if window is None or kinds == {"full_attention"}:
        return full
    behind = positions[:, :, None] - positions[:, None, :]
    near = _added(inner, sees & (behind < window))
    return {"full_attention": full, "sliding_attention": near} if len(kinds) > 1 else near


def _added(inner: Any, sees: Tensor) -> Tensor:
    """The mask as numbers, in the precision that attention is computed in."""
    device = sees.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else inner.dtype
    hidden = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return hidden.masked_fill_(~sees, HIDDEN).unsqueeze(1)


@torch.no_grad()
def shares_exactly(model: Any, max_tokens: int) -> bool:
    """Whether this model reads a tree as it reads each of its rows alone: found by trying.

    Encoders, models that mix along the line by other means than attention, and models that take
    positions from the line or read no 4D mask do not. A sliding window below max_tokens is tried
    too. Nothing of the model changes, nor of torch's random state.
    """
    inner = model.base_model
    head = getattr(model, "score", None) or getattr(model, "lm_head", None)
    if head is None or "position_ids" not in forward_arguments(inner.__class__):
        return False
    rows = _rows_to_try(inner.config, max_tokens)
    was_training = model.training
    model.eval()
    try:
        forest = Forest.of([Tree.of(rows)], 0, model.device)
        together = hidden_of_forest(model, forest)
        alone = [
            inner(input_ids=torch.tensor([row], device=model.device)).last_hidden_state[0, -1]
            for row in rows
        ]
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False  # it takes no such mask
    finally:
        model.train(was_training)
    difference = (together - torch.stack(alone)).abs().amax()
    return bool(difference <= 1e-4 * torch.stack(alone).abs().amax())


def _rows_to_try(config: Any, max_tokens: int) -> list[list[int]]:
    """Three rows of one prompt that end apart, longer than a window that matters."""
    window = getattr(config, "sliding_window", None)
    longest = window + 8 if window is not None and window + 8 <= max_tokens else 16
    longest = min(longest, max_tokens)
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(config.vocab_size, (longest + 8,), generator=draw).tolist()
    prompt = drawn[: longest - 4]
    return [[*prompt, *drawn[longest - 4 + at : longest - at]] for at in range(2)] + [
        [*prompt, drawn[-1]]
    ]
