"""`policy sweep`: one training command again and again, over settings, seeds and sizes.

    python -m policy sweep --out DIR --grid lr_peak=1e-3,3e-3 --grid seed=0,1 \\
        --metric heldout.bits_per_byte -- policy pretrain --data FILE

What stands behind `--` is the command; each run gets its own `--out` and `--set`. A grid goes
through all combinations, the last name fastest; `--random N` takes N different ones of them, drawn
by `--seed`. The same command goes on where it was: finished runs are kept, others resume.

    DIR/runs/NAME/      a run's own folder; NAME says its settings
    DIR/results.csv     a row for each run, DIR/table.md the same by rank, DIR/plot.png the metric
"""

import argparse
import csv
import hashlib
import io
import json
import math
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policy.config import BadInput, Stopped, require
from policy.run import is_finished

MODULES = ("policy", "rewardmodel")
MOST_RUNS = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """A run of the sweep and how it ended."""

    name: str
    settings: dict[str, str]
    outcome: str
    """`done`, or how it failed: `exit 2`, `exit 4` ..."""
    value: float | None
    """Of the metric; None where the run has not said it."""


def read_axes(words: Sequence[str]) -> dict[str, list[str]]:
    """name -> values of `name=a,b,c` words; a value may be JSON with commas in brackets."""
    axes: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        # A comma parts two values unless a bracket is open.
        values = [value for value in re.split(r",(?![^\[{]*[\]}])", text) if value]
        require(bool(equals and name and values), f"--grid wants name=value,value, got {word!r}")
        require(name not in axes, f"--grid names {name} twice")
        require(len(set(values)) == len(values), f"--grid {name} has a value twice: {text}")
        axes[name] = values
    return axes


def combinations(axes: dict[str, list[str]], count: int | None, seed: int) -> list[dict[str, str]]:
    """All combinations, or `count` different ones of them by lot, in the grid's order."""
    total = math.prod(map(len, axes.values()))
    require(
        count is None or 1 <= count <= total,
        f"--random must be from 1 to the {total} combinations of the grid: {count}",
    )
    wanted = total if count is None else count
    require(wanted <= MOST_RUNS, f"a sweep has at most {MOST_RUNS} runs, not {wanted}")
    numbers = (
        range(total) if count is None else sorted(random.Random(seed).sample(range(total), count))
    )
    return [_combination(axes, number) for number in numbers]


def _combination(axes: dict[str, list[str]], number: int) -> dict[str, str]:
    chosen = {}
    for name in reversed(axes):
        number, place = divmod(number, len(axes[name]))
        chosen[name] = axes[name][place]
    return {name: chosen[name] for name in axes}


def name_of(settings: dict[str, str]) -> str:
    """A folder's name that says the settings, and by a hash of them is no other run's."""
    said = "_".join(f"{name}={value}" for name, value in settings.items())
    plain = re.sub(r"[^\w.=+-]+", "-", said)[:80]
    return f"{plain}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


def value_in(folder: Path, metric: str, best: str | None) -> float | None:
    """`phase.name` out of metrics.jsonl: the last one, or the lowest or highest if asked for."""
    phase, _, name = metric.partition(".")
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    rows = [row for row in map(json.loads, lines) if row["phase"] == phase]
    values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
    if not values:
        return None
    return float({"min": min, "max": max}[best](values) if best else values[-1])


def run_all(
    command: Sequence[str],
    runs: Sequence[dict[str, str]],
    out: Path,
    *,
    metric: str,
    best: str | None,
    lowest_first: bool,
) -> list[Result]:
    """Each run that is not finished, one after another; tables and plot after each.

    Raises Stopped where a run was stopped on request, and BadInput if all runs were refused.
    """
    results = []
    for number, settings in enumerate(runs, start=1):
        name = name_of(settings)
        folder = out / "runs" / name
        code, asked = 0, False
        if not is_finished(folder):
            sys.stderr.write(f"run {number} of {len(runs)}: {name}\n")
            code, asked = _run([*command, "--out", str(folder), *_sets(settings)])
        if code == 3 or (asked and code):
            raise Stopped(f"stopped in run {number} of {len(runs)}; the same command goes on")
        outcome = "done" if code == 0 else f"exit {code}"
        results.append(Result(name, settings, outcome, value_in(folder, metric, best)))
        write_results(results, out, metric, lowest_first=lowest_first)
        if asked and number < len(runs):  # in the last moments of a run that got through
            raise Stopped(f"stopped after run {number} of {len(runs)}; the same command goes on")
    require(
        any(each.outcome == "done" for each in results),
        f"no run of the sweep was finished: {results[0].name} ended with {results[0].outcome}",
    )
    return results


def _sets(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def _run(words: Sequence[str]) -> tuple[int, bool]:
    """(exit code, whether a stop was asked for). The request is handed on, and waited for.

    The run has a session of its own: Ctrl-C reaches all that a terminal shows, and a run that hears
    of it twice ends without a checkpoint.
    """
    asked = False

    def hand_on(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    with subprocess.Popen([sys.executable, "-m", *words], start_new_session=True) as process:
        before = {
            number: signal.signal(number, hand_on)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            return process.wait(), asked
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def write_results(results: Sequence[Result], out: Path, metric: str, *, lowest_first: bool) -> None:
    """results.csv, table.md and plot.png."""
    names = list(results[0].settings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, metric, "outcome", "folder"])
    for each in results:
        writer.writerow([*each.settings.values(), each.value, each.outcome, f"runs/{each.name}"])
    _write(out / "results.csv", text.getvalue())
    sign = 1 if lowest_first else -1
    ranked = sorted(results, key=lambda each: math.inf if each.value is None else sign * each.value)
    lines = [f"| {' | '.join([*names, metric, 'outcome'])} |", "| --- " * (len(names) + 2) + "|"]
    for each in ranked:
        value = "" if each.value is None else f"{each.value:.5g}"
        lines.append(f"| {' | '.join([*each.settings.values(), value, each.outcome])} |")
    _write(out / "table.md", "\n".join(lines) + "\n")
    _plot(results, names, metric).savefig(out / "plot.png", dpi=120)


def _plot(results: Sequence[Result], names: Sequence[str], metric: str) -> Figure:
    """A panel for each name that varies: the metric of every run by its value, the means joined."""
    varied = [name for name in names if len({each.settings[name] for each in results}) > 1]
    shown = varied or list(names)
    figure = Figure(figsize=(4.2 * len(shown), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, shown, strict=True):
        labels = list(dict.fromkeys(each.settings[name] for each in results))
        groups: list[list[float]] = [
            [r.value for r in results if r.settings[name] == label and r.value is not None]
            for label in labels
        ]
        for place, values in enumerate(groups):
            panel.plot([place] * len(values), values, "o", color="#1f77b4", alpha=0.6)
        known = [place for place, values in enumerate(groups) if values]
        means = [sum(groups[place]) / len(groups[place]) for place in known]
        panel.plot(known, means, "-", color="#444444", linewidth=1)
        panel.set_xticks(range(len(labels)), labels)
        panel.set_xlabel(name)
    panels[0].set_ylabel(metric)
    return figure


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.staged")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def checked_command(words: Sequence[str]) -> list[str]:
    """MODULE, COMMAND and its own words. Raises BadInput for what is no command of training."""
    rest = list(words[1:] if words[:1] == ["--"] else words)
    require(
        len(rest) >= 2 and rest[0] in MODULES,
        f"behind -- stands a command, as in -- policy pretrain --data FILE, got {rest[:2]}",
    )
    taken = [word for word in rest if word == "--out" or word.startswith("--out=")]
    require(not taken, "each run has its own --out: leave it out of the command")
    return rest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--grid", action="append", required=True, metavar="NAME=A,B", help="may be given again"
    )
    parser.add_argument("--random", type=int, metavar="N", help="so many of the combinations")
    parser.add_argument("--seed", type=int, default=0, help="of --random")
    parser.add_argument(
        "--metric", required=True, metavar="PHASE.NAME", help="in metrics.jsonl: dev.loss ..."
    )
    parser.add_argument("--of", choices=("last", "min", "max"), default="last")
    parser.add_argument("--highest-first", action="store_true", help="in the table")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- MODULE COMMAND ...")


def run_command(args: argparse.Namespace) -> int:
    """`python -m policy sweep`."""
    command = checked_command(args.words)
    require("." in args.metric, f"--metric wants phase.name, got {args.metric!r}")
    runs = combinations(read_axes(args.grid), args.random, args.seed)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{args.out} cannot be made: {error.strerror}") from error
    asked: dict[str, Any] = {"command": command, "grid": args.grid, "random": args.random}
    asked |= {"seed": args.seed}
    known = args.out / "sweep.json"
    if known.is_file():
        before = json.loads(known.read_text(encoding="utf-8"))
        require(before == asked, f"{args.out} holds another sweep: {json.dumps(before)[:300]}")
    else:
        require(not any(args.out.iterdir()), f"{args.out} is not empty and holds no sweep")
        _write(known, json.dumps(asked, indent=1) + "\n")
    run_all(
        command,
        runs,
        args.out,
        metric=args.metric,
        best=None if args.of == "last" else args.of,
        lowest_first=not args.highest_first,
    )
    sys.stdout.write((args.out / "table.md").read_text(encoding="utf-8"))
    return 0
