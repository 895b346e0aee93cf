"""How fast PPO, GRPO, RLOO and the sampler are, beside TRL and `transformers` on the same weights.

    python tests/benchmarks/ppo_speed.py --data DIR [--quick] [--without-peers] [--folder DIR]
        [--cases ppo head grpo rloo generate] [--steps N] [--rounds N] [--without-compiled]
        [--device cuda]

DIR, by default CONCORD_SHARED_DATA, holds hh-rlhf/. A GPT-2 of 5.3 million random weights, on a GPU
a Qwen2 of half a billion, a reward and a value model of its shape; prompts of up to 128 tokens,
answers of up to 64, 32 answers a step.
PPO takes four epochs of one minibatch; GRPO and RLOO four answers to a prompt and one epoch. A step
is sampling, scoring, KL to the reference and the update; the first, which compiles or warms up, is
not counted and told apart. Each figure is the median of N rounds, each in a process of its own, the
sides in turn; what is in fp32 is no side's fastest and runs once. TRL 1.12 is the last with PPO;
GRPO and RLOO are TRL 1.16's. Both are installed into the folder at the first call, in environments
of their own. `generate` gives tokens per second with 32 and with 64
rows. A Markdown table goes to stdout. On a GPU all is in bf16 and the peak is the GPU's; whether
its numbers are right is gpu_checks.py's part, which takes the folder.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    CompileConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import load_causal_lm, save_model, score_model_from  # noqa: E402
from policy.comparisons import parse_row  # noqa: E402
from policy.config import BadInput  # noqa: E402
from policy.ppo import train  # noqa: E402
from policy.ppo_config import PPOConfig  # noqa: E402
from policy.sampling import sample  # noqa: E402
from policy.text import render_prompt  # noqa: E402
from policy.tokenizer import train_tokenizer  # noqa: E402
from tests.benchmarks.reward_speed import measured  # noqa: E402

HERE = Path(__file__).resolve().parent
TORCH, TRANSFORMERS = f"torch=={torch.__version__.split('+')[0]}", "transformers==5.23.0"
PEERS = {
    "trl112": ("trl==1.12.*", TORCH, TRANSFORMERS),
    "trl": ("trl==1.16.*", TORCH, TRANSFORMERS),
}
MAX_PROMPT, MAX_RESPONSE, PER_STEP = 128, 64, 32
COMMON: dict[str, Any] = {
    "rollouts_per_step": PER_STEP,
    "max_response_tokens": MAX_RESPONSE,
    "lr_peak": 1e-5,
    "minibatches": 1,
    "approx_kl_limit": 1e9,
    "kl_target_nats": None,
    "kl_stop_nats": None,
    "keep_best": False,
    "missing_end": "off",
    "allow_weak_reward": True,
    "checkpoint_every": 1_000_000,
}
VALUES = {"epochs": 4, "value_lr_peak": 1e-5, "baseline_samples": 0}
GROUPS = {"answers_per_prompt": 4, "epochs": 1}
CASES: dict[str, dict[str, Any]] = {
    "ppo": VALUES,
    "head": {**VALUES, "value": "head"},
    "grpo": {**GROUPS, "advantage": "grpo"},
    "rloo": {**GROUPS, "advantage": "rloo"},
}
CONCORD = {"Concord, fp32": "fp32", "Concord, bf16": "bf16"}
TRL = {"TRL, fp32": "fp32", "TRL, bf16": "bf16"}
GENERATE = {
    "transformers, fp32": "plain",
    "transformers, bf16, static cache, compiled": "compiled",
}
GENERATE_ON_GPU = {
    "transformers, bf16": "bf16 weights",
    "transformers, bf16, static cache, compiled": "compiled",
}


def prompts(data: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """Conversations of hh-rlhf up to the answer, as long as they fit whole."""
    found = []
    path = data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line, text in enumerate(lines, 1):
            try:
                comparison = parse_row(json.loads(text), line=line)
            except BadInput:
                continue
            ids = render_prompt(tokenizer, comparison.prompt).ids
            if len(ids) <= MAX_PROMPT:
                found.append({"messages": list(comparison.prompt), "ids": list(ids)})
    return found


def random_policy(tokenizer: Any, *, quick: bool, large: bool) -> Any:
    """A GPT-2 of 5.3 million weights, a Qwen2 of half a billion, or one of their kind for a try."""
    torch.manual_seed(0)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if not large:
        width, layers = (32, 1) if quick else (256, 6)
        return GPT2LMHeadModel(
            GPT2Config(n_embd=width, n_layer=layers, n_head=4, n_positions=512, **common)
        )
    width, layers = (32, 2) if quick else (1024, 24)
    return Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 16 if quick else 16,
            num_key_value_heads=2,
            intermediate_size=64 if quick else 5504,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            **common,
        )
    )


def prepare(folder: Path, data: Path, *, quick: bool, large: bool = False) -> None:
    """folder/{policy,reward}, folder/prompts.jsonl for Concord and folder/ids.json for TRL."""
    path = data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = list(islice(lines, 5000 if large else 400))
    size = 16_384 if large and not quick else 2048
    tokenizer = train_tokenizer(iter(texts), vocab_size=size, context=512)
    policy = random_policy(tokenizer, quick=quick, large=large)
    save_model(policy, tokenizer, folder / "policy")
    save_model(*score_model_from(folder / "policy", seed=0), folder / "reward")
    rows = prompts(data, tokenizer)[:256]
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            made = {"id": str(number), "split": "train", "prompt": row["messages"]}
            file.write(json.dumps(made) + "\n")
    (folder / "ids.json").write_text(json.dumps([row["ids"] for row in rows]), encoding="utf-8")


def steps_of(moments: Sequence[float]) -> dict[str, float]:
    """The median step, and how much longer the first took."""
    usual = statistics.median(b - a for a, b in pairwise(moments[1:]))
    return {"seconds": usual, "warm_up_seconds": moments[1] - moments[0] - usual}


def train_concord(
    folder: Path, case: str, precision: str, steps: int, device: str = "cpu"
) -> dict[str, Any]:
    """One run of policy/ppo.py; what a step took, and each of its phases."""
    config = PPOConfig(**COMMON, **CASES[case], steps=steps, precision=precision)
    if device != "cpu":  # which wants all of a step at once
        config = replace(config, micro_batch_tokens=16_384)
    moments, told = [], []

    def on_step(step: int, metrics: Any) -> None:
        moments.append(time.perf_counter())
        told.append({name: value for name, value in metrics.items() if name.endswith("_seconds")})

    moments.append(time.perf_counter())
    out = folder / f"out-{case}-{os.getpid()}"
    train(
        config,
        init=folder / "policy",
        reward_model=folder / "reward",
        prompts=folder / "prompts.jsonl",
        out=out,
        on_step=on_step,
        device=device,
    )
    phases = {name: statistics.median(one[name] for one in told[1:]) for name in told[-1]}
    return {"count": PER_STEP, **steps_of(moments), "phases": phases}


def generate(
    folder: Path, setting: str, rows: int, steps: int, device: str = "cpu"
) -> dict[str, Any]:
    """Answers of 64 tokens to `rows` prompts, by the sampler or by `transformers`."""
    model, tokenizer = load_causal_lm(folder / "policy", device=device)
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    moments = [time.perf_counter()]
    compiled = setting == "compiled"
    if setting not in CONCORD.values() and setting != "plain":
        model = model.bfloat16()
    options: dict[str, Any] = {}
    if compiled:
        everywhere = CompileConfig(fullgraph=False)
        everywhere._compile_all_devices = True  # type: ignore[assignment]  # it compiles on accelerators alone by itself
        options = {"cache_implementation": "static", "compile_config": everywhere}
    tokens = 0
    for step in range(steps):
        some = [ids[(step * rows + at) % len(ids)] for at in range(rows)]
        if setting in CONCORD.values():
            made = sample(
                model, tokenizer, some,
                temperature=0.7, max_new_tokens=MAX_RESPONSE,
                seeds=range(step * rows, (step + 1) * rows), precision=setting,
            )  # fmt: skip
            tokens += sum(len(one.tokens) for one in made)
        else:
            padded = torch.full((rows, MAX_PROMPT), tokenizer.pad_token_id)
            for row, own in enumerate(some):
                padded[row, MAX_PROMPT - len(own) :] = torch.tensor(own)
            mask = (padded != tokenizer.pad_token_id).long()
            with torch.inference_mode():
                made = model.generate(
                    input_ids=padded.to(device), attention_mask=mask.to(device),
                    do_sample=True, temperature=0.7, top_k=0, max_new_tokens=MAX_RESPONSE,
                    pad_token_id=tokenizer.pad_token_id,
                    **options,
                )  # fmt: skip
            tokens += made[:, MAX_PROMPT:].cpu().numel()
        moments.append(time.perf_counter())
    return {"count": tokens / steps, **steps_of(moments)}


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of TRL's environment, from pip at the first call."""
    python = folder / peer / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder / peer)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *PEERS[peer]]
        subprocess.run(pip, check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("var/benchmark"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--cases", nargs="+", default=[*CASES, "generate"])
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # CASE=SETTING, in a process of its own
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.one:
        case, _, setting = args.one.partition("=")
        if case.startswith("generate"):
            rows = int(case.removeprefix("generate"))
            figures = generate(args.folder, setting, rows, args.steps, args.device)
        else:
            figures = train_concord(args.folder, case, setting, args.steps, args.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if args.device != "cpu":
            peak = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps({**figures, "peak_mib": peak}))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    on_gpu = args.device != "cpu"
    prepare(args.folder, args.data, quick=args.quick, large=on_gpu)
    own = [sys.executable, __file__, "--data", str(args.data), "--folder", str(args.folder)]
    own += ["--device", args.device, "--steps", str(args.steps), "--one"]
    todo: list[tuple[str, str, list[str]]] = []
    for case in args.cases:
        if case == "generate":
            for rows in (32, 64):
                ways = {**CONCORD, **(GENERATE_ON_GPU if on_gpu else GENERATE)}
                for name, setting in ways.items():
                    if (name not in CONCORD and args.without_peers) or (
                        setting == "compiled" and args.without_compiled
                    ):
                        continue
                    todo.append((f"generate{rows}", name, [*own, f"generate{rows}={setting}"]))
            continue
        todo += [(case, name, [*own, f"{case}={setting}"]) for name, setting in CONCORD.items()]
        if args.without_peers or case == "head":  # TRL knows no head on a shared trunk
            continue
        python = str(python_of(args.folder, "trl112" if case == "ppo" else "trl"))
        for name, setting in TRL.items():
            words = [python, str(HERE / "ppo_speed_trl.py"), str(args.folder), case, setting]
            todo.append((case, name, [*words, str(args.steps), args.device]))
    if on_gpu:
        todo = [one for one in todo if "fp32" not in one[1]]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(1 if args.quick else args.rounds):
        for case, name, words in todo:
            if turn and "fp32" in name:
                continue
            run = measured(words)
            found.setdefault((case, name), []).append(run)
            rate = run["count"] / run["seconds"]
            sys.stderr.write(f"{case}, {name}: {rate:.2f}/s, {json.dumps(run)}\n")
    print(
        "| case | setting | episodes or tokens/s | warm-up s | peak MiB | seconds of the phases |"
    )
    print("| --- | --- | ---: | ---: | ---: | --- |")
    for (case, name), runs in found.items():
        rate = statistics.median(run["count"] / run["seconds"] for run in runs)
        warm = statistics.median(run["warm_up_seconds"] for run in runs)
        peak = statistics.median(run["peak_mib"] for run in runs)
        phases = ", ".join(
            f"{phase.removesuffix('_seconds')} {seconds:.2f}"
            for phase, seconds in runs[-1].get("phases", {}).items()
        )
        print(f"| {case} | {name} | {rate:.2f} | {warm:.1f} | {peak:.0f} | {phases} |")


if __name__ == "__main__":
    main()
