"""What a run took of its machine: from outside by its worker, of its GPU by itself."""

import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import psutil

from policy.gpu import gpu_now
from workers.usage import Usage

BURN = "x = 0\nwhile True: x += 1"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"


def test_cpu_seconds_of_a_process_and_its_children_over_the_seconds_between_two_looks(monkeypatch):
    """Together 1.5 s in the first half second, and 0.5 s more in the next."""
    clock = iter([10.0, 10.5, 11.0])
    told = {1: iter([0.25, 0.5]), 2: iter([1.25, 1.5])}

    class Process:
        def __init__(self, pid):
            self.pid = pid

        def children(self, recursive):
            return [Process(2)]

        def oneshot(self):
            return nullcontext()

        def cpu_times(self):
            spent = next(told[self.pid])
            return SimpleNamespace(user=spent - 0.125, system=0.125)

        def create_time(self):
            return 1.0

        def memory_info(self):
            return SimpleNamespace(rss=2_500_000 * self.pid)

    monkeypatch.setattr(psutil, "Process", Process)
    usage = Usage(1, clock=lambda: next(clock))
    assert usage.look() == {"cpu_percent": 300.0, "resident_mb": 7.5}
    assert usage.look() == {"cpu_percent": 100.0, "resident_mb": 7.5}


def test_a_real_child_is_counted_and_a_process_that_is_gone_says_nothing():
    process = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True)
    try:
        while not (children := psutil.Process(process.pid).children()):
            assert process.poll() is None
        while children[0].cpu_times().user < 0.05:
            assert process.poll() is None
        found = Usage(process.pid).look()
        own = psutil.Process(process.pid).memory_info().rss / 1e6
        assert found["cpu_percent"] > 0
        assert found["resident_mb"] > own
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    assert Usage(process.pid).look() == {}


def test_of_a_gpu_what_can_be_read():
    def broken():
        raise RuntimeError("no driver")

    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_allocated=lambda: 1_234_567_890,
        memory_reserved=lambda: 2_000_000_000,
        utilization=broken,
    )
    assert gpu_now(cuda) == {"gpu_memory_mb": 1234.6, "gpu_reserved_mb": 2000.0}
    cuda.utilization = lambda: 93
    assert gpu_now(cuda)["gpu_percent"] == 93


def test_a_process_that_touched_no_gpu_says_nothing_of_one():
    assert gpu_now(SimpleNamespace(is_initialized=lambda: False)) == {}
