"""Is the installation well: database, broker, queues, disk; each asked with a short patience."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _

from annotation.models import JobKind, JobStatus, TrainingJob

QUEUES = ("training", "generate", "live", "files", "light")
"""As workers/celery.py names them."""
PATIENCE_SECONDS = 1.0
LOW_DISK_BYTES = 1 << 30
MANY_MESSAGES = 20
"""Hints that wait in one queue; each dies within a minute or so, so nobody listens to it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was asked. needed: without it no page works."""

    name: str
    is_well: bool
    says: str
    needed: bool = True


def parts() -> list[Part]:
    """All of them; nothing is raised."""
    return [_database(), _migrations(), _artifacts(), _disk(), _broker()]


def is_ready(found: list[Part]) -> bool:
    """Whether requests can be served: a broker that is away only makes workers slower to wake."""
    return all(part.is_well for part in found if part.needed)


def _database() -> Part:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError as error:
        return Part("database", False, f"{type(error).__name__}: {error}".strip()[:200])
    return Part("database", True, connection.vendor)


def _migrations() -> Part:
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return Part("migrations", False, f"{type(error).__name__}: {error}".strip()[:200])
    names = ", ".join(migration.name for migration, _backwards in missing[:5])
    return Part("migrations", not missing, names or _("applied"))


def _artifacts() -> Part:
    folder = Path(settings.ARTIFACTS_DIR)
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    is_well = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    says = _("writable") if is_well else _("cannot be written: %(folder)s") % {"folder": folder}
    return Part("artifacts", is_well, says)


def _disk() -> Part:
    folder = Path(settings.ARTIFACTS_DIR)
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(nearest).free
    says = _("%(size)s GB free") % {"size": f"{free / 1e9:.1f}"}
    return Part("disk", free >= LOW_DISK_BYTES, says, needed=False)


def _broker() -> Part:
    try:
        _client().ping()
    except (redis.RedisError, OSError) as error:
        said = f"{type(error).__name__}: {error}".strip()[:200]
        return Part("broker", False, said, needed=False)
    return Part("broker", True, urlsplit(settings.REDIS_URL).scheme, needed=False)


def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
    )


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue as the broker and the ledger see it; None where that isn't known."""

    name: str
    messages: int | None
    """Hints that nobody has taken."""
    running: int | None
    queued: int | None

    @property
    def is_deaf(self) -> bool:
        """So many hints wait that no worker can be listening."""
        return self.messages is not None and self.messages >= MANY_MESSAGES


def queues() -> list[Queue]:
    """All queues of the installation, of all projects."""
    jobs = TrainingJob.objects.filter(status__in=(JobStatus.QUEUED, JobStatus.RUNNING))
    counts: dict[tuple[str, str], int] = {}
    for kind, status in jobs.values_list("kind", "status"):
        queue = "generate" if kind == JobKind.SAMPLE else "training"
        counts[queue, status] = counts.get((queue, status), 0) + 1
    try:
        client = _client()
        waiting: dict[str, int | None] = {name: int(client.llen(name)) for name in QUEUES}
    except (redis.RedisError, OSError):
        waiting = dict.fromkeys(QUEUES)
    return [
        Queue(
            name,
            waiting[name],
            counts.get((name, JobStatus.RUNNING), 0) if name in QUEUES[:2] else None,
            counts.get((name, JobStatus.QUEUED), 0) if name in QUEUES[:2] else None,
        )
        for name in QUEUES
    ]


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that runs jobs, by what it wrote last: host:pid."""

    name: str
    last_seen: object
    jobs: int


def workers_seen(limit: int = 20) -> list[Worker]:
    """Those whose jobs the ledger heard of last, the newest first."""
    rows = (
        TrainingJob.objects.exclude(worker="")
        .exclude(heartbeat_at=None)
        .order_by("-heartbeat_at")
        .values_list("worker", "heartbeat_at")[:200]
    )
    seen: dict[str, Worker] = {}
    for name, at in rows:
        earlier = seen.get(name)
        seen[name] = Worker(name, earlier.last_seen if earlier else at, _jobs(earlier) + 1)
    return list(seen.values())[:limit]


def _jobs(worker: Worker | None) -> int:
    return worker.jobs if worker else 0
