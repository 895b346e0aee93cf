"""`python -m policy.several N MODULE ...`: `python -m MODULE ...` as N processes in one training.

To each it looks as if torchrun had started it on one machine (policy/processes.py). torchrun itself
ends with 1 whatever its processes end with, and starts each in a session of its own without the
pipe that tells it that its supervisor is gone. Here the exit code is theirs, all stay in one
process group, and each holds a pipe whose other end this process holds: none outlives it.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from types import FrameType

from policy.config import BadInput, require
from policy.supervisor import SUPERVISOR_FD, watch_supervisor

MOST_PROCESSES = 64
GRACE_SECONDS = 20.0
"""From the first that failed to the end of the others, who may be waiting for it."""
POLL_SECONDS = 0.05


def run_several(count: int, words: Sequence[str]) -> int:
    """The exit code of all where they end alike, of the first that failed otherwise.

    Negative: killed by that signal. SIGTERM is passed on, and SIGINT left to the terminal, which
    sends it to all.
    """
    reading, writing = os.pipe()
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared = {**os.environ, **address, SUPERVISOR_FD: str(reading)}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"TORCHELASTIC_RUN_ID": uuid.uuid4().hex}
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    started: list[subprocess.Popen[bytes]] = []

    asked: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        asked.append(number)
        for process in started:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", *words]
            started.append(subprocess.Popen(command, env=shared | own, pass_fds=(reading,)))
            if asked:  # it came while this one was being started
                started[-1].terminate()
        return _first_failure(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
        os.close(reading)
        os.close(writing)


def _first_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all, for GRACE_SECONDS once one has failed; 0 if none did. Of two between looks it
    is the one that was killed: the other lost its connection by that."""
    failed = 0
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in started]
        if not failed and (failed := min(filter(None, codes), default=0)):
            deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes:
            break
        time.sleep(POLL_SECONDS)
    return failed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: Sequence[str]) -> int:
    """N, the module and its words; the exit code, 2 with a sentence for a number that is none."""
    watch_supervisor()
    count = argv[0] if argv else ""
    try:
        require(
            len(argv) >= 2 and count.isdigit() and 1 <= int(count) <= MOST_PROCESSES,
            f"give a number of processes from 1 to {MOST_PROCESSES} and a module: {argv[:2]}",
        )
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run_several(int(count), argv[1:])


def end_with(code: int) -> None:
    """Exit with the code, or die of the signal that it stands for, so that who waits sees it."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    end_with(main(sys.argv[1:]))
