"""The MLP of a trunk's last block reads the ids that are scored, and no others.

A score is read at one id of a row, and behind the last attention nothing mixes the ids of a line:
what the last MLP makes of the others would be read by nobody. Two thirds of a block's products are
its MLP's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Of each trunk, whether leaving ids out changes nothing: found by trying once."""


@contextmanager
def last_mlp_only_at(places: Tensor, inner: Any) -> Iterator[None]:
    """Within, the last MLP of the trunk reads the ids at these places of B x S alone.

    A trunk in which that would change what is read there stays as it is, and so does one that
    recomputes its blocks when this is over.
    """
    recomputes = inner.training and inner.is_activation_checkpointing
    mlp = None if recomputes else _last_mlp(inner)
    if mlp is not None and inner not in _TRIED:
        _TRIED[inner] = _changes_nothing(inner, mlp)
    if mlp is None or not _TRIED[inner]:
        yield
        return
    with _only_at(places, mlp):
        yield


@contextmanager
def _only_at(places: Tensor, mlp: nn.Module) -> Iterator[None]:
    places = places.unique()  # each once, or its gradient would count twice
    lines = torch.Size()

    def narrow(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal lines
        lines = given[0].shape  # (B, S, D)
        return tuple(
            each.flatten(0, 1)[places][None]
            if isinstance(each, Tensor) and each.shape == lines
            else each
            for each in given
        )

    def widen(_: nn.Module, given: tuple[Any, ...], made: Any) -> Any:
        several = isinstance(made, tuple)  # a router's figures may come behind
        read = made[0] if several else made
        everywhere = read.new_zeros(lines).flatten(0, 1)
        everywhere = everywhere.index_copy(0, places, read.reshape(len(places), -1)).view(lines)
        return (everywhere, *made[1:]) if several else everywhere

    hooks = [mlp.register_forward_pre_hook(narrow), mlp.register_forward_hook(widen)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _last_mlp(inner: Any) -> nn.Module | None:
    """The MLP of the last of the trunk's blocks, as decoders of transformers name it."""
    for child in inner.children():
        if isinstance(child, nn.ModuleList) and len(child) == inner.config.num_hidden_layers:
            found = getattr(child[-1], "mlp", None)
            return found if isinstance(found, nn.Module) else None
    return None


@torch.no_grad()
def _changes_nothing(inner: Any, mlp: nn.Module) -> bool:
    """Tries a line of eight ids, scored at two; a trunk that raises where ids are left out is left
    whole."""
    device = inner.device
    ids = torch.arange(8, device=device)[None] % inner.config.vocab_size
    mask = torch.ones_like(ids)
    places = torch.tensor([2, 7], device=device)
    was_training = inner.training
    inner.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            whole = inner(input_ids=ids, attention_mask=mask).last_hidden_state[0, places]
            with _only_at(places, mlp):
                narrowed = inner(input_ids=ids, attention_mask=mask).last_hidden_state[0, places]
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False
    finally:
        inner.train(was_training)
    return bool((narrowed - whole).abs().amax() <= 1e-4 * whole.abs().amax())
