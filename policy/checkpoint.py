"""Checkpoints that survive a kill at any moment.

    DIR/checkpoints/step-000012/
        model.safetensors ...   one file per module
        state.pt                the rest; read with torch.load(weights_only=True)
        manifest.json           step and the sha256 of every other file

A checkpoint is written into a hidden folder, synced, and renamed; the loader believes only one
whose hashes are right, and falls back to the one before it.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from policy.data import content_hash

KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder whose hashes were verified. `state` is what save() was given."""

    path: Path
    step: int
    state: dict[str, Any]

    def restore(self, name: str, module: nn.Module) -> None:
        """Put the saved weights of `name` into `module`, bit for bit, in place."""
        load_tensors(module, load_file(self.path / f"{name}.safetensors"))

    @property
    def run_directory(self) -> Path:
        """The folder of the run that wrote this."""
        return self.path.parent.parent


def save(
    directory: Path, step: int, *, modules: Mapping[str, nn.Module], state: Mapping[str, Any]
) -> Path:
    """Write DIR/checkpoints/step-NNNNNN and remove all but the newest KEPT; its path.

    state: whatever torch.load(weights_only=True) can read back (numbers, strings, lists, dicts,
    tensors, optimizer state dicts).
    """
    folder = directory / "checkpoints"
    folder.mkdir(exist_ok=True)
    staged = folder / f".staged-{step:06d}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for name, module in modules.items():
        save_file(tensors_of(module), staged / f"{name}.safetensors")
    torch.save(dict(state), staged / "state.pt")
    hashes = {path.name: content_hash(path) for path in sorted(staged.iterdir())}
    manifest = {"step": step, "files": hashes}
    (staged / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*staged.iterdir(), staged):
        sync(path)
    final = folder / f"step-{step:06d}"
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    sync(folder)
    for old in _newest_first(directory)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(directories: Sequence[Path]) -> Checkpoint | None:
    """The valid checkpoint with the highest step in any of these run folders, or None."""
    found = [path for directory in directories for path in _newest_first(directory)]
    for path in sorted(found, key=lambda p: p.name, reverse=True):
        if is_whole(path):
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            state = torch.load(path / "state.pt", weights_only=True)
            return Checkpoint(path, int(manifest["step"]), state)
    return None


def is_whole(path: Path) -> bool:
    """True if the manifest can be read and every file has the hash it names."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        hashes = manifest["files"]
        return bool(hashes) and all(
            (path / name).is_file() and content_hash(path / name) == sha256
            for name, sha256 in hashes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and kept buffers by name, each once: a tied weight under its first name.

    safetensors refuses two names for one memory, and a tied weight restored once is restored.
    """
    kept = set(module.state_dict(keep_vars=True))
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {n: t.detach().contiguous() for n, t in tensors.items() if n in kept}


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into the module in place; ValueError unless the names are the module's own."""
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    wanted = tensors_of(module).keys()
    if wanted != tensors.keys():
        raise ValueError(f"the checkpoint has other weights: {sorted(wanted ^ tensors.keys())[:5]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def sync(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it cannot be seen before it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _newest_first(directory: Path) -> list[Path]:
    folder = directory / "checkpoints"
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []
