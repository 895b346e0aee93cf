"""How a run of pretraining or fine-tuning asks its model what each token costs, and one step of it.

N = tokens that are learned, V = vocabulary, D = width.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from policy.backbone import (
    context_of,
    forward_hidden,
    forward_logits,
    head_only_at,
    inputs_of,
    without_pad,
)
from policy.compute import attend_in_three_products, autocast_dtype, can_compile, fuse_gelu
from policy.lines import Lines, packed
from policy.optim import MuonWithAdamW, clip_grad_norm, require_finite
from policy.packing import NO_TOKEN
from policy.processes import ALONE, Processes
from policy.shared_prompt import attention_masks

MOST_LOGITS = 1 << 26
"""That stand at once where a model lets its head be asked piece by piece: 256 MiB in fp32."""

MOSTLY = 7 / 8
"""Of the real tokens: where more than so many are learned, the head reads all."""


class Settings(Protocol):
    """What a run's config says about its forward pass."""

    @property
    def precision(self) -> str: ...
    @property
    def compile(self) -> bool: ...
    @property
    def gradient_checkpointing(self) -> bool: ...
    @property
    def tokens_per_forward(self) -> int | None: ...


class Reading:
    """A language model, and the way in which lines go through it."""

    def __init__(self, model: Any, config: Settings) -> None:
        """The model's GELU is fused, which changes no number beyond rounding."""
        self.model = model
        self.tokens_per_forward = config.tokens_per_forward
        self.autocast = autocast_dtype(config.precision, model.device)
        self.apart = reads_blocks_apart(model)
        """Blocks of a line can be read as if each stood alone."""
        self.head_alone = _head_is_all(model)
        fuse_gelu(model)
        if self.autocast is torch.bfloat16:
            attend_in_three_products(model)
        self.compiled = config.compile and can_compile(model.device)
        if self.compiled:
            model.base_model.compile()
        if config.gradient_checkpointing:
            kept = {"use_reentrant": False}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=kept)

    def nats(self, lines: Lines) -> Tensor:
        """(N,) float32, what each token to learn costs, in the order of lines and places."""
        places = lines.targets != NO_TOKEN
        targets = lines.targets[places]
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        at_once = max(1, MOST_LOGITS // vocabulary)
        with self._precision():
            given = _inputs(self.model, lines)
            if self.head_alone and len(targets) > at_once:
                hidden = self.model.base_model(**given).last_hidden_state[places]  # (N, D)
                parts = zip(hidden.split(at_once), targets.split(at_once), strict=True)
                return torch.cat(
                    [checkpoint(self._nats_of, *part, use_reentrant=False) for part in parts]
                )
            if MOSTLY * int(lines.mask.sum()) < len(targets):  # to choose would cost more
                logits = without_pad(self.model, self.model(**given).logits)  # (B, T, V)
                logits = logits.flatten(0, 1) if bool(places.all()) else logits[places]
            else:
                with head_only_at(self.model, places.flatten().nonzero().squeeze(-1)):
                    logits = without_pad(self.model, self.model(**given).logits)  # (N, V)
            return cross_entropy(logits.float(), targets, reduction="none")

    def eagerly(self) -> AbstractContextManager[Any]:
        """Within, nothing is compiled anew: for forward passes of other shapes than training's."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def described(self) -> dict[str, int]:
        """For the run's log."""
        return {
            "bf16": int(self.autocast is torch.bfloat16),
            "compiled": int(self.compiled),
            "head_in_pieces": int(self.head_alone),
        }

    def _nats_of(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = without_pad(self.model, self.model.get_output_embeddings()(hidden))
        return cross_entropy(logits.float(), targets, reduction="none")

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.autocast)


def train_step(
    reading: Reading,
    lines: Lines,
    optimizer: "torch.optim.Optimizer | MuonWithAdamW",
    *,
    max_grad_norm: float,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """One update. The loss is the mean over the step's tokens to learn, in nats, whatever pieces
    and processes they go through in; the gradient's norm is before clipping."""
    model = reading.model
    count = max(1, lines.num_learned)
    lengths = lines.lengths if processes.count > 1 else []
    mine = processes.share(range(len(lines.ids)), lambda row: lengths[row])
    optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for piece in lines.take(mine).pieces(reading.tokens_per_forward) if mine else []:
        piece_loss = reading.nats(piece.to(model.device)).sum() / count
        piece_loss.backward()
        loss += piece_loss.item()
    processes.sum_gradients(model)
    (loss,) = processes.sum([loss])
    grad_norm = clip_grad_norm(model, max_grad_norm)
    require_finite(loss=loss, grad_norm=grad_norm)
    optimizer.step()
    return {"loss": loss, "grad_norm": grad_norm.item()}


def _inputs(model: Any, lines: Lines) -> dict[str, Any]:
    if lines.blocks is None:
        return inputs_of(model, lines.ids, lines.mask)
    return {
        "input_ids": lines.ids,
        "attention_mask": attention_masks(model.base_model, lines.sees, lines.positions),
        "position_ids": lines.positions,
        "use_cache": False,
    }


@torch.no_grad()
def reads_blocks_apart(model: Any) -> bool:
    """Whether the model reads a block as it would read it in a line of its own: found by trying.

    Models that mix along the line by other means than attention, or take positions from the line,
    do not; a sliding window is counted in positions, which are a block's own.
    """
    rows = _rows_to_try(model)
    try:
        both = packed(rows, [1, 1], sum(map(len, rows)), 0).to(model.device)
        together = model.base_model(**_inputs(model, both)).last_hidden_state[0]
        alone = [
            forward_hidden(model, row[None], torch.ones_like(row[None], dtype=torch.bool))[0]
            for row in (torch.tensor(row, device=model.device) for row in rows)
        ]
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False  # it takes no such mask
    expected = torch.cat(alone)
    return bool((together - expected).abs().amax() <= 1e-4 * expected.abs().amax())


@torch.no_grad()
def _head_is_all(model: Any) -> bool:
    """Whether logits are what the head makes of the trunk's last hidden states, neither scaled nor
    capped: found by trying, with logits of up to 1,000, for a cap moves small ones by less than
    rounding does. The head is then as it was."""
    ids = torch.tensor(_rows_to_try(model)[:1], device=model.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    head = model.get_output_embeddings()
    before = head.weight.clone()
    try:
        head.weight.mul_(1000 / head(forward_hidden(model, ids, mask)).abs().amax())
        alone = without_pad(model, head(forward_hidden(model, ids, mask)))
        return bool(torch.allclose(alone, forward_logits(model, ids, mask), rtol=1e-4, atol=1e-5))
    finally:
        head.weight.copy_(before)


def _rows_to_try(model: Any) -> list[list[int]]:
    """Two rows of ids, the longer one first."""
    draw = torch.Generator().manual_seed(0)
    length = min(12, context_of(model) // 2)
    drawn = torch.randint(model.config.vocab_size, (2 * length,), generator=draw).tolist()
    return [drawn[:length], drawn[length : 2 * length - 1] or drawn[:1]]
