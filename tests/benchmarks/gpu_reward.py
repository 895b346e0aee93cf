"""The reward model on a CUDA device: the same numbers as on a CPU, and its speed beside TRL's.

    python tests/benchmarks/gpu_reward.py --data DIR [--pairs N] [--rounds N] [--folder DIR]
        [--without-trl] [--device cpu --quick]

DIR, by default CONCORD_SHARED_DATA, holds hh-rlhf/. Needs a GPU, and TRL 1.16 beside Concord's own
packages. First the checks, on a GPT-2 of 5.3 million random weights in fp32: loss and gradient of a
step against the CPU's, the same step where memory suffices for less than half of it, and scores.
Then one epoch over the first N pairs, 16 a step, by a Qwen2 of half a billion random weights:
Concord in bf16, plain and compiled, and TRL's RewardTrainer as it comes, in its fastest setting,
and compiled; the ways take turns, each figure is the median. Markdown goes to stdout.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import save_model, score_model_from  # noqa: E402
from policy.optim import adamw  # noqa: E402
from policy.scoring import Scorer  # noqa: E402
from rewardmodel.batches import Example, examples_of_step, num_steps  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.forward import Forward  # noqa: E402
from rewardmodel.objective import Objective  # noqa: E402
from rewardmodel.step import StepStats, train_step  # noqa: E402
from rewardmodel.survey import Survey  # noqa: E402
from rewardmodel.targets import PLAIN  # noqa: E402
from tests.benchmarks.reward_speed import (  # noqa: E402
    MAX_TOKENS,
    PER_STEP,
    encoded,
    pairs,
    prepare,
    write_ids,
)

CONCORD: dict[str, dict[str, Any]] = {
    "Concord, bf16": {"precision": "bf16", "tokens_per_forward": 16384},
    "Concord, bf16, compiled": {"precision": "bf16", "tokens_per_forward": 16384, "compile": True},
}
TUNED: dict[str, Any] = {
    "bf16": True,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "remove_unused_columns": False,
    "optim": "adamw_torch_fused",
}
TRL: dict[str, dict[str, Any]] = {
    "TRL, its defaults": {},
    "TRL, bf16, sorted, fused": TUNED,
    "TRL, the same, compiled": {**TUNED, "torch_compile": True},
}


def one_step(
    folder: Path, examples: list[Example], device: str, **changes: Any
) -> tuple[StepStats, torch.Tensor, Forward]:
    """(figures, gradient, forward) of the first step in fp32."""
    model, _ = score_model_from(folder / "model", seed=0, device=device)
    config = RewardConfig(max_grad_norm=1e9, **changes)
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN).to(device)
    optimizer = adamw(model, lr=0.0, weight_decay=0.0)
    stats = forward.within_memory(
        lambda: train_step(forward, examples, optimizer, config, objective)
    )
    named = sorted((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    return stats, torch.cat([gradient.flatten().cpu() for _, gradient in named]), forward


def checks(folder: Path, examples: list[Example], device: str) -> None:
    """Print how far the device is from the CPU, and a step cut by memory from a whole one."""
    torch.backends.cuda.matmul.allow_tf32 = False
    whole = {"tokens_per_forward": 1_000_000}
    cpu_stats, cpu_gradient, _ = one_step(folder, examples[:PER_STEP], "cpu", **whole)
    stats, gradient, forward = one_step(folder, examples[:PER_STEP], device, **whole)
    apart = ((gradient - cpu_gradient).norm() / cpu_gradient.norm()).item()
    print(f"- Prompts are shared there: {forward.shared}; lanes: {len(forward.lanes)}.")
    print(f"- First step: loss {stats.loss:.7f}, on the CPU {cpu_stats.loss:.7f}; ", end="")
    print(f"the gradients differ by {apart:.1e} of their norm.")
    rows = [list(row) for example in examples[:64] for row in example.rows]
    on = {}
    for place in ("cpu", device):
        model, tokenizer = score_model_from(folder / "model", seed=0, device=place)
        on[place] = torch.tensor(Scorer(model, tokenizer, max_tokens=MAX_TOKENS).score_ids(rows))
    print(f"- {len(rows)} scores differ by at most {(on[device] - on['cpu']).abs().max():.1e}.")
    if device == "cpu":
        return
    del forward, model
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    one_step(folder, examples[:PER_STEP], device, **whole)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.4 * peak / total)
    cut, same, forward = one_step(folder, examples[:PER_STEP], device, **whole)
    torch.cuda.set_per_process_memory_fraction(1.0)
    apart = ((same - gradient).norm() / gradient.norm()).item()
    print(
        f"- With 0.4 of the {peak / 2**20:.0f} MiB that the step wants it is cut to "
        f"{forward.tokens_per_forward} tokens at once: loss {cut.loss:.7f}, the gradient differs "
        f"by {apart:.1e} of its norm."
    )


def half_a_billion(folder: Path, quick: bool) -> None:
    """folder/large: random weights over the tokenizer of folder/model."""
    _, tokenizer = score_model_from(folder / "model", seed=0)
    width, layers = (32, 1) if quick else (896, 24)
    torch.manual_seed(0)
    trunk = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer) if quick else 151_936, hidden_size=width,
            num_hidden_layers=layers, num_attention_heads=width // 16 if quick else 14,
            num_key_value_heads=2, intermediate_size=64 if quick else 4864,
            max_position_embeddings=MAX_TOKENS, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    save_model(trunk, tokenizer, folder / "large-trunk")
    save_model(*score_model_from(folder / "large-trunk", seed=0), folder / "large")


def epoch_of_concord(
    folder: Path, examples: list[Example], device: str, changes: dict[str, Any]
) -> dict[str, float]:
    config = RewardConfig(comparisons_per_step=PER_STEP, lr_peak=1e-5, **changes)
    model, _ = score_model_from(folder / "large", seed=0, device=device)
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN).to(device)
    optimizer = adamw(model, lr=config.lr_peak, weight_decay=0.0)
    total = num_steps(len(examples), per_step=PER_STEP, num_epochs=1)
    began = time.perf_counter()
    forward.warm_up(examples)
    after_first = tokens = 0.0
    for step in range(1, total + 1):
        batch = examples_of_step(examples, step, per_step=PER_STEP, seed=0)
        tokens += train_step(forward, batch, optimizer, config, objective).num_tokens
        if step == 1:
            after_first = time.perf_counter()
    ended = time.perf_counter()
    return {
        "rate": (len(examples) - PER_STEP) / (ended - after_first),
        "warm_up": after_first - began,
        "tokens": tokens,
    }


def epoch_of_trl(folder: Path, device: str, changes: dict[str, Any]) -> dict[str, float]:
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import RewardConfig as TheirConfig
    from trl import RewardTrainer

    class FirstStepEnds(TrainerCallback):
        at = 0.0

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.at = self.at or time.perf_counter()

    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for each in map(json.loads, lines):
        ((better, worse),) = each["pairs"]
        chosen, rejected = each["rows"][better], each["rows"][worse]
        longest = max(len(chosen), len(rejected))
        rows.append({"chosen_ids": chosen, "rejected_ids": rejected, "length": longest})
    clock = FirstStepEnds()
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder / "large", num_labels=1),
        args=TheirConfig(
            output_dir=str(folder / "trl-out"),
            per_device_train_batch_size=PER_STEP,
            num_train_epochs=1,
            max_length=MAX_TOKENS,
            learning_rate=1e-5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=device == "cpu",
            **changes,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "large"),
        callbacks=[clock],
    )
    began = time.perf_counter()
    trainer.train()
    ended = time.perf_counter()
    return {"rate": (len(rows) - PER_STEP) / (ended - clock.at), "warm_up": clock.at - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("var/benchmark/gpu"))
    parser.add_argument("--pairs", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--without-trl", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny models, two steps, once")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    os.environ["CONCORD_SHARED_DATA"] = str(args.data)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    args.folder.mkdir(parents=True, exist_ok=True)
    count = 2 * PER_STEP if args.quick else args.pairs
    prepare(args.folder, args.data, {"pairs": 4 * count, "rankings": 0}, args.quick)
    _, tokenizer = score_model_from(args.folder / "model", seed=0)
    examples = encoded(islice(pairs(args.data), 4 * count), tokenizer, at_most=count)
    write_ids(args.folder / "pairs.jsonl", examples)
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, ", end="")
        print(f"transformers {transformers.__version__}\n")
    checks(args.folder, examples, args.device)
    half_a_billion(args.folder, args.quick)
    concord = CONCORD if not args.quick else dict(islice(CONCORD.items(), 1))
    ways: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(epoch_of_concord, args.folder, examples, args.device, changes)
        for name, changes in concord.items()
    }
    if not args.without_trl:
        for name, changes in TRL.items():
            ways[name] = partial(epoch_of_trl, args.folder, args.device, changes)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(1 if args.quick else args.rounds):
        for name, way in ways.items():
            if turn and "compiled" in name:
                continue
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            run = way()
            if args.device == "cuda":
                run["peak"] = torch.cuda.max_memory_allocated() / 2**20
            sys.stderr.write(f"{name}: {run}\n")
            found[name].append(run)
    print("\n| setting | pairs/s | first step and warm-up, s | peak MiB |")
    print("| --- | ---: | ---: | ---: |")
    for name, runs in found.items():
        rate, warm = (statistics.median(run[key] for run in runs) for key in ("rate", "warm_up"))
        peak = statistics.median(run.get("peak", 0.0) for run in runs)
        print(f"| {name} | {rate:.1f} | {warm:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
