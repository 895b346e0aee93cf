"""`policy sample`: completions for a file of prompts, with everything needed to draw one again."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from policy.backbone import context_of, load_causal_lm
from policy.checkpoint import sync
from policy.config import SampleConfig, load_config, require
from policy.data import PromptRow, read_prompts
from policy.rollout import PromptTokens
from policy.run import add_config_arguments, device_from, seed_for
from policy.sampling import Sampled, sample
from policy.text import decode_completion, render_prompt


def sample_file(
    config: SampleConfig,
    model_directory: Path | str,
    prompts: Path | str,
    out: Path | str,
    *,
    device: str = "cpu",
) -> int:
    """Write config.n rows per prompt to `out`, which appears whole, by rename; their number.

    Row: prompt_id, n, text, tokens, finish, seed, temperature, logprob_sum (nats, tempered),
    dropped_turns. Raises BadInput before anything is written.
    """
    out = Path(out)
    require(out.parent.is_dir(), f"there is no folder {out.parent} for {out.name}")
    rows = read_prompts(prompts, split=config.split)
    model, tokenizer = load_causal_lm(model_directory, device=device)
    lines = [one.row(config.temperature) for one in answers(config, model, tokenizer, rows)]
    staged = out.with_name(f".{out.name}.staged")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        sync(staged)
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)
    return len(lines)


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion of a prompt, and how it was drawn."""

    prompt: PromptTokens
    n: int
    """Which of the prompt's answers, from 0."""
    seed: int
    sampled: Sampled
    text: str

    def row(self, temperature: float) -> dict[str, Any]:
        """As `sample` writes it."""
        return {
            "prompt_id": self.prompt.id,
            "n": self.n,
            "text": self.text,
            "tokens": self.sampled.tokens,
            "finish": self.sampled.finish,
            "seed": self.seed,
            "temperature": temperature,
            "logprob_sum": sum(self.sampled.logprobs),
            "dropped_turns": self.prompt.dropped_turns,
        }


def answers(
    config: SampleConfig, model: Any, tokenizer: Any, rows: Sequence[PromptRow]
) -> list[Answer]:
    """config.n answers to each prompt: prompts in order, n = 0, 1, ... of each together.

    Raises BadInput where max_new_tokens leaves no room for a prompt.
    """
    room = context_of(model) - config.max_new_tokens
    require(
        room > 0,
        f"max_new_tokens {config.max_new_tokens} leaves no room for a prompt in the model's "
        f"context of {context_of(model)}",
    )
    limit = min(room, config.max_prompt_tokens or room)
    prompts = []
    for each in rows:
        rendered = render_prompt(tokenizer, each.messages, limit)
        prompts.append(PromptTokens(each.id, each.messages, rendered.ids, rendered.dropped_turns))
    # Prompts of like length together, and the n completions of one in one batch: one prefill.
    order = sorted(range(len(rows)), key=lambda row: len(prompts[row].ids))
    per_batch = max(1, config.rows_per_batch // config.n)
    found: dict[tuple[int, int], Answer] = {}
    bar = tqdm(total=len(rows) * config.n, desc="sample", disable=not sys.stderr.isatty())
    with bar:
        for start in range(0, len(rows), per_batch):
            jobs = [(row, n) for row in order[start : start + per_batch] for n in range(config.n)]
            seeds = [seed_for(config.seed, "sample", rows[row].id, n) for row, n in jobs]
            sampled = sample(
                model,
                tokenizer,
                [prompts[row].ids for row, _ in jobs],
                temperature=config.temperature,
                max_new_tokens=config.max_new_tokens,
                seeds=seeds,
                rows_per_batch=config.rows_per_batch,
            )
            for (row, n), seed, one in zip(jobs, seeds, sampled, strict=True):
                text = decode_completion(tokenizer, one.tokens)
                found[row, n] = Answer(prompts[row], n, seed, one, text)
            bar.update(len(jobs))
    return [found[key] for key in sorted(found)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--model", required=True, metavar="DIR", help="a model folder or hub name")
    parser.add_argument("--prompts", required=True, type=Path, metavar="FILE")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    parser.add_argument("--n", type=int, help="completions per prompt; wins over --set n")
    add_config_arguments(parser)


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy sample`."""
    config = load_config(SampleConfig, args.config, args.overrides)
    if args.n is not None:
        config = replace(config, n=args.n)
    sample_file(config, args.model, args.prompts, args.out, device=device_from(args.device))
    return 0
