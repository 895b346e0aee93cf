"""Several threads that take a step together, each with whole pieces of it.

PyTorch shares every kernel among its threads. A small model's kernels are short, and half of them
are not shared at all: there two threads bring 1.5 times one. Two lanes, each of one thread with
pieces of its own, bring nearly two. A lane has the model's own weights and gradients of its own,
which are added up in order, so that the sum does not depend on who was faster.
"""

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import nn

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_LANES = 4
LARGEST_MODEL = 100_000_000
"""Parameters: the kernels of a larger model keep all threads busy, and each lane would want room
for all of its gradients."""


def num_lanes(model: nn.Module) -> int:
    """How many lanes this model's steps are worth: 1 on a GPU, or where there is one thread."""
    parameters = list(model.parameters())
    if any(each.device.type != "cpu" for each in parameters):
        return 1
    if sum(each.numel() for each in parameters) > LARGEST_MODEL:
        return 1
    return min(MOST_LANES, torch.get_num_threads())


def alias(module: Any) -> Any:
    """A copy that reads and shows the same weights and buffers, and gathers its own gradients."""
    shared: dict[int, Any] = {id(each): each for each in module.buffers()}
    for each in module.parameters():
        shared[id(each)] = nn.Parameter(each.detach(), requires_grad=each.requires_grad)
    return copy.deepcopy(module, shared)


def add_gradients(module: nn.Module, aliases: Sequence[nn.Module]) -> None:
    """Move the aliases' gradients into the module's own, in this order."""
    for each in aliases:
        for own, other in zip(module.parameters(), each.parameters(), strict=True):
            if other.grad is not None:
                own.grad = other.grad if own.grad is None else own.grad.add_(other.grad)
                other.grad = None


def shares(items: Sequence[Item], size: Callable[[Item], int], count: int) -> list[list[Item]]:
    """The items in `count` parts of about the same size: the largest first, each to the part that
    has least. A part may be empty."""
    if count == 1:
        return [list(items)]
    parts: list[list[Item]] = [[] for _ in range(count)]
    sizes = [0] * count
    for item in sorted(items, key=size, reverse=True):
        least = sizes.index(min(sizes))
        parts[least].append(item)
        sizes[least] += size(item)
    return parts


def side_by_side(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each returns, in order; they run at the same time, torch's threads shared out among
    them. The first that raises, in order, is raised once all have ended."""
    if len(works) == 1:
        return [works[0]()]
    each = max(1, torch.get_num_threads() // len(works))
    waiting = [_threads(os.getpid(), len(works), each).submit(work) for work in works]
    for one in waiting:
        one.exception()  # waits
    return [one.result() for one in waiting]


@cache
def _threads(process: int, count: int, each: int) -> ThreadPoolExecutor:
    """`count` threads of this process, which a fork of it would not have, each with `each` of
    torch's."""
    before = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # a thread takes the default when it is first asked, and later not
        torch.set_num_threads(each)

    pool = ThreadPoolExecutor(count, "lane", begin)
    all_there = Barrier(count)
    for one in [pool.submit(all_there.wait) for _ in range(count)]:
        one.result()
    torch.set_num_threads(before)  # a thread's own word is also the default of threads to come
    return pool
