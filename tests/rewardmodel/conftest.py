"""Tiny files and models that the reward-model tests share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from policy.backbone import GPTShape, new_gpt, save_model
from policy.tokenizer import train_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small lose more to waiting for each other's threads than they win."""
    torch.set_num_threads(1)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes rows as JSONL and returns the file."""

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny_lm(tmp_path: Path) -> Path:
    """A one-layer GPT with a byte-level tokenizer, saved as a causal LM."""
    tokenizer = train_tokenizer(["Say good things."], vocab_size=300, context=64)
    model = new_gpt(tokenizer, GPTShape(width=32, layers=1, heads=2, context=64), seed=0)
    save_model(model, tokenizer, tmp_path / "lm")
    return tmp_path / "lm"


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    """A one-layer encoder with random weights and a byte-level tokenizer, saved without a head."""
    tokenizer = train_tokenizer(["Say good things."], vocab_size=300, context=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
    save_model(model, tokenizer, tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def whole_last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its MLP reads every id, so that two ways differ in nothing but what a test is about."""
    monkeypatch.setattr("policy.last_mlp._last_mlp", lambda inner: None)
