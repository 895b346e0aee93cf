"""Does a run that is killed end with the bits of one that is not?

    .venv/bin/python tests/benchmarks/kills.py --command ppo --kills 20 --folder var/kills

One run of a training command (in a fork of a process that has torch, which spares its import) goes
through; each of the others gets one SIGKILL, at a moment drawn uniformly over the wall time that
the first had its folder, and the same command again. What the kill hit is told by the stack that
the process hands over just before. Compared are sha256 over the published weights, the last ones,
optimizers and other state (run.json), and over every file that the runs leave. The reward model's
generators have states, which are compared too; the policy's commands draw by counter, and what
their draws gave lies in those files: every token of every rollout with its seed, every sample text.
"""

import argparse
import collections
import faulthandler
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from kills_commands import COMMANDS, LARGE, Command, Size, results_of  # noqa: E402

FORK = multiprocessing.get_context("fork")
PHASES = {
    ("checkpoint", "save"): "save",
    ("run", "finish"): "publish",
    ("update", "update_policy"): "PPO's inner epochs, policy",
    ("update", "update_value"): "PPO's inner epochs, values",
    ("ppo", "collect"): "answers and scores",
    ("reading", "train_step"): "step",
    ("step", "train_step"): "step",
    ("pretrain", "write_samples"): "look",
    ("heldout", "figures_of"): "look",
    ("sft", "mean_nats"): "look",
    ("train", "_look_at_dev"): "look",
}
"""(file, function) that stands on the stack -> what that means; the innermost decides."""
PARTS_OF_A_SAVE = {"save_file": "writing", "content_hash": "hashing", "sync": "syncing"}
TORCH_WRITES = "serialization"


@dataclass(frozen=True)
class Kill:
    """What one SIGKILL hit and what came of it."""

    at_seconds: float
    phase: str
    last_step: int
    """Logged before the kill."""
    resumed_at: int
    equal: dict[str, bool]
    """Name of what has a sha256 -> is it that of the run without a kill."""


def run_command(command: Command, out: Path, log: Path, stack: int) -> None:
    """The public command, in a process of its own that ends with its exit code."""
    faulthandler.register(signal.SIGUSR1, file=stack, all_threads=False)
    torch.set_num_threads(1)
    with log.open("a") as sys.stderr:
        sys.exit(command.main([*command.words, "--out", str(out)]))


class Killer:
    """Starts one command again and again."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.folder = command, folder

    def start(self, out: Path) -> tuple[Any, int]:
        """The process, and where its stack can be read."""
        stack, write_end = os.pipe()
        arguments = (self.command, out, self.folder / "log.txt", write_end)
        process = FORK.Process(target=run_command, args=arguments)
        process.start()
        os.close(write_end)
        return process, stack

    def run_to_the_end(self, out: Path) -> dict[str, Any]:
        """run.json of the finished run. Raises RuntimeError if it fails."""
        process, stack = self.start(out)
        process.join()
        os.close(stack)
        if process.exitcode != 0:
            raise RuntimeError(f"exit code {process.exitcode}; see {self.folder / 'log.txt'}")
        return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))

    def kill_and_run_on(self, out: Path, after_seconds: float, whole: Path) -> Kill | None:
        """None where the run was finished before the kill."""
        process, stack = self.start(out)
        while process.is_alive() and not (out / "run.json").is_file():
            time.sleep(0.001)
        process.join(timeout=after_seconds)
        phase = "finished"
        if process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
            phase = phase_of(read_stack(stack))
            process.kill()
            process.join()
        os.close(stack)
        if json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"]:
            return None
        last_step = last_step_of(out, self.command.step_phase)
        ended = self.run_to_the_end(out)
        found, expected = results_of(out), results_of(whole)
        equal = {name: found.get(name) == expected.get(name) for name in found | expected}
        return Kill(after_seconds, phase, last_step, ended["resumed_at_step"], equal)


def read_stack(pipe: int) -> list[tuple[str, str]]:
    """(file, function) of each frame, innermost first; nothing where the process has ended."""
    text = b""
    while b" in <module>\n" not in text and (more := os.read(pipe, 65536)):
        text += more
    frames = []
    for line in text.decode().splitlines():
        if line.startswith("  File "):
            path, _, function = line.removeprefix('  File "').partition('"')
            frames.append((Path(path).stem, function.split(" in ")[-1]))
    return frames


def phase_of(frames: list[tuple[str, str]]) -> str:
    """What a process with this stack is at."""
    for place, frame in enumerate(frames):
        if frame not in PHASES:
            continue
        if PHASES[frame] == "save":
            inside = frames[place - 1] if place else ("", "")
            part = PARTS_OF_A_SAVE.get(inside[1], "pointing, pruning")
            return f"save: {'writing' if inside[0] == TORCH_WRITES else part}"
        return PHASES[frame]
    return "start, or between"


def last_step_of(out: Path, phase: str) -> int:
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return max((row["step"] for row in rows if row["phase"] == phase), default=0)


def measure(folder: Path, name: str, size: Size, *, kills: int, seed: int) -> list[Kill]:
    """One whole run and as many killed ones; their folders are removed where all is equal."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    killer, whole = Killer(COMMANDS[name](folder, size), folder), folder / "whole"
    wall_seconds = killer.run_to_the_end(whole)["wall_seconds"]
    print(f"{name}, uninterrupted: {wall_seconds:.1f} s", file=sys.stderr)
    draw, done = random.Random(seed), list[Kill]()
    while len(done) < kills:
        out = folder / f"killed-{len(done) + 1}"
        shutil.rmtree(out, ignore_errors=True)
        kill = killer.kill_and_run_on(out, draw.uniform(0, wall_seconds), whole)
        if kill is not None:
            done.append(kill)
            print(row_of(len(done), kill), file=sys.stderr)
            if all(kill.equal.values()):
                shutil.rmtree(out)
    return done


def row_of(number: int, kill: Kill) -> str:
    repeated = max(0, kill.last_step - kill.resumed_at)
    unequal = [name for name, same in kill.equal.items() if not same]
    equal = f"NOT EQUAL: {', '.join(unequal)}" if unequal else f"yes, all {len(kill.equal)}"
    return (
        f"| {number} | {kill.at_seconds:.1f} | {kill.phase} | {kill.last_step} | {kill.resumed_at} "
        f"| {repeated} | {equal} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--command", choices=COMMANDS, default="ppo")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "kills")
    args = parser.parse_args()
    kills = measure(
        args.folder, args.command, LARGE[args.command], kills=args.kills, seed=args.seed
    )
    print("| | killed at s | hit | last step | resumed at | steps repeated | equal |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, kill in enumerate(kills, start=1):
        print(row_of(number, kill))
    print(f"\nhit: {dict(collections.Counter(kill.phase for kill in kills))}")
    print(f"equal are: {', '.join(kills[0].equal)}")
    return 0 if all(all(kill.equal.values()) for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
