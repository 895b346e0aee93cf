"""One supervised training process: started, watched to its end, and never left behind.

    jobs/<id>/attempt-N/
        config.json   the job's config
        log.txt       the process's stdout and stderr
        model/        --out of the public command; published by a rename when it is finished

The process leads its own group and holds the read end of a pipe whose write end this process keeps.
However this process ends, the pipe closes and the trainer ends its group (policy/supervisor.py). A
trainer carries its attempt's folder in its environment, so that whoever runs the next attempt can
find what is left of the earlier ones on this machine and end it first: two never live for one job.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from annotation.services import jobs
from annotation.services.jobs import LOG_TAIL_CHARACTERS, MetricRow, Pulse
from policy.supervisor import SUPERVISOR_FD
from workers.usage import Usage

ATTEMPT_FOLDER = "CONCORD_ATTEMPT_FOLDER"
"""In a trainer's environment: whose it is."""
SECRETS = (
    "CONCORD_SECRET_KEY",
    "CONCORD_SECRET_KEY_FILE",
    "DATABASE_URL",
    "REDIS_URL",
    "CONCORD_MAIL_URL",
)
"""Of no use to a trainer, so not in its environment."""
POLL_SECONDS = 0.1
MACHINE = "machine"
"""Phase of the metrics that say what a run took of its machine."""
METRICS_SECONDS = 1.0
"""New metrics go to the ledger at most this often."""
GRACE_SECONDS = 10.0
"""From SIGTERM, upon which a trainer saves a checkpoint, to SIGKILL."""
END_SECONDS = 30.0
"""A process that outlives SIGKILL this long hangs in the kernel."""

OUT_OF_REACH = (OperationalError, InterfaceError)
"""The ledger cannot be asked just now, which says nothing of the work at hand. It is left to the
stale heartbeat or the next tick, and marked with no failure."""

shutting_down = threading.Event()
"""Set when this worker was told to stop (workers/tasks.py)."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trainer ended."""

    exit_code: int
    """As subprocess has it: negative = killed by that signal."""
    asked: Pulse
    """GO_ON: nobody asked. CANCEL: the job was cancelled. FENCED_OFF: it is another's now."""
    log_tail: str


def launch(*, job_id: int, attempt: int, folder: Path, arguments: Sequence[str]) -> Ended:
    """Run `python ARGUMENTS` for a job's attempt and tell the ledger of it, to its end.

    folder: jobs/<id>/attempt-<attempt>, which exists. Returns when no process of the attempt lives.
    An exception (a hard shutdown of the worker) takes the trainer along.
    """
    end_trainers([folder.with_name(f"attempt-{number}") for number in range(1, attempt + 1)])
    if (pulse := jobs.heartbeat(job_id=job_id, attempt=attempt)) is not Pulse.GO_ON:
        return Ended(-signal.SIGTERM, pulse, "")
    reading, writing = os.pipe()
    try:
        with (folder / "log.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=settings.BASE_DIR,
                env=_environment(folder, reading),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(reading,),
                start_new_session=True,
            )
        try:
            return Watch(process, job_id, attempt, folder).to_the_end()
        finally:
            end_trainers([folder])
            process.wait()
    finally:
        os.close(reading)
        os.close(writing)


def _environment(folder: Path, supervisor: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {
        **kept,
        SUPERVISOR_FD: str(supervisor),
        ATTEMPT_FOLDER: str(folder),
        "PYTHONUNBUFFERED": "1",
    }


def end_trainers(folders: Collection[Path]) -> None:
    """Kill what lives of these attempts on this machine, children too, and wait until it is gone.

    Looks at the environment of processes, which is there from the first instant, is inherited, and
    does not outlive them as a pid file does. Raises RuntimeError for one that cannot be ended.
    """
    deadline = time.monotonic() + END_SECONDS
    while left := living_trainers(folders):
        for process in left:
            log.warning("Ending what is left of an attempt: process %s", process.pid)
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if time.monotonic() > deadline:
            raise RuntimeError(f"Trainers that SIGKILL does not end: {left}")
        time.sleep(POLL_SECONDS / 2)


def living_trainers(folders: Collection[Path]) -> list[psutil.Process]:
    """Processes on this machine that belong to these attempts; a zombie does not live."""
    names = {str(folder) for folder in folders}
    return [process for process in psutil.process_iter() if _attempt_of(process) in names]


def _attempt_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(ATTEMPT_FOLDER)
    except (psutil.Error, OSError):  # gone, a zombie, or another user's
        return None


class Watch:
    """Tells the ledger what a trainer does, and the trainer what the ledger wants."""

    def __init__(
        self, process: subprocess.Popen[bytes], job_id: int, attempt: int, folder: Path
    ) -> None:
        self.process, self.job_id, self.attempt, self.folder = process, job_id, attempt, folder
        self.metrics = MetricsFile(folder / "model" / "metrics.jsonl")
        self.usage = Usage(process.pid)
        self.looked_at_step = 0
        """The last step that has a row of what the machine did."""
        self.asked = Pulse.GO_ON
        self.stop_at: float | None = None
        """When SIGKILL follows the SIGTERM that was sent; None = none was."""
        self.next_heartbeat = self.next_metrics = 0.0

    def to_the_end(self) -> Ended:
        """Returns when the process has ended; what it wrote last is in the ledger then."""
        while not self._has_ended():
            self._look(time.monotonic())
        if self.asked is not Pulse.FENCED_OFF:
            self._send_metrics()
            self._beat()
        return Ended(self.process.returncode, self.asked, tail_of(self.folder / "log.txt"))

    def _has_ended(self) -> bool:
        try:
            self.process.wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _look(self, now: float) -> None:
        if now >= self.next_metrics:
            self.next_metrics = now + min(METRICS_SECONDS, settings.HEARTBEAT_SECONDS)
            self._send_metrics()
        if now >= self.next_heartbeat:
            self.next_heartbeat = now + settings.HEARTBEAT_SECONDS
            self._beat()
        if self.asked is Pulse.FENCED_OFF:
            self._kill()
        elif self.stop_at is not None:
            if now >= self.stop_at:
                self._kill()
        elif shutting_down.is_set() or self.asked is Pulse.CANCEL:
            self.process.terminate()
            self.stop_at = now + GRACE_SECONDS

    def _kill(self) -> None:
        """The whole group; the leader is ours and not reaped yet, so its number is still its."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def _beat(self) -> None:
        progress = read_progress(self.folder / "model" / "progress.json")
        progress.pop("gpu", None)
        self._tell(
            lambda: jobs.heartbeat(
                job_id=self.job_id,
                attempt=self.attempt,
                log_tail=tail_of(self.folder / "log.txt"),
                **progress,
            )
        )

    def _send_metrics(self) -> None:
        rows, offset = self.metrics.unread()
        rows += self._machine()
        if rows and self._tell(
            lambda: (
                Pulse.GO_ON
                if jobs.record_metrics(job_id=self.job_id, attempt=self.attempt, rows=rows)
                else Pulse.FENCED_OFF
            )
        ):
            self.metrics.offset = offset

    def _machine(self) -> list[MetricRow]:
        """What the machine did up to the step that the trainer is at; none where it has moved on by
        no step, or where that cannot be read: a run does not fail for want of it."""
        progress = read_progress(self.folder / "model" / "progress.json")
        step = progress.get("step", 0)
        if step <= self.looked_at_step or not (values := self.usage.look()):
            return []
        self.looked_at_step = step
        return [MetricRow(step=step, phase=MACHINE, values={**values, **progress["gpu"]})]

    def _tell(self, say: Callable[[], Pulse]) -> bool:
        """False if the ledger could not be reached: the trainer goes on, we try again later."""
        try:
            pulse = say()
        except OUT_OF_REACH as error:
            log.warning("Job %s: the ledger is out of reach: %s", self.job_id, error)
            close_old_connections()
            return False
        if pulse is not Pulse.GO_ON and self.asked is not Pulse.FENCED_OFF:
            self.asked = pulse
        return True


class MetricsFile:
    """metrics.jsonl, read from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def unread(self) -> tuple[list[MetricRow], int]:
        """Rows since self.offset, and the offset after them; a line without its end is left."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                chunk = file.read()
        except FileNotFoundError:
            return [], self.offset
        whole = chunk[: chunk.rfind(b"\n") + 1]
        return [_metric_row(line) for line in whole.splitlines()], self.offset + len(whole)


def _metric_row(line: bytes) -> MetricRow:
    values = json.loads(line)
    return MetricRow(step=values.pop("step"), phase=values.pop("phase"), values=values)


def read_progress(path: Path) -> dict[str, Any]:
    """step, total, phase and gpu of progress.json, which appears by rename; {} before it does."""
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    told = {name: progress[name] for name in ("step", "total", "phase")}
    return {**told, "gpu": progress.get("gpu", {})}


def tail_of(path: Path) -> str:
    """The end of a log, whatever bytes it holds."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_CHARACTERS))
        return file.read().decode("utf-8", errors="replace")
