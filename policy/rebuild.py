"""Make a bundle's model again, step by step, each output verified by its hash (policy/bundle.py).

On the same kind of processor, with the same versions and number of threads, the bits are the same.
Where they are not, the first step that differs is named, with what is otherwise here.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy.bundle import BUNDLE, FORMAT, WORDS
from policy.conditions import conditions_now, differences
from policy.config import BadInput, require
from policy.data import content_hash

INTO_CONFIG = {"ptx_data": "ptx_data"}
"""Inputs that a command takes as a setting."""


def rebuild(bundle: Path, out: Path) -> Path:
    """The folder of the model, made again below `out`.

    A step that `out` holds already, equal, is not made anew. Raises BadInput for a bundle that is
    not whole, a step that fails, or one that comes out differently.
    """
    said = read_bundle(bundle)
    places = {wanted: bundle / path for wanted, path in said["given"].items()}
    for wanted, path in places.items():
        require(
            path.exists() and content_hash(path) == wanted,
            f"{path} is not what {bundle / BUNDLE} names: its SHA-256 is not {wanted}",
        )
    for step in said["steps"]:
        folder = out / step["name"]
        if not (folder / "run.json").is_file() or not _is_equal(folder, step):
            run_step(step, places, folder)
        sys.stdout.write(f"{step['name']}: {', '.join(verified(step, folder))}\n")
        sys.stdout.flush()
        places |= {wanted: folder / part for part, wanted in step["outputs"].items()}
    return places[said["model"]]


def read_bundle(bundle: Path) -> dict[str, Any]:
    """What bundle.json says. Raises BadInput for a folder that is no bundle."""
    try:
        said = json.loads((bundle / BUNDLE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{bundle} is no bundle: {error}") from error
    seen = said.get("format") if isinstance(said, dict) else None
    require(seen == FORMAT, f"{bundle} is no bundle that is known here: its format is {seen!r}")
    return dict(said)


def run_step(step: Mapping[str, Any], places: Mapping[str, Path], folder: Path) -> None:
    """Run the step's public command with as many threads and processes as it was run with."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    package, command = WORDS[step["command"]]
    flags, config = arguments_of(step, places)
    settings = folder.with_name(f"{folder.name}.json")
    settings.write_text(json.dumps(config), encoding="utf-8")
    several = ["policy.several", str(step["processes"])] if step["processes"] > 1 else []
    words = [*several, package, command, *flags, "--config", str(settings), "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "OMP_NUM_THREADS": str(step["threads"])},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        raise BadInput(f"{step['name']} ended with {done.returncode}: {last}")


def arguments_of(
    step: Mapping[str, Any], places: Mapping[str, Path]
) -> tuple[list[str], dict[str, Any]]:
    """(options that name the inputs, config) of a step."""
    config = dict(step["config"])
    # what was kept between runs changes no number, and lay somewhere else
    if config.get("baseline_cache") is not None:
        config["baseline_cache"] = None
    flags: list[str] = []
    for name, wanted in step["inputs"].items():
        value = str(places[wanted]) if wanted in places else wanted.removeprefix("name:")
        flag = f"--{name.split('.')[0].replace('_', '-')}"
        if name in INTO_CONFIG or (name == "tokenizer" and "tokenizer" in config):
            config[name] = value
        elif name.startswith("reward_model"):
            flags += ["--reward-model", value]
        elif name.startswith("data.") and flag in flags:
            flags.append(value)  # several files behind one option
        else:
            flags += [flag, value]
    if step["command"] == "rewardmodel train" and "--init" not in flags:
        flags += ["--init", "none"]
    return flags, config


def verified(step: Mapping[str, Any], folder: Path) -> list[str]:
    """What came out, as hash by part. Raises BadInput where a part is another."""
    if not _is_equal(folder, step):
        names = ("versions", "threads", "processes", "processor", "git_revision")
        otherwise = differences(
            {name: step[name] for name in names},
            {**conditions_now(step["processes"]), "threads": step["threads"]},
        )
        otherwise += [f"it was resumed otherwise: {each}" for each in step["resumed_otherwise"]]
        raise BadInput(
            f"{step['name']} came out differently: {json.dumps(_outputs(folder, step))}, not "
            f"{json.dumps(step['outputs'])}. "
            + (f"Otherwise here: {'; '.join(otherwise)}" if otherwise else "Nothing known differs")
        )
    return [f"{part} {wanted[:12]} equal" for part, wanted in step["outputs"].items()]


def _outputs(folder: Path, step: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        part: content_hash(folder / part) if (folder / part).is_dir() else None
        for part in step["outputs"]
    }


def _is_equal(folder: Path, step: Mapping[str, Any]) -> bool:
    return _outputs(folder, step) == step["outputs"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")


def run_command(args: argparse.Namespace) -> int:
    made = rebuild(args.bundle, args.out)
    sys.stdout.write(f"The model is made again, bit by bit: {made}\n")
    return 0
