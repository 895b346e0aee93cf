"""Tiny models that several tests of the laboratory train on."""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from policy.backbone import save_model
from policy.ppo import train
from policy.ppo_config import PPOConfig
from policy.text import BOS, CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS
from tests.policy.short_ppo import SMALL, share_of_wanted

LETTERS = "abcdefghij"
FORK = multiprocessing.get_context("fork")


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
        shared = {
            "vocab_size": len(letters),
            "pad_token_id": letters.pad_token_id,
            "bos_token_id": letters.bos_token_id,
            "eos_token_id": letters.eos_token_id,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model: Any
            if kind == "gpt2":
                dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
                config = GPT2Config(
                    n_embd=32, n_layer=1, n_head=2, n_positions=32, initializer_range=0.1,
                    **shared, **dropout,
                )  # fmt: skip
                model = GPT2LMHeadModel(config)
            else:
                model = LlamaForCausalLM(
                    LlamaConfig(
                        hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                        num_attention_heads=2, max_position_embeddings=32, **shared,
                    )
                )  # fmt: skip
        save_model(model, letters, directory)
        return directory

    return make


@pytest.fixture
def run_two() -> Iterator[Callable[[Callable[[], int]], list[int | None]]]:
    """A function that does the work in two processes, as torchrun starts them, and returns their
    exit codes. A forked process cannot use the threads of the one it comes from: it has one."""

    def as_process(work: Callable[[], int], rank: int, port: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ["TORCHELASTIC_RUN_ID"] = "test"
        sys.exit(work())

    def run(work: Callable[[], int]) -> list[int | None]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        both = [FORK.Process(target=as_process, args=(work, rank, port)) for rank in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        return [process.exitcode for process in both]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(before)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Six of a few letters, one of them of the test split."""
    path = tmp_path / "prompts.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "split": "test" if i == 5 else "train",
            "prompt": [{"role": "user", "content": " ".join("abcdefghij"[i : i + 1 + i % 3])}],
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def ppo(prompts: Path, tiny_policy: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A function that trains into tmp_path/out with SMALL, changed as told, and returns it."""
    init = tiny_policy()

    def run(
        *,
        out: str = "out",
        on_step: Any = None,
        resume_from: Any = (),
        score_fn: Any = share_of_wanted,
        **more: Any,
    ) -> Path:
        named = ("prompts", "reference", "value_init")
        paths = {"prompts": prompts} | {name: more.pop(name) for name in named if name in more}
        train(
            PPOConfig(**(SMALL | more)),
            init=init,
            out=tmp_path / out,
            score_fn=score_fn,
            on_step=on_step,
            resume_from=resume_from,
            **paths,
        )
        return tmp_path / out

    return run
