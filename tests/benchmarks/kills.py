"""Does a reward-model run that is killed end with the bits of one that is not?

    .venv/bin/python tests/benchmarks/kills.py --kills 20 --seed 0 --folder var/kills

One run of `python -m rewardmodel train` (in a fork of a process that has torch, which spares its
import) goes through; each of the others gets one SIGKILL, at a
moment drawn uniformly over the wall time that the first had its folder, and the same command again.
What lies in the folder tells what the kill hit, its metrics which steps were done twice. Compared
are sha256 over the published weights, the last ones, the optimizer's state and the generators'
(run.json), and the bytes of two files. Checkpoints are large beside the steps here, so that many
kills hit a save.
"""

import argparse
import collections
import json
import multiprocessing
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from rewardmodel.__main__ import main as main_of_rewardmodel  # noqa: E402

FORK = multiprocessing.get_context("fork")
CHECKPOINT_EVERY = 10
WORDS = ["river", "stone", "table", "green", "seven", "candle", "paper", "winter", "please"]
SMALL = {"layers": 1, "heads": 2, "width": 32, "context": 64, "vocab_size": 300}
"""A model that is trained in no time: for the test of this file."""
LARGE = {"layers": 2, "heads": 8, "width": 512, "context": 64, "vocab_size": 300}
"""7 million parameters: 110 MB a checkpoint (weights, best weights, two moments), tiny batches."""


@dataclass(frozen=True)
class Kill:
    """What one SIGKILL hit and what came of it."""

    at_seconds: float
    phase: str
    last_step: int
    """Logged before the kill."""
    resumed_at: int
    equal: dict[str, bool]
    """Name of what has a fingerprint -> is it that of the run without a kill; metrics.jsonl too."""


def write_data(path: Path, num_comparisons: int, seed: int) -> None:
    """Comparisons of two random words, a tenth of them dev rows."""
    draw = random.Random(seed)
    rows = []
    for number in range(num_comparisons):
        texts = draw.sample(WORDS, 2)
        vote = {"axis": "a", "ranking": [["0"], ["1"]], "strength": None, "weight": None}
        rows.append(
            {
                "id": str(number),
                "split": "dev" if number % 10 == 0 else "train",
                "prompt": [{"role": "user", "content": draw.choice(WORDS)}],
                "completions": [
                    {"id": str(place), "text": text, "model": None}
                    for place, text in enumerate(texts)
                ],
                "votes": [{**vote, "annotator": "x", "kind": "simulated"}],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_command(words: list[str], log: Path) -> None:
    """The public command, in a process of its own that ends with its exit code."""
    torch.set_num_threads(1)
    with log.open("a") as sys.stderr:
        sys.exit(main_of_rewardmodel(words))


class Trainer:
    """The command, on the same data and settings each time."""

    def __init__(self, folder: Path, settings: dict[str, Any], num_comparisons: int) -> None:
        self.folder = folder
        self.data = folder / "comparisons.jsonl"
        write_data(self.data, num_comparisons, seed=0)
        self.config = folder / "config.json"
        steps = {"comparisons_per_step": 1, "eval_every": 20, "checkpoint_every": CHECKPOINT_EVERY}
        self.config.write_text(json.dumps({**settings, **steps}), encoding="utf-8")

    def start(self, out: Path) -> Any:
        words = ["train", "--data", str(self.data), "--init", "none", "--device", "cpu"]
        words += ["--config", str(self.config), "--out", str(out)]
        process = FORK.Process(target=run_command, args=(words, self.folder / "log.txt"))
        process.start()
        return process

    def run_to_the_end(self, out: Path) -> dict[str, Any]:
        """run.json of the finished run. Raises RuntimeError if it fails."""
        process = self.start(out)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"exit code {process.exitcode}; see {self.folder / 'log.txt'}")
        return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))

    def kill_and_run_on(self, out: Path, after_seconds: float, whole: Path) -> Kill | None:
        """None where the run was finished before the kill."""
        process = self.start(out)
        while process.is_alive() and not (out / "run.json").is_file():
            time.sleep(0.001)
        process.join(timeout=after_seconds)
        if not process.is_alive():
            return None
        process.kill()
        process.join()
        phase, last_step = phase_of(out), last_step_of(out)
        if phase == "finished":
            return None
        ended, expected = self.run_to_the_end(out), json.loads((whole / "run.json").read_text())
        equal = {
            name: ended["fingerprints"][name] == value
            for name, value in expected["fingerprints"].items()
        }
        for name in ("model.safetensors", "metrics.jsonl"):
            equal[name] = (out / name).read_bytes() == (whole / name).read_bytes()
        return Kill(after_seconds, phase, last_step, ended["resumed_at_step"], equal)


def phase_of(out: Path) -> str:
    """What a process that is dead was at, from what it left."""
    if not (out / "run.json").is_file():
        return "start"
    if json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]:
        return "finished"
    if (out / ".staging").is_dir():
        return "publish"
    folder = out / "checkpoints"
    hidden = [path.name for path in folder.glob(".*")] if folder.is_dir() else []
    saved = sorted(path.name for path in folder.glob("step-*")) if folder.is_dir() else []
    pointer = folder / "newest"
    if any(name.startswith(".staged") for name in hidden):
        return "save: writing"
    if hidden or (saved and (not pointer.is_file() or pointer.read_text() != saved[-1])):
        return "save: pointing, pruning"
    return "steps"


def last_step_of(out: Path) -> int:
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return max((row["step"] for row in rows if row["phase"] == "train"), default=0)


def measure(
    folder: Path, *, kills: int, seed: int, settings: dict[str, Any], num_comparisons: int
) -> list[Kill]:
    """One whole run and as many killed ones; their folders are removed where all is equal."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trainer, whole = Trainer(folder, settings, num_comparisons), folder / "whole"
    wall_seconds = trainer.run_to_the_end(whole)["wall_seconds"]
    print(f"uninterrupted: {wall_seconds:.1f} s, {last_step_of(whole)} steps", file=sys.stderr)
    draw, done = random.Random(seed), list[Kill]()
    while len(done) < kills:
        out = folder / f"killed-{len(done) + 1}"
        shutil.rmtree(out, ignore_errors=True)
        kill = trainer.kill_and_run_on(out, draw.uniform(0, wall_seconds), whole)
        if kill is not None:
            done.append(kill)
            print(row_of(len(done), kill), file=sys.stderr)
            if all(kill.equal.values()):
                shutil.rmtree(out)
    return done


def row_of(number: int, kill: Kill) -> str:
    repeated = max(0, kill.last_step - kill.resumed_at)
    unequal = [name for name, same in kill.equal.items() if not same]
    equal = f"NOT EQUAL: {', '.join(unequal)}" if unequal else "yes"
    return (
        f"| {number} | {kill.at_seconds:.1f} | {kill.phase} | {kill.last_step} | {kill.resumed_at} "
        f"| {repeated} | {equal} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "kills")
    args = parser.parse_args()
    kills = measure(
        args.folder, kills=args.kills, seed=args.seed, settings=LARGE, num_comparisons=50
    )
    print("| | killed at s | hit | last step | resumed at | steps repeated | all equal |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, kill in enumerate(kills, start=1):
        print(row_of(number, kill))
    print(f"\nhit: {dict(collections.Counter(kill.phase for kill in kills))}")
    print(f"equal are: {', '.join(kills[0].equal)}")
    return 0 if all(all(kill.equal.values()) for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
