"""Kill what can be killed, in mid-training of a real (tiny) model, and count what is left.

Real Redis, real Celery workers started by the Procfile's lines, a real trainer. After each fault:
the job is done, there is one version, each step stands once in the metrics, and at no time did two
trainers live for one job.
"""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from annotation.models import JobStatus, ModelVersion, TrainingJob
from annotation.services import jobs, versions
from tests.workers.conftest import Installation, wait_for
from workers.celery import app, broker_url
from workers.launch import ATTEMPT_FOLDER

pytestmark = pytest.mark.celery
STEPS = 300
CONFIG = {
    "vocab_size": 300,
    "width": 16,
    "layers": 1,
    "heads": 1,
    "context": 32,
    "steps": STEPS,
    "windows_per_step": 1,
    "checkpoint_every": 25,
    "eval_every": STEPS,
    "sample_every": 0,
    "heldout_fraction": 0.0,
}
WORDS = ("cat", "sees", "a", "red", "house", "and", "runs", "under", "the", "big", "tree")


@pytest.fixture
def corpus(concord: Installation) -> str:
    rows = [" ".join(WORDS[(n * k) % len(WORDS)] for k in range(20)) for n in range(1, 120)]
    (concord.var / "data" / "corpus.txt").write_text("\n\n".join(rows))
    return "corpus.txt"


@pytest.fixture
def wish(project, corpus):
    def ask(**config) -> TrainingJob:
        return jobs.request_training(
            project=project,
            kind="pretrain",
            inputs={"data": [corpus]},
            config={**CONFIG, **config},
        )

    return ask


class Trainers:
    """Looks at the processes of a job, and remembers the most that lived at once.

    What a trainer starts itself (git, asked for the revision) inherits its environment and is none.
    """

    def __init__(self, job: TrainingJob, concord: Installation) -> None:
        self.prefix = str(concord.var / "artifacts" / "jobs" / str(job.pk) / "attempt-")
        self.most = 0

    def living(self) -> list[psutil.Process]:
        ours = [one for one in psutil.process_iter(["ppid"]) if self._is_ours(one)]
        pids = {one.pid for one in ours}
        found = [one for one in ours if one.info["ppid"] not in pids]
        self.most = max(self.most, len(found))
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(ATTEMPT_FOLDER, "").startswith(self.prefix)
        except (psutil.Error, OSError):
            return False


def in_mid_training(job: TrainingJob, trainers: Trainers) -> psutil.Process:
    """The trainer, halted by SIGSTOP with a checkpoint behind it and its steps in the ledger."""
    model = Path(trainers.prefix + "1") / "model"

    def far_enough():
        steps = (model / "metrics.jsonl").is_file() and len(
            (model / "metrics.jsonl").read_bytes().splitlines()
        )
        return steps and steps >= 30 and any(model.glob("checkpoints/step-*")) and trainers.living()

    (trainer,) = wait_for(far_enough, f"job {job.pk} to be in mid-training")
    trainer.suspend()
    wait_for(lambda: job.metrics.count() >= 30, "its steps to be in the ledger")
    assert job.metrics.count() < STEPS, "too quick a trainer for this test"
    return trainer


def until(job: TrainingJob, status: str, trainers: Trainers) -> TrainingJob:
    def reached():
        trainers.living()
        job.refresh_from_db()
        assert job.status == status or job.status in (JobStatus.QUEUED, JobStatus.RUNNING), (
            job.status,
            job.error,
            job.log_tail,
        )
        return job.status == status

    wait_for(reached, f"job {job.pk} to be {status}")
    return job


def assert_finished_once(job: TrainingJob, trainers: Trainers) -> None:
    """What must hold whatever happened on the way."""
    steps = list(job.metrics.filter(phase="train").order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, STEPS + 1))
    version = ModelVersion.objects.get(job=job)
    directory = versions.directory_of(version)
    assert version.sha256 == versions.sha256_of_directory(directory)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines if row["phase"] == "train"] == steps
    assert trainers.most == 1
    assert trainers.living() == []


def resumed_at(job: TrainingJob) -> int:
    directory = versions.directory_of(ModelVersion.objects.get(job=job))
    return json.loads((directory / "run.json").read_text())["resumed_at_step"]


@pytest.mark.parametrize("victim", ["celery", "trainer", "both"])
def test_a_kill_in_mid_training_is_found_and_the_job_finished_from_its_checkpoint(
    concord, wish, victim
):
    concord.start("training")
    job = wish()
    trainers = Trainers(job, concord)
    trainer = in_mid_training(job, trainers)
    if victim == "celery":
        trainer.resume()  # it sees the pipe close; with "both" it is killed before it could
    if victim in ("celery", "both"):
        concord.kill("training")
    if victim in ("trainer", "both"):
        trainer.kill()
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.RUNNING, 1)  # nobody has told the ledger
    if "training" not in concord.processes:
        concord.start("training")
    until(job, JobStatus.DONE, trainers)
    assert (job.attempt, job.lost_attempts) == (2, 1)
    assert resumed_at(job) >= 25
    assert_finished_once(job, trainers)


def test_a_worker_that_slept_through_its_jobs_next_attempt_touches_nothing(concord, wish):
    """Worker and trainer hang; the trainer is ended and the job finished by another worker."""
    sleeper = concord.start("training")
    job = wish()
    trainers = Trainers(job, concord)
    in_mid_training(job, trainers)
    os.kill(sleeper.pid, signal.SIGSTOP)
    concord.processes["sleeper"] = concord.processes.pop("training")
    concord.start("training")
    until(job, JobStatus.DONE, trainers)
    before = TrainingJob.objects.values().get(pk=job.pk)
    os.kill(sleeper.pid, signal.SIGCONT)
    assert concord.stop("sleeper") == 0
    assert "fenced off" in concord.log("training")
    assert TrainingJob.objects.values().get(pk=job.pk) == before
    assert_finished_once(job, trainers)


def test_a_worker_that_shuts_down_gives_its_job_back_with_a_checkpoint(concord, wish):
    concord.start("training")
    job = wish()
    trainers = Trainers(job, concord)
    trainer = in_mid_training(job, trainers)
    concord.processes["training"].terminate()
    trainer.resume()
    assert concord.stop("training") == 0
    job.refresh_from_db()
    assert (job.status, job.attempt, job.lost_attempts) == (JobStatus.QUEUED, 1, 0)
    assert trainers.living() == []
    concord.start("training")
    until(job, JobStatus.DONE, trainers)
    assert resumed_at(job) >= 25
    assert_finished_once(job, trainers)


def test_redis_goes_and_comes_back_empty_and_no_row_is_lost(concord, wish):
    concord.start("training")
    job = wish()
    trainers = Trainers(job, concord)
    trainer = in_mid_training(job, trainers)
    concord.kill("redis")
    trainer.resume()
    (concord.var / "redis.rdb").unlink(missing_ok=True)
    second = wish(seed=1)  # asked for while nobody can be told
    until(job, JobStatus.DONE, trainers)
    concord.start("redis")
    more = Trainers(second, concord)
    until(second, JobStatus.DONE, more)
    assert_finished_once(job, trainers)
    assert_finished_once(second, more)
    assert (job.attempt, second.attempt) == (1, 1)


def test_a_message_delivered_twice_runs_the_job_once(concord, wish):
    job = wish()
    with app.connection_for_write(broker_url(concord.redis_url)) as connection:
        for _ in range(4):
            app.send_task(
                "workers.tasks.run_training", [job.pk], queue="training", connection=connection
            )
    concord.start("training")
    trainers = Trainers(job, concord)
    until(job, JobStatus.DONE, trainers)
    assert job.attempt == 1
    assert_finished_once(job, trainers)


def test_a_cancelled_job_ends_its_trainer_and_a_bad_setting_ends_with_its_sentence(concord, wish):
    concord.start("training")
    job = wish(steps=100 * STEPS)
    trainers = Trainers(job, concord)
    in_mid_training(job, trainers).resume()
    jobs.cancel_job(job=job, by=None)
    until(job, JobStatus.CANCELLED, trainers)
    assert trainers.living() == []
    bad = wish(leyers=3)
    until(bad, JobStatus.FAILED, Trainers(bad, concord))
    assert bad.exit_code == 2
    assert bad.error.startswith("PretrainConfig has no setting 'leyers'; it has ")
    assert not ModelVersion.objects.exists()
