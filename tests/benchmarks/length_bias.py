"""Voters who like long answers: does a reward model learn what is good, or what is long?

    .venv/bin/python tests/benchmarks/length_bias.py --seeds 3 --folder var/length-bias

A synthetic world. An answer holds one word of quality and filler words. Voters order two answers by
quality plus BIAS x log length, by Bradley-Terry; in a second world good answers are longer too, so
that length tells something of quality. Measured, on pairs of unseen answers against the order by
quality alone: accuracy on `balanced` pairs, of which the better one is the longer in half; on those
where it is the shorter; and the Spearman correlation of score and length within a pair.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from policy.comparisons import read_comparisons  # noqa: E402
from policy.scoring import load_scorer  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.diagnostics import correlations  # noqa: E402
from rewardmodel.evaluate import Evaluation, measure  # noqa: E402
from rewardmodel.train import train  # noqa: E402

QUALITIES = {"awful": -1.5, "poor": -0.5, "fair": 0.5, "superb": 1.5}
FILLERS = ["river", "stone", "table", "green", "seven", "candle", "paper", "winter"]
BIAS = 1.5
"""Nats per unit of log length."""
SHORTEST, LONGEST = 3, 24
"""Filler words."""
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "length head": {"length_head": True},
    "length head, decorrelated": {"length_head": True, "length_decorrelation": 1.0},
}


def answer(draw: random.Random, quality: float, word: str, *, tied: float) -> tuple[float, str]:
    """tied: how much longer good answers are, in log length per nat of quality."""
    span = math.log(LONGEST / SHORTEST)
    middle = math.log(SHORTEST) + span * draw.random() + tied * quality
    count = round(min(LONGEST, max(SHORTEST, math.exp(middle))))
    words = [draw.choice(FILLERS) for _ in range(count)]
    words.insert(draw.randrange(count + 1), word)
    return quality, " ".join(words)


def rows(count: int, split: str, *, seed: int, tied: float) -> Iterator[dict[str, Any]]:
    """Comparisons of two; train and dev have voters' answers, test the order by quality."""
    draw = random.Random(f"{seed} {split} {tied}")
    for number in range(count):
        pair = [
            answer(draw, QUALITIES[word], word, tied=tied)
            for word in draw.sample(sorted(QUALITIES), 2)
        ]
        (first, one), (second, other) = pair
        if one == other:
            continue
        log_odds = first - second
        if split != "test":
            log_odds += BIAS * math.log(len(one) / len(other))
            is_first = draw.random() < 1 / (1 + math.exp(-log_odds))
        else:
            is_first = log_odds > 0
        ranking = [["x0"], ["x1"]] if is_first else [["x1"], ["x0"]]
        yield {
            "id": f"{split}{number}",
            "split": split,
            "prompt": [{"role": "user", "content": f"Describe {draw.choice(FILLERS)}."}],
            "completions": [
                {"id": f"x{i}", "text": text, "model": None} for i, (_, text) in enumerate(pair)
            ],
            "votes": [
                {"axis": "helpful", "ranking": ranking, "strength": None, "weight": None}
                | {"annotator": "voter", "kind": "simulated"}
            ],
        }


def balanced(evaluation: Evaluation) -> tuple[float, float]:
    """(accuracy where better and longer fall together half the time, where they never do)."""
    longer, shorter = [], []
    for judged in evaluation.judged:
        [(i, j)], [target] = judged.table.pairs, judged.table.targets
        better, worse = (i, j) if target > 0.5 else (j, i)
        if judged.chars[better] != judged.chars[worse]:  # equal ones say nothing of length
            part = longer if judged.chars[better] > judged.chars[worse] else shorter
            part.append(measure(judged.table, judged.scores).correct)
    return (fmean(longer) + fmean(shorter)) / 2, fmean(shorter)


def measured(folder: Path, config: RewardConfig, *, count: int, tied: float) -> dict[str, float]:
    data = folder.parent / f"world-{tied}-{config.seed}.jsonl"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        parts = (("train", count), ("dev", count // 8), ("test", count // 2))
        with data.open("w", encoding="utf-8") as file:
            for split, size in parts:
                for row in rows(size, split, seed=config.seed, tied=tied):
                    file.write(json.dumps(row) + "\n")
    train(config, data=data, out=folder, init=None)
    unseen = (each for each in read_comparisons(data) if each.in_split("test"))
    evaluation = Evaluation.of(load_scorer(folder), unseen)
    accuracy, shorter = balanced(evaluation)
    found = correlations(evaluation)["length_within"]
    return {"balanced": accuracy, "better is shorter": shorter, "length": found["spearman"]}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2400, help="train comparisons")
    parser.add_argument("--tied", type=float, action="append", help="worlds; 0 and 0.3 by default")
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| good answers are longer by | arm | balanced pairs | better is shorter | length |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for tied in args.tied or (0.0, 0.3):
        for arm, settings in ARMS.items():
            found = []
            for seed in range(args.seeds):
                config = RewardConfig(
                    layers=2, heads=4, width=args.width, context=128, vocab_size=400,
                    epochs=2, seed=seed, tokens_per_forward=4096, **settings,
                )  # fmt: skip
                folder = args.folder / f"{arm.replace(' ', '-')}-{tied}-{seed}"
                found.append(measured(folder, config, count=args.count, tied=tied))
            means = [fmean(each[key] for each in found) for key in found[0]]
            print(f"| {tied} | {arm} | " + " | ".join(f"{m:.3f}" for m in means) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
