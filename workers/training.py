"""One attempt at a training job: claim, freeze, launch, and what its end means.

0   published: the directory is renamed into models/ and gets its row as the job ends
2   failed, with the sentence from its stderr
3   stopped with a checkpoint: the job is given back
4   failed: it diverged
-9  nobody asked for it: left to the stale heartbeat, the one way back from a kill
*   failed, with the end of its log
"""

import json
import logging
import os
import shutil
import signal
import socket
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.errors import BadInput
from annotation.models import JobKind, ModelVersion, TrainingJob, VersionKind
from annotation.services import jobs, versions
from annotation.services.hints import wake_workers_on_commit
from annotation.services.jobs import Pulse
from workers.beating import Beating, Interrupted
from workers.datasets import freeze_inputs, job_folder
from workers.launch import OUT_OF_REACH, Ended, launch, shutting_down

STOPPED = (3, -signal.SIGTERM)
"""Stopped on request; SIGTERM itself where it came before the trainer listened for it."""
BEST = "best"
"""Beside a policy: the run's best one within its KL limit, where that is not the last."""
SCORING = (JobKind.REWARD, JobKind.JUDGE)
"""Jobs whose model scores; the others make policies."""
log = logging.getLogger(__name__)


def worker_name() -> str:
    """Who runs a job: machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_training_job(job_id: int) -> None:
    """Run one attempt at the job, if it is to be had."""
    job = jobs.claim_job(job_id=job_id, worker=worker_name())
    if job is None:
        return
    try:
        _attempt(job)
    except Interrupted as interrupted:
        settle_interrupted(job, interrupted.pulse)
    except BadInput as error:
        jobs.fail_job(job_id=job.pk, attempt=job.attempt, error=error.detail, exit_code=2)
    except OUT_OF_REACH:
        raise  # left to the stale heartbeat: the next attempt publishes what is finished
    except Exception as error:
        fail_crashed(job, error)
        raise


def settle_interrupted(job: TrainingJob, pulse: Pulse) -> None:
    """Confirm a cancel, or give the job back; one that is fenced off is not ours to touch."""
    if pulse is Pulse.CANCEL:
        jobs.confirm_cancel(job_id=job.pk, attempt=job.attempt)
    elif pulse is Pulse.GO_ON:
        jobs.release_job(job_id=job.pk, attempt=job.attempt)


def fail_crashed(job: TrainingJob, error: Exception) -> None:
    """Tell of an error that nobody foresaw; the caller raises it again for the worker's log."""
    jobs.fail_job(
        job_id=job.pk,
        attempt=job.attempt,
        error=f"The worker failed: {type(error).__name__}: {error}",
        log_tail=traceback.format_exc(),
    )


def _attempt(job: TrainingJob) -> None:
    if (finished := finished_model(job)) is not None:
        publish(job, finished)  # an earlier attempt was killed between its end and its row
        return
    with Beating.of(job) as beating:
        inputs = freeze_inputs(job)
        beating.progress(0, 0, "starting")
    folder = job_folder(job) / f"attempt-{job.attempt}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(job.config, indent=1), encoding="utf-8")
    arguments = [
        *_starting(job, inputs),
        *("--config", str(folder / "config.json"), "--out", str(folder / "model")),
        *(word for path in earlier_models(job) for word in ("--resume-from", str(path))),
    ]
    settle(
        job,
        launch(job_id=job.pk, attempt=job.attempt, folder=folder, arguments=arguments),
        folder / "model",
    )


def _starting(job: TrainingJob, inputs: Sequence[str]) -> list[str]:
    """How python is called: as one process, or as those that share every step."""
    count = job.inputs.get("processes") or settings.TRAINER_PROCESSES
    return ["-m", *(("policy.several", str(count)) if count > 1 else ()), *inputs]


def earlier_models(job: TrainingJob) -> list[Path]:
    """Output folders of the attempts before this one, as far as they came."""
    folders = [job_folder(job) / f"attempt-{n}" / "model" for n in range(1, job.attempt)]
    return [folder for folder in folders if folder.is_dir()]


def published_folder(job: TrainingJob) -> Path:
    """Where the job's model lies once it is published."""
    return Path(settings.ARTIFACTS_DIR) / "models" / f"{job.kind}-{job.pk}"


def finished_model(job: TrainingJob) -> Path | None:
    """A model that an earlier attempt finished and did not get to register."""
    candidates = [published_folder(job), *earlier_models(job)]
    return next((folder for folder in candidates if _is_finished(folder)), None)


def _is_finished(folder: Path) -> bool:
    run = folder / "run.json"
    return run.is_file() and json.loads(run.read_text(encoding="utf-8"))["finished"] is True


def _sync(folder: Path) -> None:
    """A rename in this folder outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(job: TrainingJob, ended: Ended, model: Path) -> None:
    """Do what the trainer's end means; see the table at the top."""
    code = ended.exit_code
    if ended.asked is Pulse.FENCED_OFF:
        log.warning("Job %s, attempt %s: fenced off", job.pk, job.attempt)
    elif code == 0:
        publish(job, model)
    elif ended.asked is Pulse.CANCEL:
        jobs.confirm_cancel(job_id=job.pk, attempt=job.attempt, exit_code=code)
    elif code in STOPPED or shutting_down.is_set():
        jobs.release_job(job_id=job.pk, attempt=job.attempt)
    elif code == -signal.SIGKILL:
        log.warning("Job %s, attempt %s: its trainer was killed", job.pk, job.attempt)
    else:
        jobs.fail_job(
            job_id=job.pk,
            attempt=job.attempt,
            error=error_of(code, ended.log_tail),
            exit_code=code,
            log_tail=ended.log_tail,
        )


def error_of(code: int, log_tail: str) -> str:
    """The sentence for a trainer that failed: what it said last."""
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    return {2: last, 4: f"Training diverged: {last}"}.get(
        code, f"The trainer ended with exit code {code}: {last}"
    )


def publish(job: TrainingJob, model: Path) -> ModelVersion | None:
    """Move a finished model into place and give it its row as the job ends; None if fenced off.

    Where the run kept a better policy than its last one, the version is that: it goes before the
    gate, and later rounds start from it. The last one stays in the folder above it.

    The fence, the rename and the row are one transaction: while it holds the job's row, no other
    attempt can be claimed. Killed after the rename, the next attempt finds the directory.
    """
    target = published_folder(job)
    target.parent.mkdir(parents=True, exist_ok=True)
    best = BEST if (model / BEST).is_dir() else ""
    versions.require_model_directory(model / best)
    sha256 = versions.sha256_of_directory(model / best)
    figures = figures_of(model)
    with transaction.atomic():
        if not jobs.finish_job(job_id=job.pk, attempt=job.attempt, result=figures):
            return None
        if model != target:
            model.rename(target)
            _sync(target.parent)
        version = versions.register_version(
            kind=VersionKind.REWARD if job.kind in SCORING else VersionKind.POLICY,
            stage=job.kind,
            name=target.name,
            directory=target / best,
            sha256=sha256,
            job=job,
            init=job.init,
            reference=job.reference,
            reward=job.reward,
            value_init=job.reward if has_value_model(target, job) else None,
            snapshot=job.snapshot,
            licence=job.init.licence if job.init else "",
            metrics=figures,
        )
        wake_workers_on_commit()  # its gate
    for folder in earlier_models(job):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return version


def has_value_model(folder: Path, job: TrainingJob) -> bool:
    """Whether values beside this policy come from a model of their own, and not from a head that
    began at nothing."""
    return (folder / "value").is_dir() and job.config.get("value") != "head"


def figures_of(model: Path) -> dict[str, Any]:
    """What run.json says about how the run ended."""
    run = json.loads((model / "run.json").read_text(encoding="utf-8"))
    final = run["final_metrics"]
    figures = {"wall_seconds": run["wall_seconds"], "final": final}
    if "kl_nats" in final.get("final", {}):  # of a policy after its last step
        figures["kl_nats"] = final["final"]["kl_nats"]
    if (model / BEST).is_dir():
        kept = final["kept"]
        figures |= {"kept_step": kept["kept_step"], "kl_nats": kept["kl_nats"]}
    return figures
