"""Any Hugging Face causal LM: loaded, run under a mask, saved. And a tiny GPT of our own.

Axes: B rows, T tokens, D width, V vocabulary. A mask is (B, T) bool, True = real token; rows may be
padded on either side, and where the padding is changes nothing.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
)

from policy.axes import name_heads
from policy.compute import fuse_gelu
from policy.config import BadInput, require
from policy.score_scale import KEY
from policy.text import PAD

NEVER = -1e9
"""Logit of the pad token: it is never sampled and never in the denominator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTShape:
    """Size of a GPT that starts from nothing."""

    width: int
    layers: int
    heads: int
    context: int


def load_causal_lm(path: Path | str, *, device: str = "cpu") -> tuple[Any, Any]:
    """(model, tokenizer) of a directory or a hub name: fp32, eval, dropout 0, with a pad token.
    GPT-2's GELU is one kernel, which changes no number beyond rounding.

    Raises BadInput with one sentence for a missing folder, an encoder-decoder, a model that is not
    a causal LM, weights that are not safetensors, or weights that are missing.
    """
    config = _config_of(path)
    kind = (config.architectures or ["model without a named architecture"])[0]
    require(
        kind.endswith(("ForCausalLM", "LMHeadModel")),
        f"{path} holds a {kind}, not a causal language model",
    )
    _without_dropout(config)
    model = _from_pretrained(AutoModelForCausalLM, path, config)
    fuse_gelu(model)
    tokenizer = load_tokenizer(path)
    give_pad_token(model, tokenizer)
    return model.to(device).eval(), tokenizer


def score_model_from(
    init: Path | str | None,
    *,
    seed: int,
    tokenizer: Any = None,
    shape: GPTShape | None = None,
    axes: Sequence[str] = (),
    device: str = "cpu",
) -> tuple[Any, Any]:
    """(model, tokenizer) with one score per sequence, for reward and value models; or one for each
    of the axes, by default those that a reward model in `init` has.

    init: a causal LM, an encoder, or a model that has such a head already (which is then kept).
    None: a GPT of `shape` with random weights for `tokenizer`. A new head starts near 0, normal
    with standard deviation 1 / (D + 1), so that no score has an opinion yet.
    """
    if init is None:
        assert shape is not None, "without init a shape and a tokenizer are needed"
        config = _gpt_config(tokenizer, shape)
        name_heads(config, axes)
        model = seeded(seed, lambda: AutoModelForSequenceClassification.from_config(config))
        is_new = True
    else:
        config = _config_of(init)
        is_new = not (config.architectures or ["?"])[0].endswith("ForSequenceClassification")
        _without_dropout(config)
        own = axes_of(config)
        require(
            is_new or not axes or own == tuple(axes),
            f"{init} scores {', '.join(own) or 'no named axis'}, not {', '.join(axes)}: its heads "
            "cannot go on",
        )
        name_heads(config, axes or own)
        model = seeded(
            seed,
            lambda: _from_pretrained(
                AutoModelForSequenceClassification, init, config, head_may_be_new=is_new
            ),
        )
        tokenizer = load_tokenizer(init) if tokenizer is None else tokenizer
        give_pad_token(model, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    if is_new and isinstance(head := getattr(model, "score", None), nn.Linear):
        std = 1.0 / (head.in_features + 1)
        with torch.no_grad():
            head.weight.normal_(0.0, std, generator=torch.Generator().manual_seed(seed))
    return model.float().to(device).eval(), tokenizer


def axes_of(config: Any) -> tuple[str, ...]:
    """The axes that a reward model of several has a head for, by its config."""
    kept = getattr(config, KEY, None) or {}
    return tuple(axis["name"] for axis in kept.get("axes", ()))


def new_gpt(tokenizer: Any, shape: GPTShape, *, seed: int, device: str = "cpu") -> Any:
    """A GPT of this shape for a tokenizer: random weights, tied embeddings, no dropout."""
    config = _gpt_config(tokenizer, shape)
    model = seeded(seed, lambda: AutoModelForCausalLM.from_config(config))
    return model.float().to(device).eval()


def load_tokenizer(path: Path | str) -> Any:
    """The directory's tokenizer; BadInput with a sentence if it has none."""
    _require_exists(path)
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} holds no tokenizer that can be read: {_first(error)}") from error


def save_model(model: Any, tokenizer: Any, directory: Path) -> None:
    """Weights (safetensors), config and tokenizer in the Hugging Face format."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def context_of(model: Any) -> int:
    """Longest sequence in tokens that the model's positions allow."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else 1_000_000


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) long: 0, 1, 2 ... over the real tokens, 0 on padding."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def forward_hidden(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states, (B, T, D), of the trunk under any head; padding holds nothing of use."""
    inner = model.base_model
    return inner(**inputs_of(inner, ids, mask)).last_hidden_state


def forward_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Next-token logits, (B, T, V): [:, t] foretells token t + 1. The pad token's is NEVER."""
    return without_pad(model, model(**inputs_of(model, ids, mask)).logits)


@contextmanager
def head_only_at(
    model: Any, places: torch.Tensor, *, in_fp32: bool = False
) -> Iterator[list[torch.Tensor]]:
    """Within, the model's head reads the hidden states at these places alone; they are put into
    the list, (N, D).

    places: (N,) long, in B x T. in_fp32: the head computes so whatever is around it.
    """
    head = model.get_output_embeddings()
    shown: list[torch.Tensor] = []
    autocast = torch.autocast(model.device.type, enabled=False)

    def show(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        states = args[0].flatten(0, 1)[places]
        if in_fp32:
            states = states.float()
            autocast.__enter__()
        shown.append(states)
        return (states,)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        autocast.__exit__(None, None, None)

    handles = [head.register_forward_pre_hook(show)]
    if in_fp32:
        handles.append(head.register_forward_hook(leave, always_call=True))
    try:
        yield shown
    finally:
        for handle in handles:
            handle.remove()


def without_pad(model: Any, logits: torch.Tensor) -> torch.Tensor:
    """Logits with the pad token's column at NEVER, in place.

    A pad token added to a model from elsewhere has an untrained row, which the sampler would
    otherwise choose now and then. Sampler and log-probs both come through here.
    """
    pad = model.config.pad_token_id
    if pad is not None:
        logits[..., pad] = NEVER
    return logits


def give_pad_token(model: Any, tokenizer: Any) -> None:
    """A pad token of its own, unlike the end token; embedding rows are appended where needed.

    The logits of the old tokens stay as they were.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        # Tied heads grow with it. The new row is drawn like any other, from a generator of its own.
        seeded(0, lambda: model.resize_token_embeddings(len(tokenizer), mean_resizing=False))
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def inputs_of(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """What a forward takes for these ids under this mask, by the names that its class knows."""
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
    names = forward_arguments(model.__class__)
    if "position_ids" in names:
        inputs["position_ids"] = position_ids(mask)
    if "use_cache" in names:
        inputs["use_cache"] = False
    return inputs


@lru_cache
def forward_arguments(kind: type) -> frozenset[str]:
    """Names that the model class's forward takes: not every one has position_ids."""
    return frozenset(inspect.signature(kind.forward).parameters)  # type: ignore[attr-defined]


def _gpt_config(tokenizer: Any, shape: GPTShape) -> LlamaConfig:
    """Rotary positions, RMSNorm and gated MLPs, as in Llama.

    Beside a GPT-2 of the same size and pretraining, a reward model that starts from it halves its
    distance to the order it should learn: what matters is how far back a word stands, not where.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        tie_word_embeddings=True,
        # GPT-2's 0.02 belongs to its width of 768. Narrower models start with logits of the same
        # size if the spread grows as 1/sqrt(width); at 160 that halves the steps to a given loss.
        initializer_range=0.02 * (768 / shape.width) ** 0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _config_of(path: Path | str) -> Any:
    _require_exists(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} holds no model that can be read: {_first(error)}") from error
    require(
        not config.is_encoder_decoder,
        f"{path} holds an encoder-decoder ({config.model_type}); Concord trains causal models",
    )
    return config


def _require_exists(path: Path | str) -> None:
    """A local folder, or a hub's name: two parts, and no folder of the first part's name here."""
    local = Path(path)
    is_hub_name = (
        str(path).count("/") == 1
        and not str(path).startswith((".", "/", "~"))
        and not local.parent.is_dir()
    )
    require(local.is_dir() or is_hub_name, f"there is no model folder {str(path)!r}")


def _from_pretrained(
    auto: Any, path: Path | str, config: Any, head_may_be_new: bool = False
) -> Any:
    try:
        model, info = auto.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"the weights in {path} cannot be read: {_first(error)}") from error
    missing = set(info["missing_keys"])
    if head_may_be_new:
        trunk = model.base_model_prefix + "."
        missing = {name for name in missing if name.startswith(trunk)}
    require(not missing, f"{path} lacks weights: {', '.join(sorted(missing)[:5])}")
    return model


def _without_dropout(config: Any) -> None:
    """Every rate to 0: PPO compares the probabilities of two passes (arXiv:2403.17031)."""
    for name, value in list(vars(config).items()):
        is_rate = isinstance(value, int | float) and not isinstance(value, bool)
        if is_rate and ("dropout" in name or name.endswith(("_pdrop", "layerdrop"))):
            setattr(config, name, 0.0)


def seeded(seed: int, make: Any) -> Any:
    """Run `make` under the global seed, and put the global state back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
