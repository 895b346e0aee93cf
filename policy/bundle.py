"""Everything that a finished model is made of, in one folder: `policy rebuild` makes it again.

    BUNDLE/bundle.json     the steps in their order: command, config, inputs and outputs by hash,
                           versions, threads and code of the run; which output is the model
    BUNDLE/given/HASH-*    data files, and models that no run here made

A run names its inputs by their contents (policy/run.py), so the models that it was made from are
found by hash, wherever they lie, and so are theirs, back to what was given.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policy.config import BadInput, require
from policy.data import content_hash
from policy.run import is_finished

FORMAT = "concord-bundle-1"
BUNDLE = "bundle.json"
GIVEN = "given"
WORDS = {
    "policy pretrain": ("policy", "pretrain"),
    "policy sft": ("policy", "sft"),
    "policy dpo": ("policy", "dpo"),
    "ppo": ("policy", "ppo"),
    "online-dpo": ("policy", "online-dpo"),
    "rewardmodel train": ("rewardmodel", "train"),
}
"""What is called for what run.json has as the command."""


@dataclass(slots=True)
class Known:
    """Models and files below some folders, by their contents' hash."""

    folders: Sequence[Path]
    _models: dict[str, list[Path]] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)

    def models(self, wanted: str) -> list[Path]:
        """The model folders with these contents, in the order of `folders`, those that a run
        published first."""
        if not self._models:
            found = [path for each in self.folders for path in sorted(each.rglob("config.json"))]
            folders = filter(_is_model, dict.fromkeys(path.parent for path in found))
            for folder in sorted(folders, key=lambda each: run_of(each) is None):
                self._models.setdefault(content_hash(folder), []).append(folder)
        return self._models.get(wanted, [])

    def file(self, wanted: str) -> Path | None:
        """A file with these contents, no part of a model's folder."""
        if not self._files:
            self._files = {content_hash(path): path for path in self._data_files()}
        return self._files.get(wanted)

    def _data_files(self) -> Iterator[Path]:
        for folder in self.folders:
            for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
                if path.is_file() and not any(_is_model(each) for each in path.parents):
                    yield path


def make_bundle(model: Path, out: Path, *, among: Sequence[Path]) -> dict[str, Any]:
    """Write BUNDLE into `out`, which is there whole or not at all; returns what bundle.json says.

    model: the folder of a finished run, or one within it, such as best/. among: folders or files
    where what it was made from is looked for. Raises BadInput where something is not there, or was
    made by a command that can't be repeated.
    """
    require(_is_model(model), f"{model} is no model folder")
    require(not out.exists(), f"{out} is there already")
    known = Known([model, *among])
    steps: dict[str, dict[str, Any]] = {}  # by the folder of the run, in the order to be made
    given: dict[str, Path] = {}

    def take(wanted: str, of: str, within: Sequence[Path] = ()) -> None:
        """A step for what has these contents, those it needs before it; else a file of its own.

        within: the runs that want it. What one of them published may be what it began from, as a
        policy that got no better than its start; it was made by another then.
        """
        if wanted.startswith("name:") or wanted in given:
            return
        folders = known.models(wanted)
        runs = [(folder, run_of(folder)) for folder in folders]
        if not folders:
            path = known.file(wanted)
            if path is None:
                places = ", ".join(map(str, among)) or "no other folder"
                raise BadInput(f"{of} has the SHA-256 {wanted}, and nothing in {places} has it")
            given[wanted] = path
            return
        free = [(folder, run) for folder, run in runs if run not in within]
        require(bool(free), f"{of} has the SHA-256 {wanted}, which only that run itself has")
        folder, run = free[0]
        if run is None:
            given[wanted] = folder
        elif str(run) not in steps:
            step = step_of(run)
            for name, each in step["inputs"].items():
                take(each, f"{name} of {run}", (*within, run))
            steps[str(run)] = step

    hashed = content_hash(model)
    take(hashed, str(model))
    require(bool(steps), f"no run made {model}: there is no finished run.json")
    said = {
        "format": FORMAT,
        "model": hashed,
        "steps": [{**step, "name": f"{n}-{Path(run).name}"} for n, (run, step) in
                  enumerate(steps.items(), 1)],
        "given": {wanted: f"{GIVEN}/{wanted[:12]}-{path.name}" for wanted, path in given.items()},
    }  # fmt: skip
    staging = out.with_name(f".{out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    (staging / GIVEN).mkdir(parents=True)
    for wanted, path in given.items():
        target = staging / said["given"][wanted]  # type: ignore[index]
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("checkpoints", ".*"))
        else:
            shutil.copyfile(path, target)
    text = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
    (staging / BUNDLE).write_text(text, encoding="utf-8")
    staging.rename(out)
    return said


def run_of(folder: Path) -> Path | None:
    """The run that published this model: its own folder or the one above; None for none."""
    return next((each for each in (folder, folder.parent) if is_finished(each)), None)


def step_of(run: Path) -> dict[str, Any]:
    """What bundle.json says of a finished run."""
    said = json.loads((run / "run.json").read_text(encoding="utf-8"))
    require(
        said["command"] in WORDS,
        f"{run} was made by {said['command']!r}, which can't be repeated from a bundle; "
        f"{', '.join(WORDS)} can",
    )
    inside = [run, *(each for each in sorted(run.iterdir()) if each.is_dir() and _is_model(each))]
    same = ("command", "config", "inputs", "versions", "threads", "processes", "processor")
    return {
        **{name: said[name] for name in (*same, "git_revision")},
        "resumed_otherwise": [each for each in said["resumes"] if each["changed"]],
        "outputs": {
            each.relative_to(run).as_posix(): content_hash(each)
            for each in inside
            if _is_model(each)
        },
    }


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a finished run")
    parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--among",
        nargs="+",
        default=[],
        type=Path,
        metavar="PATH",
        help="where the data and the models that it was made from lie, e.g. var/artifacts",
    )


def run_command(args: argparse.Namespace) -> int:
    said = make_bundle(args.model, args.out, among=args.among)
    for step in said["steps"]:
        sys.stdout.write(f"{step['name']}: {step['command']}\n")
    count = len(said["given"])
    sys.stdout.write(f"{count} files and models were given; the bundle is {args.out}\n")
    return 0
