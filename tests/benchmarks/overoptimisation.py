"""Reward models are wrong somewhere, and a policy that is driven far enough finds out where.

    .venv/bin/python tests/benchmarks/overoptimisation.py --folder var/over --seeds 0 1 2

A synthetic world whose gold utility is known: answers of at most eight letters, of which each is
worth its weight the first two times and costs as much from the third on. Answers of the reference
hardly ever say a letter three times, so that a proxy, a reward model trained on a few noisy
comparisons of them, learns what a letter is worth and not when there are enough. Per seed:

- `far`: PPO against the proxy without any KL penalty or budget. Of each step's answers: the proxy's
  score, the gold utility and d = sqrt(KL to the reference).
- `defaults`: the same with the product's own KL target and budget; what it publishes is promoted.
- best of n of the reference's answers by the proxy, n = 1 ... 64, in expectation over all draws.

Gao's laws (arXiv:2210.10760, equations 1 and 2) are fitted by least squares to the gold gain over
the reference: d (alpha - beta d) for best of n, d (alpha - beta log d) for PPO. Writes curve.csv
and curve.png, and prints what share of the far run's peak gold gain and utility is kept at its end
and by the promoted policy.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib as mpl  # noqa: E402

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from policy.backbone import GPTShape, load_causal_lm, new_gpt, save_model  # noqa: E402
from policy.config import load_config  # noqa: E402
from policy.ppo import train as train_policy  # noqa: E402
from policy.ppo_config import PPOConfig  # noqa: E402
from policy.sampling import sample  # noqa: E402
from policy.scoring import load_scorer  # noqa: E402
from policy.text import CHAT_TEMPLATE, SPECIAL_TOKENS, decode_completion, render_prompt  # noqa: E402
from rewardmodel.config import RewardConfig  # noqa: E402
from rewardmodel.train import train as train_reward  # noqa: E402

WEIGHTS = {"a": 0.6, "b": 0.4, "c": 0.2, "d": 0.0, "e": -0.1, "f": -0.2, "g": -0.4, "h": -0.5}
ENOUGH = 2
LONGEST = 8
PROMPTS = [f"{one} {other}" for one in "abcd" for other in "efgh"]
SHAPE = GPTShape(width=64, layers=2, heads=2, context=32)
REWARD = {"epochs": 4, "comparisons_per_step": 16, "lr_peak": 1e-3, "keep": "last"}
PPO = {
    "steps": 80,
    "rollouts_per_step": 128,
    "max_response_tokens": LONGEST + 1,
    "temperature": 1.0,
    "micro_batch_tokens": 4096,
    "lr_peak": 1e-3,
    "value_lr_peak": 2e-3,
    "missing_end": "off",
    "allow_weak_reward": True,
    "checkpoint_every": 10_000,
}
FAR = {"kl_coef": 0.0, "kl_target_nats": None, "kl_stop_nats": None}
NS = [1, 2, 4, 8, 16, 32, 64]


def gold(text: str) -> float:
    """Utility of an answer."""
    letters = text.split()
    counts = {letter: letters.count(letter) for letter in set(letters)}
    return sum(WEIGHTS[each] * (min(n, ENOUGH) - max(0, n - ENOUGH)) for each, n in counts.items())


@dataclass(frozen=True, slots=True)
class Point:
    """Means over the answers of one policy."""

    kl_nats: float
    proxy: float
    gold: float

    @property
    def distance(self) -> float:
        return math.sqrt(max(0.0, self.kl_nats))


@dataclass(frozen=True, slots=True)
class Law:
    """gain(d) = d (alpha - beta d), or d (alpha - beta log d)."""

    alpha: float
    beta: float
    is_log: bool
    explained: float
    """Share of the variance of the gains."""

    def gain(self, d: float) -> float:
        return d * (self.alpha - self.beta * (math.log(d) if self.is_log else d)) if d else 0.0


def fitted(distances: Sequence[float], gains: Sequence[float], *, is_log: bool) -> Law:
    """Least squares in alpha and beta; distances of 0 say nothing and are left out."""
    points = [(d, gain) for d, gain in zip(distances, gains, strict=True) if d > 0]
    d, gain = np.array(points).T
    terms = np.stack([d, -d * (np.log(d) if is_log else d)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(terms, gain, rcond=None)
    left = gain - terms @ np.array([alpha, beta])
    return Law(float(alpha), float(beta), is_log, float(1 - left.var() / gain.var()))


def expected_best(proxies: Sequence[float], golds: Sequence[float], n: int) -> tuple[float, float]:
    """(proxy, gold) of the best of n by the proxy, mean over all draws of n from these answers."""
    order = sorted(range(len(proxies)), key=lambda at: proxies[at], reverse=True)
    total = math.comb(len(order), n)
    shares = [math.comb(len(order) - 1 - place, n - 1) / total for place in range(len(order))]
    return (
        sum(share * proxies[at] for share, at in zip(shares, order, strict=True)),
        sum(share * golds[at] for share, at in zip(shares, order, strict=True)),
    )


def tokenizer_of_letters() -> Any:
    vocabulary = {token: at for at, token in enumerate((*SPECIAL_TOKENS, *WEIGHTS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, end, *others = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=pad,
        bos_token=bos,
        eos_token=end,
        additional_special_tokens=others,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def said(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def answers_of(directory: Path, each: int, seed: int) -> dict[str, list[str]]:
    """`each` answers of a policy to every prompt."""
    model, tokenizer = load_causal_lm(directory)
    prompts = [prompt for prompt in PROMPTS for _ in range(each)]
    drawn = sample(
        model,
        tokenizer,
        [render_prompt(tokenizer, said(prompt)).ids for prompt in prompts],
        temperature=1.0,
        max_new_tokens=LONGEST + 1,
        seeds=[seed * len(prompts) + row for row in range(len(prompts))],
    )
    found: dict[str, list[str]] = {prompt: [] for prompt in PROMPTS}
    for prompt, one in zip(prompts, drawn, strict=True):
        found[prompt].append(decode_completion(tokenizer, one.tokens))
    return found


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def comparisons(answers: dict[str, list[str]], count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of two answers and one vote: better with the odds exp(difference of gold)."""
    draw, rows = Random(f"votes {seed}"), []
    while len(rows) < count:
        prompt = draw.choice(PROMPTS)
        one, other = draw.sample(answers[prompt], 2)
        if one == other or not one or not other:
            continue
        is_first = draw.random() < 1 / (1 + math.exp(gold(other) - gold(one)))
        vote = {"axis": "overall", "ranking": [["0"], ["1"]] if is_first else [["1"], ["0"]]}
        rows.append(
            {
                "id": str(len(rows)),
                "split": "dev" if len(rows) % 10 == 0 else "train",
                "prompt": said(prompt),
                "completions": [
                    {"id": str(at), "text": text, "model": None}
                    for at, text in enumerate((one, other))
                ],
                "votes": [
                    vote | {"strength": None, "weight": None, "annotator": "v", "kind": "simulated"}
                ],
            }
        )
    return rows


def run_points(directory: Path) -> list[Point]:
    """Each step of a run by its own rollouts: what the policy was before that step's update."""
    found = []
    for shard in sorted((directory / "rollouts").glob("step-*.jsonl")):
        rows = [json.loads(line) for line in shard.read_text("utf-8").splitlines()]
        found.append(
            Point(
                kl_nats=fmean(row["kl"] for row in rows),
                proxy=fmean(row["score"] for row in rows),
                gold=fmean(gold(row["text"]) for row in rows),
            )
        )
    return found


def best_points(answers: dict[str, list[str]], reward: Path, ns: Sequence[int]) -> list[Point]:
    """Best of n, mean over the prompts; the KL is that of answers which are all different."""
    scorer = load_scorer(reward)
    by_prompt = [
        (list(scorer.score([said(prompt)] * len(texts), texts)), [gold(text) for text in texts])
        for prompt, texts in answers.items()
    ]
    found = []
    for n in ns:
        pairs = [expected_best(proxies, golds, n) for proxies, golds in by_prompt]
        kl = math.log(n) - (n - 1) / n
        found.append(Point(kl, fmean(p for p, _ in pairs), fmean(g for _, g in pairs)))
    return found


def smoothed(values: Sequence[float], reach: int = 2) -> list[float]:
    """Mean with up to `reach` neighbours on each side, so that a peak is no lucky draw."""
    return [fmean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]


@dataclass(frozen=True, slots=True)
class Found:
    """One seed's curves."""

    far: list[Point]
    best: list[Point]
    promoted: Point
    """The policy that the defaults publish."""
    law_far: Law
    law_best: Law

    @property
    def start(self) -> float:
        return self.best[0].gold

    @property
    def peak(self) -> float:
        return max(smoothed([point.gold for point in self.far]))

    @property
    def end(self) -> float:
        return smoothed([point.gold for point in self.far])[-1]


def one_run(folder: Path, seed: int, *, votes: int, each: int, overrides: Sequence[str]) -> Found:
    folder.mkdir(parents=True)
    tokenizer = tokenizer_of_letters()
    save_model(new_gpt(tokenizer, SHAPE, seed=seed), tokenizer, folder / "reference")
    answers = answers_of(folder / "reference", each, seed)
    data = write_rows(folder / "comparisons.jsonl", comparisons(answers, votes, seed))
    reward = folder / "proxy"
    config = RewardConfig(**REWARD, seed=seed)  # type: ignore[arg-type]
    train_reward(config, data=data, init=folder / "reference", out=reward)
    prompts = write_rows(
        folder / "prompts.jsonl", [{"id": prompt, "prompt": prompt} for prompt in PROMPTS]
    )
    for name, more in (("far", FAR), ("defaults", {})):
        words = [
            f"{key}={json.dumps(value)}" for key, value in (PPO | more | {"seed": seed}).items()
        ]
        train_policy(
            load_config(PPOConfig, None, [*words, *overrides]),
            init=folder / "reference",
            prompts=prompts,
            reward_model=reward,
            out=folder / name,
        )
    far, best = (
        run_points(folder / "far"),
        best_points(answers, reward, [n for n in NS if n < each]),
    )
    published = answers_of(folder / "defaults", each, seed + 1)
    scorer = load_scorer(reward)
    promoted = Point(
        kl_nats=run_points(folder / "defaults")[-1].kl_nats,
        proxy=fmean(
            score
            for prompt, texts in published.items()
            for score in scorer.score([said(prompt)] * len(texts), texts)
        ),
        gold=fmean(gold(text) for texts in published.values() for text in texts),
    )
    start = best[0].gold
    laws = {
        is_log: fitted(
            [p.distance for p in points], [p.gold - start for p in points], is_log=is_log
        )
        for is_log, points in ((True, far), (False, best))
    }
    return Found(far, best, promoted, laws[True], laws[False])


def write_curves(folder: Path, runs: dict[int, Found]) -> None:
    """curve.csv, every point; curve.png, gold and proxy over sqrt(KL) with the fitted laws."""
    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["seed", "kind", "step_or_n", "sqrt_kl", "proxy", "gold"])
        for seed, run in runs.items():
            for kind, places, points in (
                ("ppo", range(1, len(run.far) + 1), run.far),
                ("best of n", NS, run.best),
                ("promoted", [0], [run.promoted]),
            ):
                for place, point in zip(places, points, strict=False):
                    numbers = [point.distance, point.proxy, point.gold]
                    table.writerow([seed, kind, place, *(f"{each:.5f}" for each in numbers)])
    figure, both = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    curves: tuple[tuple[str, Callable[[Found], tuple[list[Point], Law]]], ...] = (
        ("PPO", lambda run: (run.far, run.law_far)),
        ("best of n", lambda run: (run.best, run.law_best)),
    )
    for axes, (title, of) in zip(both, curves, strict=True):
        for number, run in enumerate(runs.values()):
            points, law = of(run)
            along = np.linspace(0.0, max(point.distance for point in points), 100)
            label = {"gold": "gold", "proxy": "proxy", "law": "law"} if number == 0 else {}
            distances, first = [p.distance for p in points], points[0].proxy
            axes.plot(distances, [p.gold - run.start for p in points], ".", color="C0",
                      label=label.get("gold"))  # fmt: skip
            axes.plot(distances, [p.proxy - first for p in points], ":", color="C1",
                      label=label.get("proxy"))  # fmt: skip
            axes.plot(along, [law.gain(d) for d in along], color="C2", label=label.get("law"))
            if title == "PPO":
                axes.plot(run.promoted.distance, run.promoted.gold - run.start, "k*",
                          label="promoted" if number == 0 else None)  # fmt: skip
        axes.set(title=title, xlabel="sqrt(KL to the reference)")
        axes.legend()
    both[0].set_ylabel("gain over the reference")
    figure.tight_layout()
    figure.savefig(folder / "curve.png", dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--votes", type=int, default=400)
    parser.add_argument("--answers", type=int, default=100, help="to each prompt, of a policy")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of PPO")
    args = parser.parse_args(arguments)
    names = ["seed", "gold: reference", "peak", "end of far", "promoted", "kept of the peak",
             "kept of its gain", "KL at the end, promoted", "PPO: alpha, beta, R2",
             "best of n: alpha, beta, R2"]  # fmt: skip
    print("| " + " | ".join(names) + " |")
    print("| " + " | ".join(["---:"] * len(names)) + " |")
    runs: dict[int, Found] = {}
    for seed in args.seeds:
        folder = args.folder / f"seed-{seed}"
        run = one_run(folder, seed, votes=args.votes, each=args.answers, overrides=args.set)
        runs[seed] = run
        kept = (run.promoted.gold - run.start) / (run.peak - run.start)
        row = [
            str(seed),
            *(f"{each:.3f}" for each in (run.start, run.peak, run.end, run.promoted.gold)),
            f"{100 * run.promoted.gold / run.peak:.0f} %",
            f"{100 * kept:.0f} %",
            f"{run.far[-1].kl_nats:.1f}, {run.promoted.kl_nats:.1f}",
            *(
                f"{law.alpha:.2f}, {law.beta:.2f}, {law.explained:.2f}"
                for law in (run.law_far, run.law_best)
            ),
        ]
        print("| " + " | ".join(row) + " |", flush=True)
    write_curves(args.folder, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
