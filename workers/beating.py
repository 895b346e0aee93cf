"""Heartbeats from a thread, while a worker itself is busy with a job."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from django.conf import settings
from django.db import close_old_connections, connection

from annotation.models import TrainingJob
from annotation.services import jobs
from annotation.services.jobs import Pulse
from workers.launch import OUT_OF_REACH, shutting_down

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The work must end here: pulse says whether it was cancelled or fenced off.

    GO_ON: this worker shuts down, and the job is to be given back.
    """

    def __init__(self, pulse: Pulse) -> None:
        super().__init__(pulse.value)
        self.pulse = pulse


class Beating:
    """Keeps what was claimed alive inside its `with` block.

    The work calls `progress` or `check` between its pieces, which raise Interrupted when it should
    end.
    """

    def __init__(self, heartbeat: Callable[..., Pulse], *, name: str) -> None:
        """heartbeat: tells the ledger that the attempt lives; takes step, total and phase."""
        self.name = name
        self.pulse = Pulse.GO_ON
        self._heartbeat = heartbeat
        self._told: dict[str, int | str] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=name)

    @classmethod
    def of(cls, job: TrainingJob) -> Self:
        """Of a job."""
        held = partial(jobs.heartbeat, job_id=job.pk, attempt=job.attempt)
        return cls(held, name=f"job {job.pk}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if kind is None and self._told:
            self._tell()  # or work that ends between two beats is seen where the last one found it

    def progress(self, step: int, total: int, phase: str) -> None:
        """`step` of `total` are done; told with the next heartbeat."""
        self._told = {"step": step, "total": total, "phase": phase}
        self.check()

    def check(self) -> None:
        """Raise Interrupted if the work should end."""
        if self.pulse is not Pulse.GO_ON or shutting_down.is_set():
            raise Interrupted(self.pulse)

    def _beat(self) -> None:
        try:
            while not self._done.wait(settings.HEARTBEAT_SECONDS):
                self._tell()
        finally:
            connection.close()  # this thread's own

    def _tell(self) -> None:
        try:
            self.pulse = self._heartbeat(**self._told)
        except OUT_OF_REACH as error:
            log.warning("%s: the ledger is out of reach: %s", self.name, error)
            close_old_connections()
