"""The masked objective: an encoder that restores tokens which were hidden from it.

Of the tokens that are asked for, 80 in 100 are shown as the mask token, 10 as another at random and
10 as they are (BERT, arXiv:1810.04805, section 3.1). The encoder has ModernBERT's shape
(arXiv:2412.13663): rotary positions, gated MLPs, local attention in two layers of three.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, ModernBertConfig

from policy.backbone import GPTShape, seeded
from policy.lines import Lines
from policy.packing import NO_TOKEN

MASK = "<|mask|>"
SHOWN_AS_MASK, SHOWN_AS_OTHER = 0.8, 0.1


def give_mask_token(tokenizer: Any) -> None:
    """A mask token, behind all others, where the tokenizer has none."""
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})


def new_encoder(tokenizer: Any, shape: GPTShape, *, seed: int, device: str = "cpu") -> Any:
    """An encoder of this shape for a tokenizer with a mask token: random weights, no dropout.

    As a reward model it pools the mean of its last hidden states: a row has no token of its own to
    be read at.
    """
    start = tokenizer.bos_token_id
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        initializer_range=0.02 * (768 / shape.width) ** 0.5,  # as in policy/backbone.py
        classifier_pooling="mean",
        bos_token_id=start,
        cls_token_id=start,
        eos_token_id=tokenizer.eos_token_id,
        sep_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = seeded(seed, lambda: AutoModelForMaskedLM.from_config(config))
    return model.float().to(device).eval()


class Masking:
    """How tokens are hidden from an encoder."""

    def __init__(self, tokenizer: Any, fraction: float) -> None:
        self._fraction = fraction
        self._mask = int(tokenizer.mask_token_id)
        special = torch.zeros(len(tokenizer), dtype=torch.bool)
        special[list(tokenizer.all_special_ids)] = True
        self._special = special
        self._others = (~special).nonzero()[:, 0]

    def lines(self, tokens: Tensor, generator: torch.Generator) -> Lines:
        """Each token that is not special is asked for by chance, at its own place.

        tokens: (B, T) long, NO_TOKEN behind the shorter rows. What is drawn depends on the
        generator and on where a token stands alone.
        """
        real = tokens != NO_TOKEN
        ids = tokens.clamp(min=0)
        chance, way = (torch.rand(tokens.shape, generator=generator) for _ in range(2))
        other = self._others[torch.randint(len(self._others), tokens.shape, generator=generator)]
        asked = real & ~self._special[ids] & (chance < self._fraction)
        shown = torch.where(way < SHOWN_AS_MASK, self._mask, ids)
        is_other = (way >= SHOWN_AS_MASK) & (way < SHOWN_AS_MASK + SHOWN_AS_OTHER)
        shown = torch.where(is_other, other, shown)
        return Lines(torch.where(asked, shown, ids), real, torch.where(asked, ids, NO_TOKEN))
