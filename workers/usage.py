"""What a trainer and its children take of this machine, looked at from outside."""

import logging
import time
from collections.abc import Callable

import psutil

MEGABYTE = 1e6
log = logging.getLogger(__name__)


class Usage:
    """CPU time and memory of a process and all that it started, from one look to the next."""

    def __init__(self, pid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.pid, self._clock = pid, clock
        self._at = clock()
        self._spent: dict[tuple[int, float], float] = {}
        """CPU seconds of each process at the last look, by its id and when it began."""

    def look(self) -> dict[str, float]:
        """cpu_percent since the last look (100 is one core at work) and resident_mb (pages that
        processes share count for each). Empty where nothing can be read."""
        try:
            root = psutil.Process(self.pid)
            processes = [root, *root.children(recursive=True)]
        except (psutil.Error, OSError) as error:
            log.debug("Process %s cannot be looked at: %s", self.pid, error)
            return {}
        spent: dict[tuple[int, float], float] = {}
        resident = 0
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    spent[process.pid, process.create_time()] = times.user + times.system
                    resident += process.memory_info().rss
            except (psutil.Error, OSError):
                continue  # it ended meanwhile
        now = self._clock()
        seconds = now - self._at
        used = sum(after - self._spent.get(which, 0.0) for which, after in spent.items())
        self._spent, self._at = spent, now
        if not spent or seconds <= 0.0:
            return {}
        return {
            "cpu_percent": round(100.0 * max(0.0, used) / seconds, 1),
            "resident_mb": round(resident / MEGABYTE, 1),
        }
