"""What every training command shares: one output folder, from the first row to the published model.

    DIR/run.json        who this run is (command, config, input hashes), under which conditions it
                        runs and was resumed; "finished": true at the end
    DIR/metrics.jsonl   {"step", "phase", name: number ...}, each (phase, step) once, also resumed
    DIR/progress.json   {"step", "total", "phase", "at", "gpu"}, replaced about once a second
    DIR/checkpoints/    see policy/checkpoint.py; gone when the run is finished
    DIR/...             the model's files, moved up from DIR/.staging at the end

Randomness is by counter: `generator_for(seed, step, purpose)`. A resumed run replays nothing, and
under the same conditions (policy/conditions.py) its weights on a CPU equal those of an
uninterrupted run; under others it warns, and run.json says so.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from tqdm import tqdm

from policy import checkpoint
from policy.conditions import conditions_now, differences
from policy.config import BadInput, Diverged, Stopped, require, to_json
from policy.data import content_hash
from policy.gpu import gpu_now
from policy.stopping import StopsOnRequest
from policy.supervisor import watch_supervisor

PROGRESS_SECONDS = 1.0

log = logging.getLogger(__name__)


def generator_for(seed: int, step: int, purpose: str, row: int = 0) -> torch.Generator:
    """A CPU generator that depends on these four alone, so that no state has to be saved."""
    return torch.Generator().manual_seed(seed_for(seed, step, purpose, row))


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed from the parts, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Run(StopsOnRequest):
    """One attempt at one training run. Use as a context manager; see the module's docstring.

    A loop starts at `run.restored.step` if there is a checkpoint, logs the rows of a step before it
    saves that step's checkpoint, and asks `run.should_stop` after each step.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        command: str,
        config: Any,
        inputs: Mapping[str, Path | str],
        resume_from: Sequence[Path | str] = (),
        carried: Sequence[str] = (),
        num_processes: int = 1,
    ) -> None:
        """Claim the folder, or raise BadInput and leave it as it was.

        inputs: name -> file or folder; a list of files is named data.0, data.1 ... `resume_from`:
        folders of earlier attempts at the same run. `carried`: sub-folders whose files are named
        step-NNNNNN*; those up to the restored step come along from an earlier attempt.
        `num_processes`: that train together, this one included (policy/processes.py).
        """
        super().__init__()
        self.directory = Path(directory)
        self.config = config
        self.identity = {
            "command": command,
            "config": to_json(config),
            "inputs": {name: content_hash(path) for name, path in inputs.items()},
        }
        self._started = time.monotonic()
        self._progress_at = 0.0
        self._bar: tqdm[Any] | None = None
        self._last: dict[str, dict[str, Any]] = {}

        earlier = [Path(path) for path in resume_from if (Path(path) / "run.json").is_file()]
        for path in earlier:
            self._require_same_run(path)
        self._require_claimable()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        self._carried = carried
        self.folders = [self.directory, *earlier]
        """Where its checkpoints may lie."""
        self.restored = checkpoint.latest(self.folders)
        """The newest valid checkpoint of this run, its earlier attempts included, or None."""
        self.conditions = conditions_now(num_processes)
        self.resumes: list[dict[str, Any]] = []
        """Where the run was taken up again, and what was not as before."""
        if self.restored:
            before = self.restored.state
            self.resumes = [*before["resumes"], {"at_step": self.restored.step, "changed": []}]
            for changed in differences(before["conditions"], self.conditions):
                self.resumed_otherwise(changed)
        self._write_json("run.json", {**self._said(), "finished": False})
        self._carry_over(carried)
        self._metrics = (self.directory / "metrics.jsonl").open("a", encoding="utf-8")

    @property
    def first_step(self) -> int:
        """Steps that are done already: the loop is range(first_step, total)."""
        return self.restored.step if self.restored else 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._bar is not None:
            self._bar.close()
        with contextlib.suppress(OSError):  # rows that a full disk did not take
            self._metrics.close()
        self._lock.close()
        if isinstance(error, OSError | SafetensorError) and is_disk_full(error):
            saved = [path for each in self.folders for path in checkpoint.saved_in(each)]
            step = max(map(_step_of, saved), default=0)
            how = f"goes on from step {step}" if step else "begins anew: there is no checkpoint yet"
            raise BadInput(f"the disk is full ({error}); with room on it the same command {how}")

    # What the loop says

    def log_step(self, step: int, phase: str, **numbers: float | int) -> None:
        """Append one row to metrics.jsonl. Tensors of one element will do; not finite is null."""
        row: dict[str, Any] = {"step": step, "phase": phase}
        for name, value in numbers.items():
            plain = value.item() if isinstance(value, torch.Tensor) else value
            finite = not isinstance(plain, float) or math.isfinite(plain)
            row[name] = plain if finite else None
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        self._last[phase] = row

    def write_beside(self, name: str, text: str) -> None:
        """A file in one of the carried sub-folders."""
        (self.directory / name).write_text(text, encoding="utf-8")

    def progress(self, step: int, total: int, phase: str) -> None:
        """`step` of `total` are done. The file and the bar (terminal only) follow."""
        if self._bar is None or self._bar.desc.removesuffix(": ") != phase:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(
                total=total,
                desc=phase,
                initial=step,
                disable=not sys.stderr.isatty(),
                file=sys.stderr,
            )
            self._bar.desc = phase  # tqdm leaves it unset where it is disabled
            self._progress_at = 0.0
        self._bar.update(step - self._bar.n)
        now = time.monotonic()
        if step >= total or now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            done = {"step": step, "total": total, "phase": phase}
            self._write_json("progress.json", {**done, "at": time.time(), "gpu": gpu_now()})

    def save_checkpoint(
        self, step: int, *, modules: Mapping[str, nn.Module], state: Mapping[str, Any]
    ) -> None:
        """Save after `step` steps are done and their rows are logged."""
        checkpoint.sync(self.directory / "metrics.jsonl")
        kept = {
            "metrics_bytes": self._metrics.tell(),
            "last": self._last,
            "conditions": self.conditions,
            "resumes": self.resumes,
            **state,
        }
        checkpoint.save(self.directory, step, modules=modules, state=kept)

    def require_room(self, modules: Mapping[str, nn.Module], *, total: int, every: int) -> None:
        """Raise BadInput where the folder's disk has no room for what this run will save there: a
        checkpoint every so many of `total` steps, of these modules and their optimizers, and the
        model beside the last ones. To be asked before the first step."""
        size = checkpoint.expected_bytes(modules)
        at_once = min((total - 1) // every, checkpoint.KEPT) + 1
        missing = max(1, at_once - len(checkpoint.saved_in(self.directory)))
        free = shutil.disk_usage(self.directory).free
        require(
            free >= missing * size,
            f"the disk of {self.directory} has {free / 1e6:,.1f} MB free, and this run will need "
            f"{missing * size / 1e6:,.1f} MB: {missing} x {size / 1e6:,.1f} MB, for checkpoints "
            f"and the model",
        )

    def checkpoints(self) -> Iterator[checkpoint.Checkpoint]:
        """The valid checkpoints of this run, its earlier attempts included, newest first."""
        return checkpoint.newest_first(self.folders)

    def resumed_otherwise(self, changed: str) -> None:
        """Warn, and note for run.json, that this resume need not end with an uninterrupted run's
        bits."""
        log.warning(
            "Resumed at step %s, but not as before, so the weights may differ in their last bits "
            "from those of an uninterrupted run: %s.",
            self.first_step,
            changed,
        )
        self.resumes[-1]["changed"].append(changed)

    def stop_here(self, step: int) -> None:
        """Raise Stopped. Call after save_checkpoint, when should_stop is set."""
        raise Stopped(f"stopped on request after step {step}; the same command goes on from there")

    def finish(
        self, write: Callable[[Path], None], fingerprints: Mapping[str, str] | None = None
    ) -> None:
        """Publish: `write` fills a folder, its files move up, run.json says finished, last of all.

        fingerprints: of what is not published but was part of the state (optimizer ...), for
        run.json. A kill in between leaves the last checkpoint, and the same command finishes again.
        """
        staging = self.directory / ".staging"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write(staging)
        for path in sorted(staging.rglob("*")):
            checkpoint.sync(path)
        for path in sorted(staging.iterdir()):
            target = self.directory / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        staging.rmdir()
        for name in self._carried:
            with contextlib.suppress(OSError):  # it holds something
                (self.directory / name).rmdir()
        checkpoint.sync(self.directory / "metrics.jsonl")
        self._write_json(
            "run.json",
            {
                **self._said(),
                "finished": True,
                "wall_seconds": round(time.monotonic() - self._started, 2),
                "resumed_at_step": self.first_step,
                "final_metrics": self._last,
                "fingerprints": dict(fingerprints or {}),
            },
        )
        checkpoint.sync(self.directory)
        shutil.rmtree(self.directory / "checkpoints", ignore_errors=True)

    # How it keeps its word

    def _said(self) -> dict[str, Any]:
        """What run.json says from the start."""
        return {
            **self.identity,
            "seed": getattr(self.config, "seed", None),
            **self.conditions,
            "resumes": self.resumes,
        }

    def _require_same_run(self, path: Path) -> None:
        seen = _read_run(path)
        for key, value in self.identity.items():
            require(
                seen.get(key) == value,
                f"{path} is another run: its {key} is {json.dumps(seen.get(key))[:300]}, "
                f"not {json.dumps(value)[:300]}",
            )

    def _require_claimable(self) -> None:
        require(
            not self.directory.exists() or self.directory.is_dir(),
            f"{self.directory} is a file, not a folder",
        )
        if (self.directory / "run.json").is_file():
            self._require_same_run(self.directory)
            finished = _read_run(self.directory).get("finished")
            require(not finished, f"{self.directory} holds this run already, finished")
        elif self.directory.is_dir():
            # A supervisor may have opened a log there before it started us.
            others = [p.name for p in self.directory.iterdir() if p.suffix != ".log"]
            ours = (".lock", ".run.json.staged")  # what a kill leaves before there is a run.json
            others = [name for name in others if name not in ours]
            require(
                not others,
                f"{self.directory} is not empty and holds no run: {', '.join(sorted(others)[:5])}",
            )

    def _locked(self) -> Any:
        handle = (self.directory / ".lock").open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            raise BadInput(f"another process is writing into {self.directory}") from error
        return handle

    def _carry_over(self, carried: Sequence[str]) -> None:
        """Metrics up to the checkpoint's last byte, and carried files up to its step."""
        source = self.restored.run_directory if self.restored else self.directory
        kept = b""
        if self.restored:
            self._last = dict(self.restored.state["last"])
            kept = (source / "metrics.jsonl").read_bytes()[: self.restored.state["metrics_bytes"]]
        self._replace("metrics.jsonl", kept)
        for name in carried:
            folder = self.directory / name
            folder.mkdir(exist_ok=True)
            for path in folder.iterdir():
                if _step_of(path) > self.first_step:
                    path.unlink()
            if source == self.directory:
                continue
            for path in sorted((source / name).glob("step-*")):
                if _step_of(path) <= self.first_step:
                    shutil.copy2(path, folder / path.name)

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._replace(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def _replace(self, name: str, content: bytes) -> None:
        staged = self.directory / f".{name}.staged"
        staged.write_bytes(content)
        checkpoint.sync(staged)
        staged.replace(self.directory / name)


def is_finished(directory: Path | str) -> bool:
    """True if the folder holds a run that was published."""
    path = Path(directory)
    return (path / "run.json").is_file() and _read_run(path).get("finished") is True


def _read_run(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path / 'run.json'} cannot be read: {error}") from error


def _step_of(path: Path) -> int:
    digits = path.name.removeprefix("step-").split(".")[0].split("-")[0]
    return int(digits) if digits.isdigit() else 0


# The command line


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all training commands take."""
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    add_config_arguments(parser)
    parser.add_argument(
        "--resume-from",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="folder of an earlier attempt at the same run; may be given again",
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --set and --device, which commands that only read a model take too."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as one JSON object")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="NAME=VALUE",
        help="one setting; may be given again; wins over --config",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto by default")


def device_from(name: str) -> str:
    """`auto` is CUDA where there is one. Raises BadInput for a device that is not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"--device {name!r} cannot be used: {first}") from error
    return name


def main_guard(body: Callable[[], int]) -> int:
    """Run a command's body and turn its outcome into the exit code (see policy/config.py)."""
    watch_supervisor()
    transformers.utils.logging.disable_progress_bar()
    # it tells of a new head as of a fault; which weights may be missing is for policy/backbone.py
    transformers.utils.logging.set_verbosity_error()
    try:
        return body()
    except BadInput as error:
        return _said(error, 2)
    except Stopped as error:
        return _said(error, 3)
    except Diverged as error:
        return _said(error, 4)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        sys.stderr.write(
            f"the disk is full ({error}); with room on it the same command can be given again\n"
        )
        return 2


def is_disk_full(error: Exception) -> bool:
    """Whether a write failed for want of space, as Python or the writer of weights says it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return os.strerror(errno.ENOSPC) in str(error)


def _said(error: Exception, code: int) -> int:
    sys.stderr.write(f"{error}\n")
    return code
