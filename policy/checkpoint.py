"""Checkpoints that survive a kill at any moment.

    DIR/checkpoints/step-000012/
        model.safetensors ...   one file per module
        state.pt                the rest; read with torch.load(weights_only=True)
        manifest.json           step and the sha256 of every other file
    DIR/checkpoints/newest      the name of the newest one that was saved to the end

A checkpoint is written into a hidden folder, synced, and renamed; then the pointer is. The loader
passes over what the pointer does not know of yet, believes only a folder whose hashes are right,
says so where they are not, and falls back to the one before it.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from policy.data import content_hash

KEPT = 2
POINTER = "newest"

log = logging.getLogger(__name__)


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
    tensors, optimizer state dicts). Raises OSError (ENOSPC) before anything is written where the
    disk has no room for it: torch would only say that a stream broke.
    """
    weights = {name: tensors_of(module) for name, module in modules.items()}
    require_space(directory, bytes_of(weights) + bytes_of(state))
    folder = directory / "checkpoints"
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".*"):  # by a kill
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    final = folder / f"step-{step:06d}"
    _remove(final)  # a harmed one: the loader went back behind it
    staged = folder / f".staged-{step:06d}"
    staged.mkdir()
    for name, tensors in weights.items():
        save_file(tensors, staged / f"{name}.safetensors")
    torch.save(dict(state), staged / "state.pt")
    hashes = {path.name: content_hash(path) for path in sorted(staged.iterdir())}
    manifest = {"step": step, "files": hashes}
    (staged / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*staged.iterdir(), staged):
        sync(path)
    staged.rename(final)
    pointer = folder / f".{POINTER}"
    pointer.write_text(final.name, encoding="utf-8")
    sync(pointer)
    sync(folder)  # the folder's new name stands before the pointer does
    pointer.replace(folder / POINTER)
    sync(folder)
    for old in saved_in(directory)[KEPT:]:
        _remove(old)
    return final


def latest(directories: Sequence[Path]) -> Checkpoint | None:
    """The valid checkpoint with the highest step in any of these run folders, or None."""
    return next(newest_first(directories), None)


def newest_first(directories: Sequence[Path]) -> Iterator[Checkpoint]:
    """The valid checkpoints of these run folders; one that is damaged is told of and left out."""
    found = [path for directory in directories for path in saved_in(directory)]
    for path in sorted(found, key=_step_of, reverse=True):
        if (harm := harm_of(path)) is None:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            state = torch.load(path / "state.pt", weights_only=True)
            yield Checkpoint(path, int(manifest["step"]), state)
        else:
            log.warning("The checkpoint %s is damaged and passed over: %s.", path, harm)


def harm_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where every file has the hash that its
    manifest names."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        int(manifest["step"])
        for name, sha256 in files.items():
            if content_hash(path / name) != sha256:
                return f"{name} is not what was saved"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    return None if files else "its manifest names no file"


def fingerprint(value: Any) -> str:
    """sha256 over tensors and plain values, nested in mappings and sequences as they may be.

    Equal for equal bits: what two runs are compared by, when their files differ in a path or date.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        plain = value.detach().cpu().contiguous()
        digest.update(plain.flatten().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}".encode())
        for key in sorted(value, key=repr):
            digest.update(f"key {key!r}".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"sequence {len(value)}".encode())
        for each in value:
            _feed(digest, each)
    else:
        digest.update(f"value {value!r}".encode())


def require_space(directory: Path, num_bytes: int) -> None:
    """Raise OSError (ENOSPC) where the folder's disk has less free."""
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        told = f"{num_bytes / 1e6:,.1f} MB to save, {free / 1e6:,.1f} MB free"
        raise OSError(errno.ENOSPC, told, str(directory))


def expected_bytes(modules: Mapping[str, nn.Module]) -> int:
    """Of a checkpoint of these, whose optimizers keep two numbers for each that learns."""
    learning = {id(p): p for each in modules.values() for p in each.parameters() if p.requires_grad}
    weights = sum(bytes_of(tensors_of(module)) for module in modules.values())
    return weights + 2 * bytes_of(list(learning.values()))


def bytes_of(value: Any) -> int:
    """Of all tensors in nested mappings, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_of, value))
    return 0


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


def _remove(path: Path) -> None:
    """Out of the loader's sight first, so that a kill in between leaves no half of it."""
    if path.exists():
        hidden = path.with_name(f".removed-{path.name}")
        path.rename(hidden)
        shutil.rmtree(hidden)


def saved_in(directory: Path) -> list[Path]:
    """Folders of checkpoints that were saved to the end, newest first; all without a pointer."""
    folder = directory / "checkpoints"
    if not folder.is_dir():
        return []
    paths = sorted(folder.glob("step-*"), key=_step_of, reverse=True)
    try:
        newest = _step_of(Path((folder / POINTER).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return paths
    return [path for path in paths if _step_of(path) <= newest]


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
