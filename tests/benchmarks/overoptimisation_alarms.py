"""Which alarm of PPO speaks when a policy is driven too far, how early, how often for nothing?

    .venv/bin/python tests/benchmarks/overoptimisation_alarms.py --folder var/alarms --seeds 20-39

In the world of overoptimisation_world.py each seed has its own votes: a proxy, and a judge that
learned from a quarter as many other comparisons and only watches. Three runs: `far` without any KL
penalty or budget, `default` under the product's own, and `short` with half of that. A run went too
far if the gold utility at its end has lost more than a tenth of what it had gained at its peak and
the proxy's score is no lower than it was then. For each alarm the table says how many of the runs
that went too far raised it, when it spoke first (in steps after the gold's peak; below 0: before
it), how much of the peak's gain was left then, and how many of the others raised it, falsely.
`either` is the earlier one of the two in EITHER.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import overoptimisation_world as world  # noqa: E402

ARMS: dict[str, dict[str, Any]] = {
    "far": world.FAR,
    "default": {},
    "short": {"kl_target_nats": 3.0, "kl_stop_nats": 6.0},
}
EITHER = ("reward_model_2_against", "entropy_drift")
LOST = 0.1
"""Of the peak's gain over the first step: a run that ends with more gone went too far."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One run's gold utility, and when its alarms spoke first."""

    golds: list[float]
    """Smoothed, by step."""
    proxies: list[float]
    """The same of the proxy's scores."""
    first: dict[str, int]
    """Alarm -> step, counted from 1."""

    @property
    def peak_step(self) -> int:
        return max(range(len(self.golds)), key=lambda at: self.golds[at]) + 1

    def kept(self, step: int) -> float:
        """Share of the peak's gain that is there at this step."""
        start, peak = self.golds[0], max(self.golds)
        return (self.golds[step - 1] - start) / (peak - start) if peak > start else 1.0

    @property
    def went_too_far(self) -> bool:
        """Gold has fallen, and the proxy has not: where a leash pulls back, both do."""
        proxy_rose = self.proxies[-1] >= self.proxies[self.peak_step - 1]
        return proxy_rose and self.kept(len(self.golds)) < 1 - LOST


def watched(directory: Path) -> Watched:
    points = world.run_points(directory)
    first: dict[str, int] = {}
    for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["phase"] == "alarms":
            for name in row.keys() - {"step", "phase"}:
                first.setdefault(name, row["step"])
    if both := [first[name] for name in EITHER if name in first]:
        first["either"] = min(both)
    return Watched(
        world.smoothed([point.gold for point in points]),
        world.smoothed([point.proxy for point in points]),
        first,
    )


def one_seed(
    folder: Path,
    reference: Path,
    seed: int,
    *,
    votes: int,
    each: int,
    members: int,
    overrides: Sequence[str],
) -> list[Watched]:
    """A run of each of ARMS."""
    folder.mkdir()
    answers = world.answers_of(reference, each, seed)
    proxy = world.reward_model(
        folder, "proxy", answers, init=reference, votes=votes, seed=seed, members=members
    )
    judge = world.reward_model(
        folder, "judge", answers, init=reference, votes=votes // 4, seed=seed + 1000
    )
    found = []
    for name, settings in ARMS.items():
        world.drive(
            folder / name,
            reference=reference,
            rewards=[proxy, judge],
            seed=seed,
            settings=settings,
            overrides=overrides,
        )
        found.append(watched(folder / name))
    return found


def rows_of(runs: Sequence[Watched]) -> list[list[str]]:
    """The table: a row for each alarm that spoke in any run."""
    far = [run for run in runs if run.went_too_far]
    others = [run for run in runs if not run.went_too_far]
    rows = []
    for name in sorted({name for run in runs for name in run.first}):
        spoke = [(run, run.first[name]) for run in far if name in run.first]
        after = [step - run.peak_step for run, step in spoke]
        kept = [run.kept(max(step, run.peak_step)) for run, step in spoke]
        false = sum(name in run.first for run in others)
        rows.append(
            [
                name,
                f"{len(spoke)} of {len(far)}",
                f"{median(after):+g} [{min(after):+d}, {max(after):+d}]" if spoke else "",
                f"{100 * median(kept):.0f} % [{100 * min(kept):.0f}]" if spoke else "",
                f"{false} of {len(others)}",
            ]
        )
    return rows


def table_of(runs: Mapping[str, Sequence[Watched]]) -> str:
    """runs: by arm."""
    lines = [
        "| alarm | raised | steps after the peak | gain kept then | raised falsely |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(row) + " |" for row in rows_of(list(chain(*runs.values())))),
        *(
            f"{name}: {sum(run.went_too_far for run in of_arm)} of {len(of_arm)} too far"
            for name, of_arm in runs.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("20-39"), metavar="A-B")
    parser.add_argument("--votes", type=int, default=400)
    parser.add_argument("--answers", type=int, default=400, help="to each prompt, to vote on")
    parser.add_argument(
        "--members", type=int, default=1, help="of the proxy, an ensemble from 2 on"
    )
    parser.add_argument("--demonstrations", type=int, default=world.DEMONSTRATIONS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of PPO")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    reference = world.make_reference(args.folder, demonstrations=args.demonstrations)
    runs: dict[str, list[Watched]] = {name: [] for name in ARMS}
    for seed in args.seeds:
        found = one_seed(
            args.folder / f"seed-{seed}",
            reference,
            seed,
            votes=args.votes,
            each=args.answers,
            members=args.members,
            overrides=args.set,
        )
        for (name, so_far), run in zip(runs.items(), found, strict=True):
            so_far.append(run)
            print(
                f"seed {seed}, {name}: gold's peak at step {run.peak_step}, "
                f"{100 * run.kept(len(run.golds)):.0f} % of its gain kept at the end; "
                f"{run.first}",
                file=sys.stderr,
            )
        (args.folder / "table.md").write_text(table_of(runs), encoding="utf-8")
    print(table_of(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
