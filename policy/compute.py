"""What a forward pass is computed with: its precision, fused kernels, a compiler."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# A product of each new shape stays in oneDNN's cache with its code and its workspace, 1,024 of them
# unless told otherwise; lines of text have ever new shapes. Of 240 pairs 400 MB remained there.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


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


def linear(
    weight: Tensor, bias: Tensor | None, *, gelu: bool = False
) -> Callable[[Tensor], Tensor]:
    """x -> x weight' + bias, and GELU's tanh form of that, for a few rows again and again.

    On a CPU the weight, (out, in), is laid out once as oneDNN multiplies it, which it would
    otherwise do in every product: of 16 rows in bf16 that is more work than the product.
    """
    known = weight.dtype is torch.float32 or multiplies_bf16(weight.device)
    if weight.device.type == "cpu" and known and torch.backends.mkldnn.is_available():
        laid = torch.ops.mkldnn._reorder_linear_weight(weight)
        then, form = ("gelu", "tanh") if gelu else ("none", "")
        product = torch.ops.mkldnn._linear_pointwise
        return lambda x: product(x, laid, bias, then, [], form)
    if gelu:
        return lambda x: functional.gelu(functional.linear(x, weight, bias), approximate="tanh")
    return lambda x: functional.linear(x, weight, bias)


SHORT_LINES = "short_lines"
LONGEST_SHORT_LINE = 1024
"""Tokens: the attention shares of a longer one would take more memory than they save time."""


def attend_in_three_products(model: Any) -> None:
    """Attention of short lines in bf16 on a CPU as products and a softmax over all of a head.

    PyTorch's fused kernel works them off in small tiles, in 1.6 times the time where 243 tokens see
    each other through a mask. Elsewhere all stays as it is: in fp32, on a GPU, in a long line.
    """
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(SHORT_LINES, _attention_of_short_lines)
        AttentionMaskInterface.register(SHORT_LINES, sdpa_mask)
        model.set_attn_implementation(SHORT_LINES)


def _attention_of_short_lines(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query: (B, H, S, D); key, value: (B, G, S, D), each for H / G heads; the mask, (B, 1, S, S),
    is added to the logits, or says which id of a line sees which. Returns (B, S, H, D)."""
    batch, heads, length, width = query.shape
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else query.dtype
    if (
        attention_mask is None
        or dtype is not torch.bfloat16
        or attention_mask.shape != (batch, 1, length, length)
        or length > LONGEST_SHORT_LINE
        or any(others.get(name) for name in ("dropout", "softcap"))
        or others.get("position_bias") is not None
        or value.shape[-1] != width  # latent attention
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    query, key, value = (each.to(dtype) for each in (query, key, value))  # rotated, they are fp32
    groups = key.shape[1]
    shape = (batch * groups, heads // groups * length, width)
    if attention_mask.dtype is torch.bool:
        seen = attention_mask
        hidden = torch.finfo(dtype).min
        attention_mask = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, hidden)
    mask = attention_mask.expand(batch, heads, length, length)
    logits = torch.baddbmm(
        mask.to(dtype).reshape(batch * groups, -1, length),
        query.reshape(shape),
        key.flatten(0, 1).transpose(1, 2),
        alpha=width**-0.5 if scaling is None else scaling,
    )
    read = torch.softmax(logits, dim=-1) @ value.flatten(0, 1)
    return read.view(batch, heads, length, width).transpose(1, 2), None


def compiled(trunk: nn.Module) -> Callable[..., Any] | None:
    """The trunk as torch.compile makes it, for lines of any shape; None where there is no compiler.

    The trunk itself stays as it is, so copies and saved files know nothing of it.
    """
    found = can_compile(next(trunk.parameters()).device)
    return torch.compile(trunk, dynamic=True) if found else None


def can_compile(device: torch.device) -> bool:
    """Whether there is the compiler that torch.compile needs for this device."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
