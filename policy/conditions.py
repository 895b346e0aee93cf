"""What a run's numbers depend on beside its config and data: versions, threads, processor, code.

The same run under the same conditions gives the same bits on a CPU. Under others it gives almost
the same numbers, and has to say so.
"""

import platform
import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import safetensors
import tokenizers
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent


def conditions_now(num_processes: int = 1) -> dict[str, Any]:
    """The conditions of this process, as plain JSON values."""
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
        },
        "threads": torch.get_num_threads(),
        "processes": num_processes,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "git_revision": git_revision(),
    }


@cache
def git_revision(folder: Path = ROOT) -> str | None:
    """Commit of the checkout that `folder` is, with -dirty behind it where tracked files were
    changed; None where it is no checkout or git cannot say."""
    if not (folder / ".git").exists():
        return None
    words = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`threads: 1 before, 2 now` for each condition that changed, those of `versions` by name."""
    said = []
    for name in now:
        if isinstance(now[name], Mapping):
            said += differences(before.get(name) or {}, now[name])
        elif before.get(name) != now[name]:
            said.append(f"{name}: {before.get(name)} before, {now[name]} now")
    return said


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """On a CPU only algorithms that give the same bits each time; as before after the block.

    CUDA would need CUBLAS_WORKSPACE_CONFIG before it starts, and no bits are promised there.
    """
    settings: Any = torch.utils.deterministic
    was, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        settings.fill_uninitialized_memory = False  # costs time, changes no result
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)
        settings.fill_uninitialized_memory = filled


def seed_generators(seed: int) -> None:
    """The process's own generators, which a library may draw from without telling."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """States of the process's own generators: Python's, NumPy's, torch's on the CPU and on CUDA.

    Made of what torch.load(weights_only=True) can read.
    """
    version, words, spare = random.getstate()
    name, keys, *rest = numpy.random.get_state(legacy=True)
    return {
        "python": [version, list(words), spare],
        "numpy": [str(name), [int(key) for key in keys], *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Put the generators back to where generator_states() found them."""
    version, words, spare = states["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, *rest = states["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
