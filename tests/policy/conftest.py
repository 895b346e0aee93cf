"""Tiny models that several tests of the laboratory train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from policy.backbone import GPTShape, new_gpt, save_model
from policy.text import BOS, CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS

LETTERS = "abcdefghij"


@pytest.fixture(scope="session")
def letters() -> Any:
    """A tokenizer of ten letters, parted by blanks, with Concord's special tokens and template."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *LETTERS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def tiny_policy(letters: Any, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a one-layer GPT-2 or Llama over the letters and returns its folder."""

    def make(kind: str = "gpt2", *, seed: int = 0, name: str = "init") -> Path:
        directory = tmp_path / name
        model: Any = new_gpt(letters, GPTShape(width=32, layers=1, heads=2, context=32), seed=seed)
        if kind == "gpt2":
            config = GPT2Config(
                vocab_size=len(letters),
                n_embd=32,
                n_layer=1,
                n_head=2,
                n_positions=32,
                initializer_range=0.02 * (768 / 32) ** 0.5,
                pad_token_id=letters.pad_token_id,
                bos_token_id=letters.bos_token_id,
                eos_token_id=letters.eos_token_id,
                **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
            )
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = GPT2LMHeadModel(config)
        save_model(model, letters, directory)
        return directory

    return make
