"""Several processes that train one model, started by torchrun: each takes a share of every step.

The gradient of a step is the sum, over the processes, of the gradients of their shares; whoever
divides does so by the numbers of the whole step. So the sizes of the shares do not matter.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from policy import checkpoint
from policy.config import BadInput, Stopped
from policy.run import Run
from policy.stopping import StopsOnRequest

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run. With a count of 1 nothing here talks to anybody."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    """Where tensors must lie to be sent."""

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item], size: Callable[[Item], int]) -> list[Item]:
        """This process's part of a step, of about the size of the others'; may be empty."""
        if self.count == 1:
            return list(items)
        return sorted(items, key=size)[self.rank :: self.count]

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Each number's sum over the processes, in double precision."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return list(total.tolist())

    def sum_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Make of each its sum over the processes, in place; where all but one hold 0, to the
        bit."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def spread(
        self,
        groups: Sequence[Sequence[int]],
        work: Callable[[list[int]], Sequence[Value]],
        size: Callable[[Sequence[int]], int] = len,
    ) -> list[Value]:
        """What `work` says of each place in the groups, 0 up to their number, in the order of
        places.

        Each process works on its share of the groups, which stay whole, and all get all of it:
        plain values that can be pickled. Not called where the share is empty.
        """
        mine = [place for group in self.share(groups, size) for place in group]
        own = dict(zip(mine, work(mine) if mine else (), strict=True))
        parts = [own]
        if self.count > 1:
            parts = [{} for _ in range(self.count)]
            dist.all_gather_object(parts, own)
        found = {place: value for part in parts for place, value in part.items()}
        return [found[place] for place in range(len(found))]

    def any(self, flag: bool) -> bool:
        """Whether it is set in one of them at least."""
        return self.sum([float(flag)])[0] > 0

    def sum_gradients(self, model: nn.Module) -> None:
        """Give all processes the sum of their gradients. A parameter that none has a gradient of
        stays without one, so that the optimizer leaves it alone."""
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        touched = self.sum([float(p.grad is not None) for p in parameters])
        parts = [p for p, times in zip(parameters, touched, strict=True) if times]
        if not parts:  # a loss without parameters of its own
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parts]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for parameter, piece in zip(parts, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process; BadInput raised there is raised in all."""
        if self.count == 1:
            return make()
        said: list[Any] = [None, None]
        failure: BadInput | None = None
        if self.is_first:
            try:
                said = [make(), None]
            except BadInput as error:
                failure, said = error, [None, str(error)]
        dist.broadcast_object_list(said, src=0, device=torch.device(self.device))
        if said[1] is not None:
            raise failure or BadInput(said[1])
        return said[0]

    def wait(self) -> None:
        """Until all have come here."""
        self.sum([0.0])


ALONE = Processes()


def neighbours(items: Sequence[Any]) -> list[list[int]]:
    """Places of equal items that stand beside each other."""
    groups: list[list[int]] = []
    for place, item in enumerate(items):
        if place and item == items[place - 1]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, if it did, and this one's own device (`cuda` becomes
    `cuda:1` in the second process of a machine)."""
    if not dist.is_torchelastic_launched():
        yield ALONE, device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device), device
    finally:
        dist.destroy_process_group()


class Follower(StopsOnRequest):
    """What a Run (policy/run.py) is to a process that is not the first: it reads checkpoints, and
    writes nothing."""

    def __init__(
        self, directory: Path, folders: Sequence[Path], identity: Mapping[str, Any]
    ) -> None:
        """folders: the first process's, where checkpoints may lie; identity: its run's."""
        super().__init__()
        self.directory, self.folders, self.identity = directory, list(folders), identity
        self.restored = checkpoint.latest(self.folders)

    @property
    def first_step(self) -> int:
        return self.restored.step if self.restored else 0

    def checkpoints(self) -> Iterator[checkpoint.Checkpoint]:
        return checkpoint.newest_first(self.folders)

    def stop_here(self, step: int) -> None:
        raise Stopped(f"stopped on request after step {step}")

    def log_step(self, step: int, phase: str, **numbers: float | int) -> None: ...

    def progress(self, step: int, total: int, phase: str) -> None: ...

    def write_beside(self, name: str, text: str) -> None: ...

    def save_checkpoint(
        self, step: int, *, modules: Mapping[str, nn.Module], state: Mapping[str, Any]
    ) -> None: ...

    def require_room(self, modules: Mapping[str, nn.Module], *, total: int, every: int) -> None: ...

    def resumed_otherwise(self, changed: str) -> None: ...

    def finish(
        self, write: Callable[[Path], None], fingerprints: Mapping[str, str] | None = None
    ) -> None: ...


def require_room(
    processes: Processes,
    run: Run | Follower,
    modules: Mapping[str, nn.Module],
    *,
    total: int,
    every: int,
) -> None:
    """`Run.require_room` of the first process's disk, for all."""
    processes.from_first(lambda: run.require_room(modules, total=total, every=every))


def opened(processes: Processes, open_run: Callable[[], Run]) -> Run | Follower:
    """The run in the first process, one who follows it in the others; BadInput in all of them
    where the first may not open it."""
    runs: list[Run] = []

    def first() -> tuple[str, list[str], dict[str, Any]]:
        runs.append(open_run())
        run = runs[0]
        return str(run.directory), [str(folder) for folder in run.folders], run.identity

    directory, folders, identity = processes.from_first(first)
    if runs:
        return runs[0]
    return Follower(Path(directory), [Path(folder) for folder in folders], identity)
