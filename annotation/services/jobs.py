"""Training jobs: wished for by people and rules, claimed and told about by workers.

A job's life, each arrow one conditional update, so that two workers can never both take it:

    queued -> running -> done | failed | cancelled
       ^         |
       +---------+   released by a worker that shuts down, or found stale

Whoever runs a job holds its `attempt` number. Every update of a running job asks for that number;
a worker that was thought dead and was not finds itself fenced off and changes nothing.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import BadInput, Conflict
from annotation.job_schemas import require_no_paths
from annotation.models import (
    JobKind,
    JobMetric,
    JobStatus,
    Lane,
    MailKind,
    ModelVersion,
    Project,
    TrainingJob,
    User,
    VersionKind,
)
from annotation.services import audit
from annotation.services.curves import keep_curves
from annotation.services.hints import wake_workers_on_commit
from annotation.services.inputs import NOTES, require_inputs
from annotation.services.mails import owe_admins
from annotation.services.roles import lock_roles, require_no_judge

MAX_LOST_ATTEMPTS = 5
"""A job whose worker vanished this often is failed instead of tried again."""
LOG_TAIL_CHARACTERS = 8000
DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")
MOST_FILES = 200
"""Offered in a form."""


class Pulse(enum.Enum):
    """What the ledger answers to a heartbeat."""

    GO_ON = "go on"
    CANCEL = "cancel"
    FENCED_OFF = "fenced off"
    """Another attempt has the job, or it ended: stop the trainer, touch nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """One line of metrics.jsonl."""

    step: int
    phase: str
    values: Mapping[str, Any] = field(default_factory=dict)


# --- wishes -------------------------------------------------------------------------------------


@transaction.atomic
def request_training(
    *,
    project: Project,
    kind: str,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    init: ModelVersion | None = None,
    reference: ModelVersion | None = None,
    reward: ModelVersion | None = None,
    lane: str = Lane.LOOP,
    reason: str = "",
    by: User | None = None,
) -> TrainingJob:
    """Queue a job. What is left out is filled in by the worker from what is in force at its start.

    config and inputs are laid over the project's job_defaults for this kind. Raises BadInput for an
    unknown kind or lane, a version of the wrong kind, a judge as reward, what no job may be told
    (require_allowed), or a data path outside the folders that may be read.
    """
    if kind not in JobKind.values:
        raise BadInput(f"kind must be one of {', '.join(JobKind.values)}: {kind!r}.")
    if lane not in Lane.values:
        raise BadInput(f"lane must be one of {', '.join(Lane.values)}: {lane!r}.")
    defaults = project.job_defaults
    whole_config = _laid_over("config", defaults.get(kind), config)
    whole_inputs = _laid_over("inputs", defaults.get("inputs", {}).get(kind), inputs)
    require_allowed(whole_config, whole_inputs)
    _require_kind("init", init, VersionKind.POLICY)
    _require_kind("reference", reference, VersionKind.POLICY)
    _require_kind("reward", reward, VersionKind.REWARD)
    if reward is not None:
        lock_roles(reward)
        require_no_judge(reward)
    if inputs and "data" in inputs:
        readable_data_files(inputs["data"])
    job = TrainingJob.objects.create(
        project=project,
        kind=kind,
        lane=lane,
        config=whole_config,
        inputs=whole_inputs,
        init=init,
        reference=reference,
        reward=reward,
        reason=reason,
        requested_by=by,
    )
    audit.record(
        action="job.request",
        target=job,
        project=project,
        actor=by,
        kind=kind,
        lane=lane,
        reason=reason,
    )
    wake_workers_on_commit()
    return job


def require_allowed(config: object, inputs: object) -> None:
    """Raise BadInput for what no job may be told, by its caller or by a project's defaults.

    Settings that a person asks for are checked by ask_for_training; those of a rule's job by the
    laboratory alone, so that a bad default fails one job with a sentence and not every tick.
    """
    config, inputs = _laid_over("config", config), _laid_over("inputs", inputs)
    require_no_paths(config)
    for note in NOTES:
        if note in inputs:
            raise BadInput(f"inputs.{note} is the worker's own note: {inputs[note]!r:.80}.")
    require_inputs("inputs", inputs)


def _laid_over(name: str, *objects: object) -> dict[str, Any]:
    """JSON objects, None as an empty one, the later over the earlier."""
    laid: dict[str, Any] = {}
    for one in objects:
        if one is not None and not isinstance(one, Mapping):
            raise BadInput(f"{name} must be a JSON object: {one!r:.80}.")
        laid |= one or {}
    return laid


def _require_kind(name: str, version: ModelVersion | None, kind: str) -> None:
    if version is not None and version.kind != kind:
        raise BadInput(f"{name} must be a {kind} version: {version} is a {version.kind} version.")


def readable_data_files(paths: object) -> list[Path]:
    """The files that a job's inputs name, absolute; each lies under one of settings.DATA_DIRS.

    A relative path is looked for in each of these folders. Raises BadInput with the path seen.
    """
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise BadInput(f"inputs.data must be a list of file paths: {paths!r:.80}.")
    return [_readable_data_file(path) for path in paths]


def data_files() -> list[str]:
    """What readable_data_files would take: text and JSONL under settings.DATA_DIRS, by name."""
    found = {
        path.relative_to(folder).as_posix()
        for folder in settings.DATA_DIRS
        for suffix in DATA_SUFFIXES
        for path in folder.rglob(f"*{suffix}")
        if path.is_file()
    }
    return sorted(found)[:MOST_FILES]


def _readable_data_file(path: str) -> Path:
    for folder in settings.DATA_DIRS:
        candidate = (folder / path).resolve()
        with suppress(OSError):  # a name that is too long
            if candidate.is_relative_to(folder.resolve()) and candidate.is_file():
                return candidate
    folders = " or ".join(str(folder) for folder in settings.DATA_DIRS)
    raise BadInput(f"No file {path[:200]!r} under {folders}.")


@transaction.atomic
def cancel_job(*, job: TrainingJob, by: User | None) -> TrainingJob:
    """End a queued job at once, ask a running one to stop. Raises Conflict if it has ended."""
    now = timezone.now()
    jobs = TrainingJob.objects.filter(pk=job.pk)
    # held from here on: a worker that gives the job back comes before this or after, not between
    found = jobs.select_for_update(no_key=True).values_list("status", flat=True).get()
    if found == JobStatus.QUEUED:
        jobs.update(status=JobStatus.CANCELLED, cancel_requested_at=now, finished_at=now)
    elif found == JobStatus.RUNNING:
        jobs.update(cancel_requested_at=Coalesce(F("cancel_requested_at"), Value(now)))
    else:
        job.refresh_from_db()
        raise Conflict(
            gettext("Job %(number)s has ended already: %(state)s.")
            % {"number": job.pk, "state": job.get_status_display()}
        )
    audit.record(action="job.cancel", target=job, project=job.project, actor=by, was=found)
    job.refresh_from_db()
    return job


# --- what workers do ----------------------------------------------------------------------------


def startable_jobs() -> QuerySet[TrainingJob]:
    """Queued jobs that a worker could claim now, oldest first.

    In the loop one of a kind runs at a time, SFT that names no start waits for the pretraining, and
    a judge for the pretraining of its own start.
    """
    same_kind_runs = TrainingJob.objects.filter(
        project=OuterRef("project"), kind=OuterRef("kind"), status=JobStatus.RUNNING, lane=Lane.LOOP
    )
    pretraining = TrainingJob.objects.filter(
        project=OuterRef("project"),
        kind=JobKind.PRETRAIN,
        status__in=(JobStatus.QUEUED, JobStatus.RUNNING),
        lane=Lane.LOOP,
    )
    for_the_judge = TrainingJob.objects.filter(
        project=OuterRef("project"),
        kind=JobKind.PRETRAIN,
        status__in=(JobStatus.QUEUED, JobStatus.RUNNING),
        inputs__has_key="judge_of",
    )
    queued = TrainingJob.objects.filter(status=JobStatus.QUEUED)
    in_loop = queued.exclude(Q(lane=Lane.LOOP) & Exists(same_kind_runs)).exclude(
        Q(kind=JobKind.JUDGE) & Exists(for_the_judge)
    )
    return in_loop.exclude(
        Q(lane=Lane.LOOP, kind=JobKind.SFT, init=None) & Exists(pretraining)
    ).order_by("pk")


def claim_job(*, job_id: int, worker: str, now: datetime | None = None) -> TrainingJob | None:
    """Take a queued job. None if it is not to be had: taken, ended, or its kind runs already.

    The job returned carries the attempt number that every later call must show.
    """
    now = now or timezone.now()
    try:
        with transaction.atomic():
            claimed = (
                startable_jobs()
                .filter(pk=job_id)
                .order_by()
                .update(
                    status=JobStatus.RUNNING,
                    attempt=F("attempt") + 1,
                    worker=worker,
                    started_at=Coalesce(F("started_at"), Value(now)),
                    heartbeat_at=now,
                )
            )
    except IntegrityError:  # job_one_running_in_loop: another claimed one of its kind just now
        return None
    if not claimed:
        return None
    return TrainingJob.objects.select_related(
        "project", "init", "reference", "reward", "snapshot"
    ).get(pk=job_id)


def _held(job_id: int, attempt: int) -> QuerySet[TrainingJob]:
    """The job while this attempt holds it, else nothing: the fence."""
    return TrainingJob.objects.filter(pk=job_id, attempt=attempt, status=JobStatus.RUNNING)


def heartbeat(
    *,
    job_id: int,
    attempt: int,
    step: int | None = None,
    total: int | None = None,
    phase: str | None = None,
    log_tail: str | None = None,
    now: datetime | None = None,
) -> Pulse:
    """Say that the attempt lives, and how far it is; what is None stays as it was."""
    told = {"step": step, "total_steps": total, "phase": phase, "log_tail": log_tail}
    changes = {name: value for name, value in told.items() if value is not None}
    if log_tail is not None:
        changes["log_tail"] = _storable(log_tail)
    if not _held(job_id, attempt).update(heartbeat_at=now or timezone.now(), **changes):
        return Pulse.FENCED_OFF
    if _held(job_id, attempt).filter(cancel_requested_at__isnull=False).exists():
        return Pulse.CANCEL
    return Pulse.GO_ON


def _storable(text: str) -> str:
    """The end of a log as PostgreSQL takes it: no NUL."""
    return text.replace("\x00", "\ufffd")[-LOG_TAIL_CHARACTERS:]


@transaction.atomic
def record_metrics(*, job_id: int, attempt: int, rows: Sequence[MetricRow]) -> bool:
    """Store steps, each (phase, step) once; the attempt that holds the job has the last word.

    A step that an earlier attempt recorded after its last checkpoint is trained again by this one,
    so this one's numbers replace it. Numbers that JSON cannot hold (NaN, infinities) become null.
    False, and nothing stored, if the attempt is fenced off.
    """
    # The update holds the row until the commit: no other attempt can claim it meanwhile.
    if not _held(job_id, attempt).update(heartbeat_at=timezone.now()):
        return False
    newest = {(row.phase, row.step): row for row in rows}
    JobMetric.objects.bulk_create(
        [
            JobMetric(job_id=job_id, phase=phase, step=step, values=_finite(row.values))
            for (phase, step), row in newest.items()
        ],
        batch_size=200,
        update_conflicts=True,
        unique_fields=["job", "phase", "step"],
        update_fields=["values"],
    )
    keep_curves(job_id, newest)
    return True


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def store_inputs(*, job_id: int, attempt: int, chosen: Mapping[str, Any]) -> bool:
    """Write down what the worker chose for a job at its start. False if fenced off.

    chosen: init, reference, reward, snapshot, config or inputs.
    """
    return bool(_held(job_id, attempt).update(**chosen))


def finish_job(
    *, job_id: int, attempt: int, result: Mapping[str, Any] | None = None, exit_code: int = 0
) -> bool:
    """End a job well. False, and nothing changed, if the attempt is fenced off."""
    return _end(
        job_id,
        attempt,
        JobStatus.DONE,
        {"result": _finite(result or {}), "exit_code": exit_code, "error": ""},
    )


def fail_job(
    *,
    job_id: int,
    attempt: int,
    error: str,
    exit_code: int | None = None,
    log_tail: str | None = None,
) -> bool:
    """End a job with the sentence that says why. False if the attempt is fenced off."""
    changes: dict[str, Any] = {"error": _storable(error), "exit_code": exit_code}
    if log_tail is not None:
        changes["log_tail"] = _storable(log_tail)
    return _end(job_id, attempt, JobStatus.FAILED, changes)


def confirm_cancel(*, job_id: int, attempt: int, exit_code: int | None = None) -> bool:
    """End a job that was asked to stop and has. False if the attempt is fenced off."""
    return _end(job_id, attempt, JobStatus.CANCELLED, {"exit_code": exit_code})


@transaction.atomic
def _end(job_id: int, attempt: int, status: str, changes: Mapping[str, Any]) -> bool:
    ended = _held(job_id, attempt).update(status=status, finished_at=timezone.now(), **changes)
    if not ended:
        return False
    job = TrainingJob.objects.select_related("project").get(pk=job_id)
    audit.record(
        action=f"job.{status}",
        target=job,
        project=job.project,
        actor=None,
        attempt=attempt,
        error=job.error[:500],
    )
    if status == JobStatus.FAILED:
        _tell_admins(job, job.error)
    wake_workers_on_commit()  # the next of its kind may start
    return True


def _tell_admins(job: TrainingJob, error: str) -> None:
    owe_admins(
        project=job.project,
        kind=MailKind.JOB_FAILED,
        event=f"job:{job.pk}",
        job=job.pk,
        error=error,
        job_kind=job.kind,
    )


def release_job(*, job_id: int, attempt: int) -> bool:
    """Give a job back because its worker shuts down; cancelled if that was asked for.

    False if the attempt is fenced off.
    """
    wanted = _held(job_id, attempt).filter(cancel_requested_at__isnull=True)
    if wanted.update(status=JobStatus.QUEUED, worker="", heartbeat_at=None):
        wake_workers_on_commit()
        return True
    return confirm_cancel(job_id=job_id, attempt=attempt)


def requeue_stale(*, now: datetime | None = None) -> list[int]:
    """Put jobs whose worker fell silent back in the queue; returns the ids that were taken away.

    Silent means no heartbeat for settings.STALE_SECONDS. A job that was asked to stop is cancelled
    instead, and one that lost its worker MAX_LOST_ATTEMPTS times fails with a sentence.
    """
    silent_since = (now or timezone.now()) - timedelta(seconds=settings.STALE_SECONDS)
    stale = TrainingJob.objects.filter(status=JobStatus.RUNNING, heartbeat_at__lt=silent_since)
    return [job.pk for job in stale if _take_away(job, silent_since)]


@transaction.atomic
def _take_away(job: TrainingJob, silent_since: datetime) -> bool:
    still = _held(job.pk, job.attempt).filter(heartbeat_at__lt=silent_since)
    lost = job.lost_attempts + 1
    changes: dict[str, Any] = {"lost_attempts": lost}
    if job.cancel_requested_at is not None:
        changes |= {"status": JobStatus.CANCELLED, "finished_at": timezone.now()}
    elif lost >= MAX_LOST_ATTEMPTS:
        changes |= {
            "status": JobStatus.FAILED,
            "finished_at": timezone.now(),
            "error": f"The worker vanished {lost} times while this job ran; it is not tried again.",
        }
    else:
        changes |= {"status": JobStatus.QUEUED, "worker": "", "heartbeat_at": None}
    if not still.update(**changes):
        return False
    audit.record(
        action="job.lost",
        target=job,
        project=job.project,
        actor=None,
        attempt=job.attempt,
        worker=job.worker,
        became=changes["status"],
    )
    if changes["status"] == JobStatus.FAILED:
        _tell_admins(job, changes["error"])
    wake_workers_on_commit()
    return True


def metrics_since(*, job: TrainingJob, step: int) -> QuerySet[JobMetric]:
    """The recorded steps after `step`, in order."""
    return job.metrics.filter(step__gt=step).order_by("step", "phase")
