"""The reward model before its first step: from a language model's trunk, or from nothing."""

from collections.abc import Callable, Iterable
from typing import Any

from policy.backbone import GPTShape, load_tokenizer, score_model_from
from policy.config import refuse_idle, require
from policy.lora import add_adapters
from policy.score_scale import forget
from policy.scoring import max_tokens_of
from policy.text import PAD
from policy.tokenizer import train_tokenizer
from rewardmodel.config import RewardConfig


def starting_model(
    config: RewardConfig,
    *,
    init: str | None,
    tokenizer_from: str | None,
    texts: Callable[[], Iterable[str]],
    device: str,
) -> tuple[Any, Any]:
    """(model, tokenizer): fp32, no dropout, one score, its head near zero.

    init: a directory or hub name of a causal LM, an encoder or a reward model, with its tokenizer.
    None: a GPT of the config's size with random weights; its tokenizer is that of `tokenizer_from`
    or, without one, is learned from `texts()`. The tokenizer's `model_max_length` becomes the
    longest input of the run, and travels with the model. With a lora_rank only adapters and head
    want a gradient. Raises BadInput for a reward model that has other heads than the config's axes.
    """
    axes = tuple(config.axes or ())
    require(
        init is None or tokenizer_from is None,
        f"--tokenizer goes with --init none: {init} brings its own",
    )
    if init is not None:
        shape_of = ("layers", "heads", "width", "context", "vocab_size")
        refuse_idle(config, *shape_of, where=f"with --init {init}")
        model, tokenizer = score_model_from(init, seed=config.seed, axes=axes, device=device)
        require(
            model.config.num_labels == max(1, len(axes)),
            f"{init} has {model.config.num_labels} heads, and one is wanted: name them as axes",
        )
        forget(model)  # of a reward model: training moves its scores
    else:
        if tokenizer_from is not None:
            refuse_idle(config, "vocab_size", where=f"with --tokenizer {tokenizer_from}")
        tokenizer = _tokenizer(config, tokenizer_from, texts)
        shape = GPTShape(
            width=config.width, layers=config.layers, heads=config.heads, context=config.context
        )
        model, tokenizer = score_model_from(
            None, seed=config.seed, tokenizer=tokenizer, shape=shape, axes=axes, device=device
        )
    longest = max_tokens_of(model, tokenizer)
    require(
        config.max_tokens is None or config.max_tokens <= longest,
        f"max_tokens is {config.max_tokens}, and the model takes {longest}",
    )
    tokenizer.model_max_length = config.max_tokens or longest
    if config.lora_rank:
        add_adapters(model, rank=config.lora_rank, seed=config.seed)
    return model, tokenizer


def _tokenizer(
    config: RewardConfig, tokenizer_from: str | None, texts: Callable[[], Iterable[str]]
) -> Any:
    if tokenizer_from is None:
        return train_tokenizer(texts(), vocab_size=config.vocab_size, context=config.context)
    tokenizer = load_tokenizer(tokenizer_from)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return tokenizer
