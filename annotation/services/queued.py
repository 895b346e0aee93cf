"""Why a queued job has not started: what is before it, as far as the ledger knows.

Who listens to a queue stands in no table. That nobody does is concluded from silence: nothing is
before a job, nothing of its queue runs, and for a while no worker has taken it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from annotation.models import JobKind, JobStatus, Lane, TrainingJob
from annotation.services.jobs import startable_jobs

TICKS_OF_SILENCE = 5
LEAST_SILENCE = 20
"""Seconds. A worker looks about once a tick, and a gate or a model's loading may keep it longer."""
ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What one queued job waits for."""

    queue: str
    """training or generate (workers/celery.py)."""
    needs: TrainingJob | None = None
    """Its end is waited for, whatever the workers do."""
    running: tuple[TrainingJob, ...] = ()
    """At work in the same queue, of any project."""
    before: int = 0
    """Jobs that a worker takes first."""
    silent_seconds: int = 0
    """For how long nobody has taken it, though nothing is before it; 0 while that is no wonder."""


def queue_of(job: TrainingJob) -> str:
    """As workers/tasks.py sends it."""
    return "generate" if job.kind == JobKind.SAMPLE else "training"


def why_queued(jobs: Collection[TrainingJob], *, now: datetime | None = None) -> dict[int, Wait]:
    """By id, for those of the jobs that are queued; in a bounded number of queries."""
    queued = [job for job in jobs if job.status == JobStatus.QUEUED]
    if not queued:
        return {}
    now = now or timezone.now()
    patience = timedelta(seconds=max(LEAST_SILENCE, TICKS_OF_SILENCE * settings.TICK_SECONDS))
    lately = Q(status__in=ACTIVE) | Q(finished_at__gt=now - patience)
    seen = list(TrainingJob.objects.filter(lately).order_by("pk"))
    startable = set(startable_jobs().values_list("pk", flat=True))
    return {job.pk: _wait(job, seen, startable, now, patience) for job in queued}


def _wait(
    job: TrainingJob,
    seen: list[TrainingJob],
    startable: Collection[int],
    now: datetime,
    patience: timedelta,
) -> Wait:
    """seen: all jobs that wait or run, and those that ended within the patience."""
    queue = queue_of(job)
    if job.pk not in startable:
        return Wait(queue=queue, needs=_needed(job, seen))
    here = [each for each in seen if queue_of(each) == queue]
    running = tuple(each for each in here if each.status == JobStatus.RUNNING)
    before = sum(each.pk < job.pk and each.pk in startable for each in here)
    silent = now - max(job.requested_at, job.started_at or job.requested_at)
    has_ended = any(each.finished_at for each in here)  # its worker may be about to look again
    is_silent = not (running or before or has_ended) and silent > patience
    return Wait(
        queue=queue,
        running=running,
        before=before,
        silent_seconds=int(silent.total_seconds()) if is_silent else 0,
    )


def _needed(job: TrainingJob, seen: list[TrainingJob]) -> TrainingJob | None:
    """The job that startable_jobs wants to see ended before this one."""
    of_project = [each for each in seen if each.project_id == job.project_id]
    for each in of_project:
        if each.finished_at:
            continue
        runs = each.status == JobStatus.RUNNING and each.lane == Lane.LOOP
        if job.lane == Lane.LOOP and runs and each.kind == job.kind:
            return each
        if each.kind == JobKind.PRETRAIN and (
            (job.kind == JobKind.JUDGE and "judge_of" in each.inputs)
            or (job.kind == JobKind.SFT and each.lane == Lane.LOOP)
        ):
            return each
    return None
