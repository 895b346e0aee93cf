"""One token more for each row, without what a model's own forward does besides.

A step of a small model is a hundred short kernels, and what transformers does around them (masks,
caches, hooks) takes as long as they do. For GPT-2 and Llama's family a step is written out here
over the model's own weights, in bf16 if asked for, with residuals, norms and head in fp32. Whether
it says what the model says is tried once; other models step by their own forward.

Axes: N rows, T tokens of each that are read at once, C columns of the cache, D width, H heads, G
heads of keys and values, E width of a head, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2LMHeadModel, LlamaForCausalLM, Qwen2ForCausalLM
from transformers.activations import NewGELUActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.pytorch_utils import Conv1D

from policy.compute import linear
from policy.lanes import LARGEST_MODEL

Function = Callable[[Tensor], Tensor]
MOST_OF_FREE = 0.25
"""The share of a GPU's free memory that a copy of the weights may take."""
STEADY_ROPES = ("default", "linear", "llama3")
"""Rotations that depend on the position alone, not on how long the text is by now."""


@dataclass(frozen=True, slots=True)
class Block:
    """A layer. Norms read and give fp32; the others compute in the step's precision."""

    norm: Function
    queries_keys_values: Function
    """(..., D) -> (..., (H + 2 G) E)"""
    out: Function
    mlp_norm: Function
    mlp: Function


@dataclass(frozen=True, slots=True)
class Step:
    """A model's parts, ready to be stepped through."""

    embed: Callable[[Tensor, Tensor], Tensor]
    """(tokens, positions), (N, T) each -> (N, T, D) fp32"""
    rotation: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    """positions -> cosines and sines, (N, 1, T, E) each; None where positions are embedded."""
    blocks: Sequence[Block]
    last: Function
    """(N, D) -> (N, V) fp32: the last norm and the head."""
    heads: int
    key_heads: int
    width: int
    """E"""
    dtype: torch.dtype
    """Of the layers, and of keys and values."""

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        column: int | Tensor,
    ) -> Tensor:
        """(N, V): logits after the last of `tokens`, (N, T), whose keys and values are put into the
        columns from this one on; of one token, also into the column that a tensor, (1,), names.

        mask: (N, T, C), added to the attention logits. keys, values: of each layer (N, G, C, E),
        in one piece, for a product copies what is not.
        """
        hidden = self.embed(tokens, positions)  # (N, T, D)
        rows, length = tokens.shape
        rotation = None if self.rotation is None else self.rotation(positions)
        for block, key_cache, value_cache in zip(self.blocks, keys, values, strict=True):
            read = block.queries_keys_values(block.norm(hidden).to(self.dtype))
            both, value = (
                read.view(rows, length, -1, self.width)
                .transpose(1, 2)
                .split([self.heads + self.key_heads, self.key_heads], dim=1)
            )  # (N, heads, T, E)
            if rotation is not None:
                both = _rotated(both, *rotation)
            query, key = both.split([self.heads, self.key_heads], dim=1)
            _put(key_cache, key, column)
            _put(value_cache, value, column)
            if block is self.blocks[-1]:  # what only the last token is asked for
                query, mask, hidden = query[:, :, -1:], mask[:, -1:], hidden[:, -1:]
            query = (query * self.width**-0.5).to(self.dtype)
            query = query.reshape(rows * self.key_heads, -1, self.width)  # (N G, H/G T, E)
            logits = torch.bmm(query, key_cache.flatten(0, 1).transpose(1, 2))
            logits.view(rows, self.heads, -1, mask.shape[2]).add_(mask[:, None])
            mixed = torch.bmm(logits.softmax(-1), value_cache.flatten(0, 1))
            mixed = mixed.view(rows, self.heads, -1, self.width).transpose(1, 2)
            hidden = hidden + block.out(mixed.flatten(2))
            hidden = hidden + block.mlp(block.mlp_norm(hidden).to(self.dtype))
        return self.last(hidden[:, -1])

    def read(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """(logits (N, V) after the last id of each row, keys and values of each layer, (N, G, T,
        E)). ids, mask: (N, T), 1 = real token, padded on the left."""
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        added = torch.zeros(len(ids), length, length, dtype=self.dtype, device=ids.device)
        unseen = torch.finfo(self.dtype).min
        added = added.masked_fill_(~(causal & (mask == 1)[:, None]), unseen)
        shape = (len(ids), self.key_heads, length, self.width)
        keys, values = (
            [torch.zeros(shape, dtype=self.dtype, device=ids.device) for _ in self.blocks]
            for _ in range(2)
        )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return self(ids, positions, added, keys, values, 0), keys, values


def step_of(model: Any, dtype: torch.dtype) -> Step | None:
    """The model's step in this precision; None for a model that must step by its own forward, or
    is so large that copies of its weights would cost more than the steps save."""
    size = sum(each.numel() for each in model.parameters())
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        too_large = size * dtype.itemsize > MOST_OF_FREE * free
    else:
        too_large = size > LARGEST_MODEL
    if too_large:
        return None
    if model not in _TRIED:
        _TRIED[model] = _says_the_same(model)
    return _written_out(model, dtype) if _TRIED[model] else None


_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Of each model, whether its step in fp32 gives the logits of its own forward."""


def _written_out(model: Any, dtype: torch.dtype) -> Step | None:
    """None for a model of another kind, or that has got adapters, perhaps since it was tried."""
    try:
        if type(model) is GPT2LMHeadModel:
            return _gpt2(model, dtype)
        if type(model) in (LlamaForCausalLM, Qwen2ForCausalLM):
            return _llama(model, dtype)
    except TypeError:  # of _plain
        return None
    return None


def _gpt2(model: Any, dtype: torch.dtype) -> Step:
    trunk, config, head = model.transformer, model.config, _head(model)

    def block_of(layer: Any) -> Block:
        act = layer.mlp.act
        fused = isinstance(act, NewGELUActivation) or getattr(act, "approximate", "") == "tanh"
        up = _plain([layer.mlp.c_fc], dtype, gelu=fused)
        down = _plain([layer.mlp.c_proj], dtype)
        return Block(
            norm=layer.ln_1,
            queries_keys_values=_plain([layer.attn.c_attn], dtype),
            out=_plain([layer.attn.c_proj], dtype),
            mlp_norm=layer.ln_2,
            mlp=lambda x: down(up(x) if fused else act(up(x))),
        )

    return Step(
        embed=lambda tokens, positions: trunk.wte(tokens) + trunk.wpe(positions),
        rotation=None,
        blocks=[block_of(layer) for layer in trunk.h],
        last=lambda hidden: head(trunk.ln_f(hidden)),
        heads=config.n_head,
        key_heads=config.n_head,
        width=config.n_embd // config.n_head,
        dtype=dtype,
    )


def _llama(model: Any, dtype: torch.dtype) -> Step:
    trunk, config, head = model.model, model.config, _head(model)
    last_norm = _norm(trunk.norm)

    def block_of(layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        down = _plain([mlp.down_proj], dtype)
        gate_and_up = _plain([mlp.gate_proj, mlp.up_proj], dtype)

        def gated(x: Tensor) -> Tensor:
            gate, up = gate_and_up(x).chunk(2, dim=-1)
            return down(mlp.act_fn(gate) * up)

        return Block(
            norm=_norm(layer.input_layernorm),
            queries_keys_values=_plain(
                [attention.q_proj, attention.k_proj, attention.v_proj], dtype
            ),
            out=_plain([attention.o_proj], dtype),
            mlp_norm=_norm(layer.post_attention_layernorm),
            mlp=gated,
        )

    def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = trunk.rotary_emb(trunk.embed_tokens.weight, positions)
        return cosines[:, None], sines[:, None]

    return Step(
        embed=lambda tokens, positions: trunk.embed_tokens(tokens),
        rotation=rotation,
        blocks=[block_of(layer) for layer in trunk.layers],
        last=lambda hidden: head(last_norm(hidden)),
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        width=trunk.layers[0].self_attn.head_dim,
        dtype=dtype,
    )


def _plain(layers: Sequence[Any], dtype: torch.dtype, *, gelu: bool = False) -> Function:
    """Several matrices over the same input as one, and GELU's tanh form behind it.

    Raises TypeError for a layer that holds more than a matrix and a bias, as an adapter does.
    """
    for layer in layers:
        if type(layer) not in (nn.Linear, Conv1D):
            raise TypeError(f"no plain matrix: {type(layer).__name__}")
    parts = [  # GPT-2 keeps its own as (in, out)
        layer.weight.detach().t() if type(layer) is Conv1D else layer.weight.detach()
        for layer in layers
    ]
    bias = None
    if all(layer.bias is not None for layer in layers):
        bias = torch.cat([layer.bias.detach() for layer in layers]).to(dtype)
    elif any(layer.bias is not None for layer in layers):
        raise TypeError("some of the matrices have a bias, some none")
    return linear(torch.cat(parts).to(dtype), bias, gelu=gelu)


def _head(model: Any) -> Function:
    """In fp32: log-probs of bf16 logits would be off by hundredths."""
    bias = None if model.lm_head.bias is None else model.lm_head.bias.detach()
    return linear(model.lm_head.weight.detach(), bias)


def _put(cache: Tensor, new: Tensor, column: int | Tensor) -> None:
    """new, (N, G, T, E), into the columns from this one on."""
    if isinstance(column, Tensor):
        cache.index_copy_(2, column, new.to(cache.dtype))
    else:
        cache[:, :, column : column + new.shape[2]] = new


def _norm(norm: Any) -> Function:
    """Llama's in one kernel, which transformers writes out in six."""
    if type(norm) not in (LlamaRMSNorm, Qwen2RMSNorm):
        return norm
    shape, weight, eps = norm.weight.shape, norm.weight.detach(), norm.variance_epsilon
    return lambda x: functional.rms_norm(x, shape, weight, eps)


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions as Llama pairs a head's numbers: the first half with the second."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


@torch.no_grad()
def _says_the_same(model: Any) -> bool:
    """Tries two rows of three tokens, of which one begins with padding; the last is stepped to."""
    step = _written_out(model, torch.float32)
    rope = getattr(model.config, "rope_parameters", None) or {}
    windows = getattr(model.config, "layer_types", None) or ["full_attention"]
    if (
        step is None
        or any(each.dtype is not torch.float32 for each in model.parameters())
        or rope.get("rope_type", "default") not in STEADY_ROPES
        or set(windows) != {"full_attention"}
    ):
        return False
    device = model.device
    ids = torch.arange(1, 7, device=device).view(2, 3) % model.config.vocab_size
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            expected = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
            _, keys, values = step.read(ids[:, :2], mask[:, :2])
            more = (0, 0, 0, 1)
            keys = [functional.pad(each, more) for each in keys]
            values = [functional.pad(each, more) for each in values]
            added = torch.where(mask == 1, 0.0, torch.finfo(torch.float32).min)[:, None]
            found = step(ids[:, 2:], positions[:, 2:], added, keys, values, 2)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False
    finally:
        model.train(was_training)
    last = expected[:, -1]
    return bool((found - last).abs().amax() <= 1e-4 * last.abs().amax())
