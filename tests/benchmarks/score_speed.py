"""How fast completions are scored and a head is refitted, beside plain transformers.

    python tests/benchmarks/score_speed.py --data DIR [--quick] [--folder DIR]

DIR, by default CONCORD_SHARED_DATA, holds hh-rlhf/. The GPT-2 of 5.3 million random weights and the
pairs of reward_speed.py, both completions of each; transformers reads them in bf16, sorted by
length, 8 or 32 rows at once, with its weights in bf16. The ways take turns; each figure is the
median of three runs of one process. Then a head is refitted on 10,000 comparisons whose features
are cached, and a model of 30 million weights trained for a few steps, beside what this machine
multiplies.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import save_model, score_model_from  # noqa: E402
from policy.optim import adamw  # noqa: E402
from policy.scoring import load_scorer, pad_right  # noqa: E402
from rewardmodel.batches import Example, examples_of_step  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.forward import Forward  # noqa: E402
from rewardmodel.objective import Objective  # noqa: E402
from rewardmodel.step import train_step  # noqa: E402
from rewardmodel.survey import Survey  # noqa: E402
from rewardmodel.targets import PLAIN  # noqa: E402
from tests.benchmarks.reward_speed import MAX_TOKENS, PER_STEP, encoded, pairs, prepare  # noqa: E402

BATCHES = (8, 32)
"""Rows at once of transformers: the best counts."""
WORDS = ("good", "bad", "well", "tea", "red", "house", "perhaps", "never")


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def plain_scores(model: Any, rows: Sequence[Sequence[int]], at_once: int) -> list[float]:
    """transformers' own class on batches sorted by length."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    scores = [0.0] * len(rows)
    with torch.inference_mode():
        for start in range(0, len(order), at_once):
            batch = order[start : start + at_once]
            ids, mask = pad_right([rows[at] for at in batch], model.config.pad_token_id)
            found = model(input_ids=ids, attention_mask=mask.long()).logits[:, 0].tolist()
            for at, score in zip(batch, found, strict=True):
                scores[at] = score
    return scores


def scoring(folder: Path, examples: Sequence[Example]) -> None:
    """Print pairs per second of each way."""
    rows = [list(row) for example in examples for row in example.rows]
    plain = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", num_labels=1, dtype=torch.bfloat16
    ).eval()
    ways: dict[str, Callable[[], list[float]]] = {
        f"transformers, bf16, sorted, {count} rows at once": partial(
            plain_scores, plain, rows, count
        )
        for count in BATCHES
    }
    for precision in ("fp32", "bf16"):
        scorer = load_scorer(folder / "model", precision=precision)
        ways[f"Concord, {precision}"] = partial(scorer.score_ids, rows)
    exact = torch.tensor(ways["Concord, fp32"]())
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            taken[name].append(seconds_of(way))
    print("| scoring | pairs/s | most that a score is off, in deviations |\n| --- | --- | --- |")
    for name, seconds in taken.items():
        error = (torch.tensor(ways[name]()) - exact).abs().max() / exact.std()
        print(f"| {name} | {len(examples) / statistics.median(seconds):.1f} | {error:.1e} |")
    print()


def multiplied(dtype: torch.dtype) -> float:
    """FLOP/s of the matrix products of a GPT-2 of 30 million weights, the best of several."""
    x, w = torch.randn(4096, 512, dtype=dtype), torch.randn(512, 2048, dtype=dtype)
    out = torch.empty(4096, 2048, dtype=dtype)
    best = min(seconds_of(lambda: [torch.mm(x, w, out=out) for _ in range(10)]) for _ in range(15))
    return 10 * 2 * 4096 * 512 * 2048 / best


def peak_share(folder: Path, examples: Sequence[Example], num_steps: int) -> None:
    """Print what a model of 30 million weights makes of this machine's matrix products."""
    _, tokenizer = score_model_from(folder / "model", seed=0)
    trunk = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=512, n_layer=9, n_head=8, n_positions=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    save_model(trunk, tokenizer, folder / "large")
    model, _ = score_model_from(folder / "large", seed=0)
    weights = [
        sum(p.numel() for p in part.parameters() if p.dim() > 1)
        for part in (model.base_model.h, model.base_model.h[-1].mlp)
    ]
    config = RewardConfig(precision="auto")
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN)
    optimizer = adamw(model, lr=1e-4, weight_decay=0.0)
    taken, tokens, scored = [], [], []
    for step in range(1, num_steps + 2):
        batch = examples_of_step(examples, step, per_step=PER_STEP, seed=0)
        began = time.perf_counter()
        tokens.append(train_step(forward, batch, optimizer, config, objective).num_tokens)
        taken.append(time.perf_counter() - began)
        scored.append(2 * len(batch))
    dtype = torch.bfloat16 if forward.autocast is not None else torch.float32
    blocks, last_mlp = weights  # 2 FLOPs forward and 4 backward for each weight and token
    work = 6 * (blocks - last_mlp) * sum(tokens[1:]) + 6 * last_mlp * sum(scored[1:])
    rate = work / sum(taken[1:])
    peak = multiplied(dtype)
    million = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{million:.0f} million weights, {dtype}: {sum(tokens[1:]) / sum(taken[1:]):.0f} tokens/s, "
        f"{rate / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f} that a product alone reaches: "
        f"{rate / peak:.0%}. Attention and elementwise work are not counted, nor is padding."
    )


def refitting(folder: Path, count: int) -> None:
    """Print how long the command takes over `count` comparisons with cached features."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        texts = [f"{' '.join(draw.choices(WORDS, k=6))} {number}" for _ in range(2)]
        vote = {"annotator": None, "axis": None, "strength": None, "weight": None, "kind": "human"}
        order = sorted(
            "ab", key=lambda name: -texts["ab".index(name)].count("good") + draw.random()
        )
        rows.append(
            {
                "id": str(number),
                "split": "dev" if number % 10 == 0 else "train",
                "prompt": [{"role": "user", "content": "What do you say?"}],
                "completions": [
                    {"id": name, "text": text, "model": None}
                    for name, text in zip("ab", texts, strict=True)
                ],
                "votes": [{**vote, "ranking": [[name] for name in order]}],
            }
        )
    data, features = folder / "refit.jsonl", folder / "refit.safetensors"
    data.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    given = ["--model", str(folder / "model"), "--data", str(data)]
    for name in (features, folder / "refitted"):
        shutil.rmtree(name, ignore_errors=True)
        name.unlink(missing_ok=True)
    taken = []
    for words in (
        ["features", *given, "--out", str(features)],
        ["refit", *given, "--features", str(features), "--out", str(folder / "refitted")],
    ):
        command = [sys.executable, "-m", "rewardmodel", *words]
        taken.append(seconds_of(lambda command=command: subprocess.run(command, check=True)))
    print(
        f"A head refitted on {count} comparisons, the command from start to end: {taken[1]:.1f} s, "
        f"behind {taken[0]:.0f} s for the features.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("var/benchmark"))
    parser.add_argument("--quick", action="store_true", help="a tiny model and few rows")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    args.folder.mkdir(parents=True, exist_ok=True)
    count = PER_STEP if args.quick else 320
    prepare(args.folder, args.data, {"pairs": count, "rankings": 1}, args.quick)
    _, tokenizer = score_model_from(args.folder / "model", seed=0)
    examples = encoded(pairs(args.data), tokenizer, at_most=count)
    scoring(args.folder, examples)
    refitting(args.folder, 50 if args.quick else 10_000)
    peak_share(args.folder, examples, 1 if args.quick else 6)


if __name__ == "__main__":
    main()
