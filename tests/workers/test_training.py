"""workers.training: what a trainer's end means, and publishing exactly once."""

import json
import signal
from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from annotation.models import JobStatus, ModelVersion, TrainingJob
from annotation.services import jobs, versions
from annotation.services.jobs import Pulse
from workers import training
from workers.launch import Ended
from workers.training import (
    error_of,
    finished_model,
    publish,
    published_folder,
    run_training_job,
    settle,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def job(project):
    job = jobs.request_training(project=project, kind="sft")
    return jobs.claim_job(job_id=job.pk, worker="w")


def finished(folder):
    """A run that ended well, as the trainers leave it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "metrics.jsonl").write_text("")
    run = {"finished": True, "wall_seconds": 2.5, "final_metrics": {"final": {"kl_nats": 1.5}}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def model(job):
    return finished(training.job_folder(job) / "attempt-1" / "model")


@pytest.mark.parametrize(
    ("code", "asked", "status"),
    [
        (0, Pulse.GO_ON, JobStatus.DONE),
        (0, Pulse.CANCEL, JobStatus.DONE),  # it was quicker than the cancel
        (0, Pulse.FENCED_OFF, JobStatus.RUNNING),
        (3, Pulse.CANCEL, JobStatus.CANCELLED),
        (-signal.SIGKILL, Pulse.CANCEL, JobStatus.CANCELLED),
        (3, Pulse.GO_ON, JobStatus.QUEUED),
        (-signal.SIGTERM, Pulse.GO_ON, JobStatus.QUEUED),
        (-signal.SIGKILL, Pulse.GO_ON, JobStatus.RUNNING),  # left to the stale heartbeat
        (-signal.SIGKILL, Pulse.FENCED_OFF, JobStatus.RUNNING),
        (2, Pulse.GO_ON, JobStatus.FAILED),
        (4, Pulse.GO_ON, JobStatus.FAILED),
        (1, Pulse.GO_ON, JobStatus.FAILED),
        (-signal.SIGSEGV, Pulse.GO_ON, JobStatus.FAILED),
    ],
)
def test_the_end_of_a_trainer_against_a_table(job, model, code, asked, status):
    settle(job, Ended(code, asked, "first line\nlast line\n"), model)
    job.refresh_from_db()
    assert job.status == status
    assert ModelVersion.objects.count() == (status == JobStatus.DONE)


@pytest.mark.parametrize(
    ("code", "log", "sentence"),
    [
        (2, "warning\nlr_peak must be above 0: -1\n", "lr_peak must be above 0: -1"),
        (4, "the loss is NaN\n", "Training diverged: the loss is NaN"),
        (1, "Traceback\nKeyError: 'x'\n\n", "The trainer ended with exit code 1: KeyError: 'x'"),
        (-11, "", "The trainer ended with exit code -11: it said nothing"),
    ],
)
def test_the_error_of_a_job_is_what_the_trainer_said_last(code, log, sentence):
    assert error_of(code, log) == sentence


def test_a_published_model_is_where_its_row_says_with_its_figures(job, model):
    version = publish(job, model)
    assert version.path == f"models/sft-{job.pk}"
    assert not model.exists()
    assert version.sha256 == versions.sha256_of_directory(versions.directory_of(version))
    assert (version.stage, version.kind) == ("sft", "policy")
    assert version.metrics == {
        "wall_seconds": 2.5,
        "final": {"final": {"kl_nats": 1.5}},
        "kl_nats": 1.5,
    }
    job.refresh_from_db()
    assert job.result == version.metrics


def test_of_a_run_that_kept_a_better_policy_than_its_last_that_one_is_the_version(job, model):
    best = finished(model / "best")
    (best / "run.json").unlink()
    (best / "model.safetensors").write_bytes(b"better weights")
    run = json.loads((model / "run.json").read_text())
    run["final_metrics"]["kept"] = {"step": 60, "kept_step": 40, "score": 1.0, "kl_nats": 0.75}
    (model / "run.json").write_text(json.dumps(run))
    version = publish(job, model)
    assert (version.name, version.path) == (f"sft-{job.pk}", f"models/sft-{job.pk}/best")
    directory = versions.directory_of(version)
    assert (directory / "model.safetensors").read_bytes() == b"better weights"
    assert version.sha256 == versions.sha256_of_directory(directory)
    assert (version.metrics["kept_step"], version.metrics["kl_nats"]) == (40, 0.75)
    assert (directory.parent / "model.safetensors").read_bytes() == b"weights"  # the last one


@pytest.mark.parametrize(
    ("folder", "config", "descends"),
    [("value", {}, True), ("value", {"value": "head"}, False), ("no-value", {}, False)],
)
def test_values_descend_from_the_reward_model_where_they_have_a_model_of_their_own(
    job, model, tmp_path, folder, config, descends
):
    job.reward = ModelVersion.objects.create(
        kind="reward", stage="reward", name="r", path="models/r", sha256="0"
    )
    job.config = config
    (model / folder).mkdir()
    version = publish(job, model)
    assert version.reward == job.reward
    assert version.value_init == (job.reward if descends else None)


def test_an_attempt_that_is_fenced_off_publishes_nothing(job, model):
    TrainingJob.objects.filter(pk=job.pk).update(attempt=2)
    assert publish(job, model) is None
    assert model.is_dir()
    assert not published_folder(job).exists()
    assert not ModelVersion.objects.exists()


def lose_and_claim(job):
    TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    return jobs.claim_job(job_id=job.pk, worker="x")


def test_killed_between_the_trainers_end_and_the_rename_the_next_attempt_publishes_it(job, model):
    TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    run_training_job(job.pk)  # no trainer is started: there is nothing to train on
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.DONE, 2)
    assert ModelVersion.objects.get().job == job


def test_killed_between_the_rename_and_the_row_the_next_attempt_adds_the_row(job, model):
    published_folder(job).parent.mkdir(parents=True)
    model.rename(published_folder(job))
    again = lose_and_claim(job)
    assert finished_model(again) == published_folder(job)
    assert publish(again, published_folder(job)).path == f"models/sft-{job.pk}"


def test_a_run_that_is_not_finished_is_not_published(job, model):
    (model / "run.json").write_text(json.dumps({"finished": False}))
    assert finished_model(lose_and_claim(job)) is None


def test_a_job_that_lacks_its_inputs_fails_with_the_sentence(project):
    job = jobs.request_training(project=project, kind="ppo")
    run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.FAILED, 2)
    assert job.error == "This job needs a policy in force to improve, and the project has none."


def test_an_error_that_nobody_foresaw_fails_the_job_and_is_raised(project, monkeypatch):
    def broken(job):
        raise KeyError("surprise")

    monkeypatch.setattr(training, "freeze_inputs", broken)
    job = jobs.request_training(project=project, kind="sft")
    with pytest.raises(KeyError):
        run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error) == (
        JobStatus.FAILED,
        "The worker failed: KeyError: 'surprise'",
    )
    assert "Traceback" in job.log_tail


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_model_that_the_ledger_could_not_take_is_published_by_the_next_attempt(
    project, monkeypatch, error
):
    def trains(*, job_id, attempt, folder, arguments):
        finished(folder / "model")
        return Ended(0, Pulse.GO_ON, "")

    def gone(**_):
        raise error("server closed the connection unexpectedly")

    monkeypatch.setattr(training, "freeze_inputs", lambda job: ["policy", "sft"])
    monkeypatch.setattr(training, "launch", trains)
    job = jobs.request_training(project=project, kind="sft")
    with monkeypatch.context() as patch:
        patch.setattr(versions, "register_version", gone)  # after the rename
        with pytest.raises(error):
            run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error) == (JobStatus.RUNNING, "")
    jobs.requeue_stale(now=timezone.now() + timedelta(days=1))
    run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.attempt) == (JobStatus.DONE, 2)
    assert ModelVersion.objects.get().job == job


def test_a_job_that_is_taken_is_left_alone(job):
    run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.attempt, job.worker) == (JobStatus.RUNNING, 1, "w")
