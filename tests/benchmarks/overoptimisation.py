"""Reward models are wrong somewhere, and a policy that is driven far enough finds out where.

    .venv/bin/python tests/benchmarks/overoptimisation.py --folder var/over --seeds 1 2 3

The world is overoptimisation_world.py's: its gold utility is known, and a proxy, a reward model
trained on a few noisy comparisons, does not know when there is enough of a good thing. Per seed:

- `far`: PPO against the proxy without any KL penalty or budget. Of each step's answers: the proxy's
  score, the gold utility and d = sqrt(KL to the reference).
- `defaults`: the same with the product's own KL target and budget; what it publishes is promoted.
- best of n of the reference's answers by the proxy, n = 1 ... 256, in expectation over all draws.

Gao's laws (arXiv:2210.10760, equations 1 and 2) are fitted by least squares to the gold gain over
the reference: d (alpha - beta d) for best of n, d (alpha - beta log d) for PPO. Writes curve.csv
and curve.png, and prints what share of the gold utility at the peak, of the far run and of the
promoted policy's own, the promoted policy keeps.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import matplotlib as mpl  # noqa: E402

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import overoptimisation_world as world  # noqa: E402
from overoptimisation_world import Point, said, smoothed  # noqa: E402

from policy.scoring import load_scorer  # noqa: E402

NS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


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


def best_points(answers: dict[str, list[str]], reward: Path, ns: Sequence[int]) -> list[Point]:
    """Best of n, mean over the prompts; the KL is that of answers which are all different."""
    scorer = load_scorer(reward)
    by_prompt = [
        (
            list(scorer.score([said(prompt)] * len(texts), texts)),
            [world.gold(text) for text in texts],
        )
        for prompt, texts in answers.items()
    ]
    found = []
    for n in ns:
        pairs = [expected_best(proxies, golds, n) for proxies, golds in by_prompt]
        kl = math.log(n) - (n - 1) / n
        found.append(Point(kl, fmean(p for p, _ in pairs), fmean(g for _, g in pairs)))
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """One seed's curves."""

    far: list[Point]
    own: list[Point]
    """Of the run that publishes the promoted policy."""
    best: list[Point]
    promoted: Point
    """The policy that the defaults publish, by answers of its own."""
    law_far: Law
    law_best: Law

    @property
    def start(self) -> float:
        return self.best[0].gold

    @property
    def peak(self) -> float:
        return peak_of(self.far)

    @property
    def end(self) -> float:
        return smoothed([point.gold for point in self.far])[-1]


def peak_of(points: Sequence[Point]) -> float:
    return max(smoothed([point.gold for point in points]))


def one_run(
    folder: Path, reference: Path, seed: int, *, votes: int, each: int, overrides: Sequence[str]
) -> Found:
    folder.mkdir()
    answers = world.answers_of(reference, each, seed)
    proxy = world.reward_model(folder, "proxy", answers, init=reference, votes=votes, seed=seed)
    for name, settings in (("far", world.FAR), ("defaults", {})):
        world.drive(
            folder / name,
            reference=reference,
            rewards=[proxy],
            seed=seed,
            settings=settings,
            overrides=overrides,
        )
    far, own = (world.run_points(folder / name) for name in ("far", "defaults"))
    best = best_points(answers, proxy, [n for n in NS if n < each])
    promoted = world.point_of(folder / "defaults", proxy, own[-1].kl_nats, each=each, seed=seed + 1)
    start = best[0].gold
    laws = {
        is_log: fitted(
            [p.distance for p in points], [p.gold - start for p in points], is_log=is_log
        )
        for is_log, points in ((True, far), (False, best))
    }
    return Found(far, own, best, promoted, laws[True], laws[False])


def write_curves(folder: Path, runs: dict[int, Found]) -> None:
    """curve.csv, every point; curve.png, gold and proxy over sqrt(KL) with the fitted laws."""
    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["seed", "kind", "step_or_n", "sqrt_kl", "proxy", "gold"])
        for seed, run in runs.items():
            for kind, places, points in (
                ("far", range(1, len(run.far) + 1), run.far),
                ("defaults", range(1, len(run.own) + 1), run.own),
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
        for number, (seed, run) in enumerate(runs.items()):
            points, law = of(run)
            along = np.linspace(0.0, max(point.distance for point in points), 100)
            distances, first, style = [p.distance for p in points], points[0].proxy, f"C{number}"
            gains = [p.gold - run.start for p in points]
            axes.plot(distances, gains, ".", color=style, label=f"gold, seed {seed}")
            axes.plot(distances, [p.proxy - first for p in points], ":", color=style, alpha=0.6)
            axes.plot(along, [law.gain(d) for d in along], color=style)
            if title == "PPO":
                axes.plot(run.promoted.distance, run.promoted.gold - run.start, "*", color=style,
                          markersize=12, markeredgecolor="black")  # fmt: skip
        axes.plot([], [], ":", color="grey", label="proxy")
        axes.plot([], [], color="grey", label="law")
        if title == "PPO":
            axes.plot([], [], "*", color="grey", markersize=12, label="promoted")
        axes.set(title=title, xlabel="sqrt(KL to the reference)")
        axes.legend()
    both[0].set_ylabel("gain over the reference")
    figure.tight_layout()
    figure.savefig(folder / "curve.png", dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--votes", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=400, help="to each prompt, of a policy")
    parser.add_argument("--demonstrations", type=int, default=world.DEMONSTRATIONS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of PPO")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    reference = world.make_reference(args.folder, demonstrations=args.demonstrations)
    names = ["seed", "gold: reference", "peak of far", "its end", "peak of the defaults",
             "promoted", "kept of far's peak", "of its own run's peak", "KL: far, promoted",
             "PPO: alpha, beta, R2", "best of n: alpha, beta, R2"]  # fmt: skip
    print("| " + " | ".join(names) + " |")
    print("| " + " | ".join(["---:"] * len(names)) + " |")
    runs: dict[int, Found] = {}
    for seed in args.seeds:
        run = runs[seed] = one_run(
            args.folder / f"seed-{seed}",
            reference,
            seed,
            votes=args.votes,
            each=args.answers,
            overrides=args.set,
        )
        own_peak = peak_of(run.own)
        row = [
            str(seed),
            *(f"{each:.2f}" for each in (run.start, run.peak, run.end, own_peak)),
            f"{run.promoted.gold:.2f}",
            f"{100 * run.promoted.gold / run.peak:.0f} %",
            f"{100 * run.promoted.gold / own_peak:.0f} %",
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
