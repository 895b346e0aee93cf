"""A process that ends when whoever started it is gone, however that went. Loads no torch."""

import os
import signal
import threading

from policy.config import require

SUPERVISOR_FD = "CONCORD_SUPERVISOR_FD"
"""In a process's environment: a pipe to read, whose end means that the supervisor is gone."""


def watch_supervisor() -> None:
    """End with our supervisor, our children too.

    If CONCORD_SUPERVISOR_FD names a pipe, a thread waits for its end, which comes when whoever
    holds the other side is gone, however it went. Then our process group ends if we lead one.
    """
    text = os.environ.pop(SUPERVISOR_FD, "")
    if not text:
        return
    require(text.isdigit(), f"{SUPERVISOR_FD} must be a number: {text!r}")
    handle = int(text)
    os.set_inheritable(handle, False)
    threading.Thread(target=_end_with, args=(handle,), daemon=True, name="supervisor").start()


def _end_with(handle: int) -> None:
    while True:
        try:
            if not os.read(handle, 4096):
                break
        except OSError:
            break
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(3)
