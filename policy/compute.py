"""What a forward pass is computed with: its precision, fused kernels, a compiler."""

import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import NewGELUActivation

from policy.config import require

PRECISIONS = ("fp32", "bf16", "auto")


def require_precision(name: str) -> None:
    """Raise BadInput for a name that is not in PRECISIONS."""
    require(name in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}: {name!r}")


def autocast_dtype(precision: str, device: torch.device | str) -> torch.dtype | None:
    """What `torch.autocast` is to compute in; None is fp32 throughout.

    bf16 keeps fp32's range and 8 bits of its fraction. Weights, gradients and optimizer stay fp32.
    `auto` is bf16 where the device multiplies in it.
    """
    if precision == "bf16" or (precision == "auto" and multiplies_bf16(torch.device(device))):
        return torch.bfloat16
    return None


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions of its own for bf16; elsewhere it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fuse_gelu(model: nn.Module) -> None:
    """GPT-2's GELU in one kernel, where transformers writes its formula out in eight.

    The same function: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def compiled(trunk: nn.Module) -> Callable[..., Any] | None:
    """The trunk as torch.compile makes it, for lines of any shape; None where there is no compiler.

    The trunk itself stays as it is, so copies and saved files know nothing of it.
    """
    if next(trunk.parameters()).device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
    else:
        found = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return torch.compile(trunk, dynamic=True) if found else None
