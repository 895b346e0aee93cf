"""Low-rank adapters (arXiv:2106.09685): the trunk stands still, two thin matrices beside each of
its own learn. What is published has them merged into the trunk."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

SCALE = 2
"""alpha / rank: what the adapters' product is multiplied with."""


def add_adapters(model: Any, *, rank: int, seed: int, head_learns: bool = True) -> None:
    """Put adapters beside every matrix of the trunk's layers, in place.

    Only they want a gradient from then on, and where the head learns, which a new one must, the
    parameters outside the trunk. The output stays as it was: one matrix of each pair begins at 0,
    the other is drawn from `seed`.
    """
    from peft import LoraConfig, inject_adapter_in_model  # half a second for those who ask for it

    trunk = model.base_model_prefix + "."
    matrices = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(trunk) and isinstance(module, nn.Linear | Conv1D)
    }
    is_transposed = any(isinstance(module, Conv1D) for module in matrices.values())
    config = LoraConfig(
        r=rank,
        lora_alpha=SCALE * rank,
        target_modules=list(matrices),
        fan_in_fan_out=is_transposed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if not name.startswith(trunk):
            parameter.requires_grad_(head_learns)
    model.eval()


@torch.no_grad()
def merge_adapters(model: Any) -> Any:
    """The model with its adapters in its own matrices, and every parameter wanting a gradient
    again; a model without adapters as it is. In place, and returned."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "get_base_layer"):  # peft's way to what an adapter stands beside
            module.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    return model.requires_grad_(True)
