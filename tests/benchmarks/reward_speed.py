"""How fast a reward model is trained, beside TRL's RewardTrainer on the same ids and weights.

    python tests/benchmarks/reward_speed.py --data DIR [--quick] [--without-trl] [--folder DIR]
        [--pairs N] [--rankings N] [--rounds N] [--without-compiled]

DIR, by default CONCORD_SHARED_DATA, holds hh-rlhf/ and fine-grained-rlhf/ (the real data sets). A
GPT-2 of 5.3 million random weights; pairs of up to 512 tokens, 16 a step, one epoch over the first
N; rankings of four, which TRL gets as pairs, 16 rankings' worth a step. Each figure is the median
of three runs, each in a process of its own, the settings in turn; those that are not a side's
fastest (fp32, TRL's defaults) and the compiled ones, whose warm-up takes minutes, run once and on
pairs alone. Then both sides train on the same pairs in the same order from the same weights, in
bf16, over three orders, and are held against pairs that neither saw. TRL is installed into the
folder at the first call (TRL_REQUIREMENTS), in an environment of its own. A Markdown table goes to
stdout.
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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from policy.backbone import save_model, score_model_from  # noqa: E402
from policy.comparisons import Comparison, parse_row  # noqa: E402
from policy.config import BadInput  # noqa: E402
from policy.optim import adamw  # noqa: E402
from policy.scoring import Scorer  # noqa: E402
from policy.tokenizer import train_tokenizer  # noqa: E402
from rewardmodel.batches import Example, Examples, examples_of_step, num_steps  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.forward import Forward  # noqa: E402
from rewardmodel.objective import Objective  # noqa: E402
from rewardmodel.step import train_step  # noqa: E402
from rewardmodel.survey import Survey  # noqa: E402
from rewardmodel.targets import PLAIN  # noqa: E402

HERE = Path(__file__).resolve().parent
TRL_REQUIREMENTS = (f"torch=={torch.__version__}", "trl==1.16.*", "transformers==5.23.0")
PER_STEP, MAX_TOKENS = 16, 512
CONCORD: dict[str, dict[str, Any]] = {
    "Concord, fp32": {},
    "Concord, bf16": {"precision": "bf16"},
    "Concord, bf16, compiled": {"precision": "bf16", "compile": True},
}
TRL = {
    "TRL, plain fp32": "plain",
    "TRL, its defaults": "defaults",
    "TRL, bf16, sorted, fused": "tuned",
    "TRL, the same, compiled": "compiled",
}
HELD_OUT = 400
"""Pairs at the end of the file, for the comparison of quality."""


def pairs(data: Path) -> Iterator[Comparison]:
    """The human preferences of hh-rlhf that share a prompt."""
    path = data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line, text in enumerate(lines, 1):
            try:
                yield parse_row(json.loads(text), line=line)
            except BadInput:
                continue  # three part before their last answer


def rankings(data: Path) -> Iterator[Comparison]:
    """Four answers to a question; people compared each two of them."""
    (path,) = sorted((data / "fine-grained-rlhf").glob("*.json*"))
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        text = file.read()
    rows = json.loads(text) if text[0] == "[" else map(json.loads, text.splitlines())
    for number, row in enumerate(rows):
        texts = [row[f"prediction {place}"] for place in range(1, 5)]
        votes = [
            [f"{first if wins == 1 else second}", f"{second if wins == 1 else first}"]
            for (first, second), wins in zip(
                ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)), row["preference"], strict=True
            )
            if wins
        ]
        vote = {"axis": None, "strength": None, "weight": None, "annotator": None, "kind": "human"}
        made = {
            "id": str(number),
            "split": None,
            "prompt": [{"role": "user", "content": row["question"]}],
            "completions": [
                {"id": str(at), "text": each, "model": None} for at, each in enumerate(texts)
            ],
            "votes": [{**vote, "ranking": [[name] for name in each]} for each in votes],
        }
        try:
            yield parse_row(made, line=number)
        except BadInput:
            continue  # two answers of one text


def prepare(folder: Path, data: Path, sizes: dict[str, int], quick: bool) -> None:
    """folder/model and, for each case, folder/CASE.jsonl: the ids that both sides train on."""
    read = {
        "pairs": list(islice(pairs(data), sizes["pairs"])),
        "rankings": list(islice(rankings(data), sizes["rankings"])),
    }
    texts = (text for each in read["pairs"] for text in each.texts)
    tokenizer = train_tokenizer(texts, vocab_size=2048, context=MAX_TOKENS)
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 1} if quick else {"n_embd": 256, "n_layer": 6}
    trunk = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_head=4,
            n_positions=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shape,
        )
    )
    save_model(trunk, tokenizer, folder / "trunk")
    save_model(*score_model_from(folder / "trunk", seed=0), folder / "model")
    for case, comparisons in read.items():
        write_ids(folder / f"{case}.jsonl", encoded(comparisons, tokenizer))


def write_ids(path: Path, examples: Sequence[Example]) -> None:
    """Lines {rows, pairs}: ids, and (better, worse) by their places."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            rows = [list(row) for row in example.rows]
            table = zip(example.table.pairs, example.table.targets, strict=True)
            strict = [(i, j) if share > 0.5 else (j, i) for (i, j), share in table]
            file.write(json.dumps({"rows": rows, "pairs": strict}) + "\n")


def encoded(
    comparisons: Iterable[Comparison], tokenizer: Any, *, at_most: int | None = None
) -> list[Example]:
    """The first of those whose rows all fit without a loss, for TRL drops the others."""
    examples = Examples()
    for comparison in comparisons:
        if len(examples.items) == at_most:
            break
        examples.add(comparison, tokenizer, MAX_TOKENS)
    return examples.items


def train_concord(folder: Path, case: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One epoch over the case's comparisons; what it took."""
    config = replace(RewardConfig(comparisons_per_step=PER_STEP, lr_peak=1e-4), **changes)
    model, tokenizer = score_model_from(folder / "model", seed=0)
    chosen = pairs if case == "pairs" else rankings
    wanted = sum(1 for _ in (folder / f"{case}.jsonl").open(encoding="utf-8"))
    examples = encoded(chosen(Path(os.environ["CONCORD_SHARED_DATA"])), tokenizer, at_most=wanted)
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN)
    optimizer = adamw(model, lr=config.lr_peak, weight_decay=0.0)
    began = time.perf_counter()
    forward.warm_up(examples)
    warm = time.perf_counter()
    pads = []
    for step in range(1, num_steps(len(examples), per_step=PER_STEP, num_epochs=1) + 1):
        batch = examples_of_step(examples, step, per_step=PER_STEP, seed=0)
        pads.append(train_step(forward, batch, optimizer, config, objective).pad_share)
    ended = time.perf_counter()
    return {
        "comparisons": len(examples),
        "seconds": ended - warm,
        "warm_up_seconds": warm - began,
        "pad_share": statistics.mean(pads),
    }


def first_step(folder: Path) -> tuple[float, torch.Tensor]:
    """(loss, gradient) of Concord in fp32 on the first step's pairs, in file order."""
    model, tokenizer = score_model_from(folder / "model", seed=0)
    data = Path(os.environ["CONCORD_SHARED_DATA"])
    examples = encoded(pairs(data), tokenizer, at_most=PER_STEP)
    config = RewardConfig(max_grad_norm=1e9)
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN)
    stats = train_step(forward, examples, adamw(model, lr=0.0, weight_decay=0.0), config, objective)
    names = sorted(name for name, p in model.named_parameters() if p.grad is not None)
    gradients = dict(model.named_parameters())
    return stats.loss, torch.cat([gradients[name].grad.flatten() for name in names])


def held_out_losses(folder: Path, order: int, num_train: int) -> dict[str, tuple[float, float]]:
    """{side: (log loss, accuracy)} on the last pairs of the file, after an epoch over the first
    num_train in this order."""
    data = Path(os.environ["CONCORD_SHARED_DATA"])
    model, tokenizer = score_model_from(folder / "model", seed=0)
    everything = encoded(pairs(data), tokenizer)
    held_out = everything[max(num_train, len(everything) - HELD_OUT) :]
    mix = torch.Generator().manual_seed(order)
    train = [everything[at] for at in torch.randperm(num_train, generator=mix).tolist()]
    write_ids(folder / "quality.jsonl", train)
    config = RewardConfig(precision="bf16")
    forward = Forward(model, config, max_tokens=MAX_TOKENS)
    objective = Objective(config, Survey(), PLAIN)
    optimizer = adamw(model, lr=1e-4, weight_decay=0.0)
    for start in range(0, num_train, PER_STEP):
        train_step(forward, train[start : start + PER_STEP], optimizer, config, objective)
    words = [str(trl_python(folder)), str(HERE / "reward_speed_trl.py"), str(folder)]
    measured([*words, "quality", "quality"])
    theirs, _ = score_model_from(folder / "trl-quality", seed=0)
    found = {}
    for side, trained in (("Concord", model), ("TRL", theirs)):
        scorer = Scorer(trained.eval(), tokenizer, max_tokens=MAX_TOKENS)
        scores = torch.tensor(scorer.score_ids([row for each in held_out for row in each.rows]))
        better = torch.tensor([each.table.targets[0] > 0.5 for each in held_out])
        margin = (scores[0::2] - scores[1::2]) * torch.where(better, 1.0, -1.0)
        loss = torch.nn.functional.softplus(-margin).mean().item()
        found[side] = loss, (margin > 0).double().mean().item()
    return found


def trl_python(folder: Path) -> Path:
    """The interpreter of TRL's environment, from pip at the first call."""
    python = folder / "trl" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "trl")], check=True)
    installed = subprocess.run(
        [str(python), "-c", "import trl"], capture_output=True, check=False, timeout=120
    )
    if installed.returncode:
        pip = [str(python), "-m", "pip", "install", "--quiet", *TRL_REQUIREMENTS]
        subprocess.run(pip, check=True)
    return python


def told(case: str, name: str, run: dict[str, Any]) -> dict[str, Any]:
    """The run's figures, said on stderr as they come: the whole takes long."""
    rate = run["comparisons"] / run["seconds"]
    sys.stderr.write(f"{case}, {name}: {rate:.2f}/s, {run['peak_mib']:.0f} MiB\n")
    return run


def measured(words: Sequence[str]) -> dict[str, Any]:
    """The JSON that a process of its own prints last."""
    done = subprocess.run([*words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("var/benchmark"))
    parser.add_argument("--quick", action="store_true", help="two steps of a tiny model, once")
    parser.add_argument("--without-trl", action="store_true")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="at most; all by default")
    parser.add_argument("--rankings", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # CASE=NAME, in a process of its own
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    os.environ["CONCORD_SHARED_DATA"] = str(args.data)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.one:
        case, _, name = args.one.partition("=")
        figures = train_concord(args.folder, case, CONCORD[name])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**figures, "peak_mib": peak}))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    sizes = {"pairs": args.pairs, "rankings": args.rankings}
    if args.quick:
        sizes = dict.fromkeys(sizes, 2 * PER_STEP)
    prepare(args.folder, args.data, sizes, args.quick)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(1 if args.quick else args.rounds):
        for case in ("pairs", "rankings"):
            once = set() if case == "pairs" and not turn else {"fp32", "defaults", "compiled"}
            if args.quick or args.without_compiled:
                once.add("compiled")
            concord = [name for name in CONCORD if not any(word in name for word in once)]
            trl = [name for name in TRL if not any(word in name for word in once)]
            trl = [] if args.without_trl else trl
            for name in concord:
                words = [sys.executable, __file__, "--folder", str(args.folder)]
                words += ["--one", f"{case}={name}"]
                found.setdefault((case, name), []).append(told(case, name, measured(words)))
            for name in trl:
                words = [str(trl_python(args.folder)), str(HERE / "reward_speed_trl.py")]
                words += [str(args.folder), case, TRL[name]]
                found.setdefault((case, name), []).append(told(case, name, measured(words)))
    print("| case | setting | comparisons/s | with warm-up | warm-up s | peak MiB | padding |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (case, name), runs in found.items():
        rate = statistics.median(run["comparisons"] / run["seconds"] for run in runs)
        whole = statistics.median(
            run["comparisons"] / (run["seconds"] + run["warm_up_seconds"]) for run in runs
        )
        warm = statistics.median(run["warm_up_seconds"] for run in runs)
        peak = statistics.median(run["peak_mib"] for run in runs)
        pads = f"{runs[0]['pad_share']:.1%}" if "pad_share" in runs[0] else ""
        print(f"| {case} | {name} | {rate:.2f} | {whole:.2f} | {warm:.0f} | {peak:.0f} | {pads} |")
    if not args.without_trl:
        said = measured(
            [
                str(trl_python(args.folder)),
                str(HERE / "reward_speed_trl.py"),
                *(str(args.folder), "pairs", "first-step"),
            ]
        )
        loss, gradient = first_step(args.folder)
        theirs = torch.load(args.folder / "first-step.pt", weights_only=True)
        apart = ((gradient - theirs).norm() / theirs.norm()).item()
        print(f"\nFirst step in fp32: loss {loss:.7f}, TRL's {said['loss']:.7f}; ", end="")
        print(f"their gradients differ by {apart:.1e} of their norm.")
        num_train = PER_STEP if args.quick else min(480, args.pairs)
        for order in range(1 if args.quick else 3):
            sides = held_out_losses(args.folder, order, num_train)
            figures = (f"{side} {loss:.4f}, {right:.1%}" for side, (loss, right) in sides.items())
            print(f"Held-out log loss and accuracy, order {order}: {'; '.join(figures)}.")


if __name__ == "__main__":
    main()
