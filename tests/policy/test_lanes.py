"""policy.lanes: threads that share weights, not gradients, and add up to one."""

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from policy.lanes import (
    LARGEST_MODEL,
    MOST_LANES,
    add_gradients,
    alias,
    num_lanes,
    shares,
    side_by_side,
)


@pytest.fixture
def threads():
    """A function that says how many threads torch has; as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Tied(nn.Module):
    """Two layers of one weight, one that is frozen, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("table", torch.ones(2))


def test_an_alias_reads_the_same_weights_and_gathers_its_own_gradients():
    module = Tied()
    twin = alias(module)
    assert twin.second.weight is twin.first.weight is not module.first.weight
    assert not twin.frozen.requires_grad
    with torch.no_grad():
        module.first.weight.fill_(3.0)
        module.table.fill_(4.0)
        module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})
    assert twin.first.weight.tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert twin.table.tolist() == [5.0, 5.0]
    twin.second(twin.first(torch.ones(1, 2))).sum().backward()
    assert module.first.weight.grad is None
    assert twin.first.weight.grad is not None


def test_gradients_move_into_the_modules_own():
    module = nn.Linear(1, 1)
    twins = [alias(module) for _ in range(2)]
    module.weight.grad = torch.tensor([[1.0]])
    twins[0].weight.grad = torch.tensor([[10.0]])
    twins[1].weight.grad = torch.tensor([[100.0]])
    twins[1].bias.grad = torch.tensor([5.0])
    add_gradients(module, twins)
    assert (module.weight.grad.item(), module.bias.grad.item()) == (111.0, 5.0)
    assert all(each.grad is None for twin in twins for each in twin.parameters())


@pytest.mark.parametrize(
    ("sizes", "count", "wanted"),
    [
        ([3, 1, 2], 1, [[3, 1, 2]]),
        ([5, 1, 4, 3, 3], 2, [[5, 3], [4, 3, 1]]),
        ([7], 3, [[7], [], []]),
        ([], 2, [[], []]),
    ],
)
def test_parts_are_of_like_size(sizes, count, wanted):
    assert shares(sizes, lambda size: size, count) == wanted


def test_lanes_run_at_once_each_with_its_part_of_the_threads(threads):
    threads(4)
    meet = threading.Barrier(2, timeout=60)

    def work() -> tuple[int, str]:
        meet.wait()  # none gets past it alone
        return torch.get_num_threads(), threading.current_thread().name

    (first, one), (second, other) = side_by_side([work, work])
    assert (first, second) == (2, 2)
    assert one != other
    assert torch.get_num_threads() == 4
    assert side_by_side([torch.get_num_threads]) == [4]


def test_an_error_waits_until_all_have_ended():
    ended = []
    failed = threading.Event()

    def fails() -> None:
        failed.set()
        raise ValueError("in a lane")

    def ends() -> None:
        assert failed.wait(60)
        time.sleep(0.2)  # were it not waited for, the error would be out long before
        ended.append(True)

    with pytest.raises(ValueError, match="in a lane"):
        side_by_side([fails, ends, fails])
    assert ended == [True]


def test_how_many_lanes_a_model_is_worth(threads):
    small = nn.Linear(2, 2)
    threads(1)
    assert num_lanes(small) == 1
    threads(2)
    assert num_lanes(small) == 2
    threads(64)
    assert num_lanes(small) == MOST_LANES
    with torch.device("meta"):
        assert num_lanes(nn.Linear(2, 2)) == 1  # not on a CPU
    large = nn.Module()
    large.weight = nn.Parameter(torch.empty(1).expand(LARGEST_MODEL + 1), requires_grad=False)
    assert num_lanes(large) == 1


def test_a_fork_has_lanes_of_its_own(threads):
    threads(2)
    assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(side_by_side([lambda: 3, lambda: 4])[1])
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 4
