"""services.jobs: wishes, claims, heartbeats, metrics, ends, and what becomes of lost workers."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput, Conflict
from annotation.models import AuditEntry, JobStatus, Lane, TrainingJob
from annotation.services import hints, jobs
from annotation.services.jobs import MetricRow, Pulse
from annotation.services.projects import create_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return create_project(name="Shop", slug="shop", by=None)


@pytest.fixture
def job(project):
    return jobs.request_training(project=project, kind="reward", reason="asked for")


def claimed(job):
    return jobs.claim_job(job_id=job.pk, worker="one")


# --- wishes -------------------------------------------------------------------------------------


def test_a_wish_is_a_queued_row_with_its_reason_and_an_audit_entry(project):
    job = jobs.request_training(project=project, kind="sft", config={"epochs": 2}, reason="why not")
    job.refresh_from_db()
    assert (job.status, job.attempt, job.config, job.reason) == (
        JobStatus.QUEUED,
        0,
        {"epochs": 2},
        "why not",
    )
    assert AuditEntry.objects.filter(action="job.request", project=project).count() == 1


def test_a_jobs_config_is_laid_over_the_projects_defaults(project):
    project.job_defaults = {"ppo": {"steps": 9, "seed": 1}}
    job = jobs.request_training(project=project, kind="ppo", config={"seed": 7})
    assert job.config == {"steps": 9, "seed": 7}


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"kind": "dpo"}, "kind must be one of pretrain, sft, reward, judge, ppo, sample: 'dpo'."),
        ({"kind": "sft", "lane": "fast"}, "lane must be one of loop, experiment: 'fast'."),
        ({"kind": "sft", "config": ["x"]}, r"config must be a JSON object: \['x'\]."),
        ({"kind": "sft", "config": {"tokenizer": "/etc"}}, "config.tokenizer names a path"),
        ({"kind": "pretrain", "inputs": {"data": "x"}}, "inputs.data must be a list"),
        (
            {"kind": "reward", "inputs": {"annotators": "person"}},
            "inputs.annotators must be",
        ),
        ({"kind": "sample", "inputs": {"comparisons": True}}, "inputs.comparisons must be a whole"),
        ({"kind": "sample", "inputs": {"comparisons": -1}}, "from 0 to 100000: -1"),
        ({"kind": "pretrain", "inputs": {"data": ["../settings.py"]}}, "No file '../settings.py'"),
        ({"kind": "pretrain", "inputs": {"data": ["/etc/passwd"]}}, "No file '/etc/passwd'"),
        ({"kind": "ppo", "config": {"baseline_cache": "/x"}}, "config.baseline_cache names a path"),
        ({"kind": "sample", "inputs": {"planned": [1]}}, "inputs.planned is the worker's own"),
        ({"kind": "sample", "inputs": {"comparisons": "three"}}, "from 0 to 100000: 'three'"),
        ({"kind": "reward", "inputs": {"annotators": 3}}, "inputs.annotators must be a list"),
        ({"kind": "reward", "inputs": {"annotators": ["robot"]}}, "robot"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_the_value_seen(project, wish, sentence):
    with pytest.raises(BadInput, match=sentence):
        jobs.request_training(project=project, **wish)
    assert not TrainingJob.objects.exists()


@pytest.mark.parametrize(
    ("defaults", "sentence"),
    [
        ({"ppo": {"baseline_cache": "/x"}}, "config.baseline_cache names a path"),
        ({"inputs": {"ppo": {"planned": [1]}}}, "inputs.planned is the worker's own"),
        ({"inputs": {"ppo": 5}}, "inputs must be a JSON object: 5"),
        ({"ppo": 5}, "config must be a JSON object: 5"),
    ],
)
def test_what_a_wish_may_not_say_the_projects_defaults_may_not_either(project, defaults, sentence):
    project.job_defaults = defaults  # as a row from before the check, or from elsewhere
    with pytest.raises(BadInput, match=sentence):
        jobs.request_training(project=project, kind="ppo")
    assert not TrainingJob.objects.exists()


def test_data_files_are_found_in_the_folders_that_may_be_read(project, tmp_path, settings):
    settings.DATA_DIRS = [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "corpus.txt").write_text("words")
    job = jobs.request_training(project=project, kind="pretrain", inputs={"data": ["corpus.txt"]})
    assert jobs.readable_data_files(job.inputs["data"]) == [tmp_path / "b" / "corpus.txt"]


def test_a_symlink_out_of_the_folder_is_not_followed(tmp_path, settings):
    settings.DATA_DIRS = [tmp_path / "a"]
    (tmp_path / "a").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match="No file 'link'"):
        jobs.readable_data_files(["link"])


def test_a_wish_does_not_fail_where_redis_is_gone(
    project, settings, tmp_path, django_capture_on_commit_callbacks
):
    settings.REDIS_URL = f"unix://{tmp_path / 'nobody.sock'}"
    with django_capture_on_commit_callbacks(execute=True):
        jobs.request_training(project=project, kind="sft")
    assert hints.wake_workers() is False


# --- claiming -----------------------------------------------------------------------------------


def test_a_claim_takes_the_job_once(job):
    mine = claimed(job)
    assert mine is not None
    assert (mine.status, mine.attempt, mine.worker) == (JobStatus.RUNNING, 1, "one")
    assert jobs.claim_job(job_id=job.pk, worker="two") is None


def test_one_job_of_a_kind_runs_at_a_time_in_the_loop(project, job):
    second = jobs.request_training(project=project, kind="reward")
    claimed(job)
    assert claimed(second) is None
    second.refresh_from_db()
    assert (second.status, second.attempt) == (JobStatus.QUEUED, 0)
    jobs.finish_job(job_id=job.pk, attempt=1)
    assert claimed(second) is not None


def test_the_database_itself_refuses_a_second_running_job(project, job, monkeypatch):
    second = jobs.request_training(project=project, kind="reward")
    claimed(job)
    queued = TrainingJob.objects.filter(status=JobStatus.QUEUED)
    monkeypatch.setattr(jobs, "startable_jobs", lambda: queued)  # as if both looked at once
    assert claimed(second) is None
    second.refresh_from_db()
    assert second.status == JobStatus.QUEUED


def test_other_kinds_other_projects_and_experiments_run_beside_it(project, job):
    other = create_project(name="Bank", slug="bank", by=None)
    claimed(job)
    for wish in (
        {"project": project, "kind": "ppo"},
        {"project": other, "kind": "reward"},
        {"project": project, "kind": "reward", "lane": Lane.EXPERIMENT},
        {"project": project, "kind": "reward", "lane": Lane.EXPERIMENT},
    ):
        assert claimed(jobs.request_training(**wish)) is not None


def test_startable_jobs_are_those_a_claim_would_get(project, job):
    waits = jobs.request_training(project=project, kind="reward")
    free = jobs.request_training(project=project, kind="reward", lane=Lane.EXPERIMENT)
    assert list(jobs.startable_jobs()) == [job, waits, free]
    claimed(job)
    assert list(jobs.startable_jobs()) == [free]


def test_sft_without_a_named_start_waits_for_the_pretraining(project):
    pretrain = jobs.request_training(project=project, kind="pretrain", lane="loop")
    sft = jobs.request_training(project=project, kind="sft")
    assert list(jobs.startable_jobs()) == [pretrain]
    claimed(pretrain)
    assert claimed(sft) is None
    jobs.finish_job(job_id=pretrain.pk, attempt=1)
    assert claimed(sft) is not None


# --- while it runs ------------------------------------------------------------------------------


def test_a_heartbeat_moves_the_progress_and_says_go_on(job):
    claimed(job)
    later = timezone.now() + timedelta(seconds=9)
    pulse = jobs.heartbeat(
        job_id=job.pk, attempt=1, step=3, total=10, phase="train", log_tail="a\x00b", now=later
    )
    job.refresh_from_db()
    assert pulse is Pulse.GO_ON
    assert (job.step, job.total_steps, job.phase, job.log_tail) == (3, 10, "train", "a\ufffdb")
    assert job.heartbeat_at == later


def test_a_heartbeat_tells_of_a_cancel(job):
    claimed(job)
    jobs.cancel_job(job=job, by=None)
    assert jobs.heartbeat(job_id=job.pk, attempt=1) is Pulse.CANCEL


def lose(job):
    """The worker falls silent and the job is taken away from it."""
    silent = timezone.now() + timedelta(hours=2)
    assert jobs.requeue_stale(now=silent) == [job.pk]


def test_an_attempt_that_lost_the_job_can_do_nothing_to_it(job):
    claimed(job)
    lose(job)
    assert claimed(job).attempt == 2
    before = TrainingJob.objects.values().get(pk=job.pk)
    assert jobs.heartbeat(job_id=job.pk, attempt=1, step=99) is Pulse.FENCED_OFF
    assert not jobs.record_metrics(job_id=job.pk, attempt=1, rows=[MetricRow(step=1, phase="t")])
    assert not jobs.finish_job(job_id=job.pk, attempt=1, result={"x": 1})
    assert not jobs.fail_job(job_id=job.pk, attempt=1, error="x")
    assert not jobs.confirm_cancel(job_id=job.pk, attempt=1)
    assert not jobs.release_job(job_id=job.pk, attempt=1)
    assert not jobs.store_inputs(job_id=job.pk, attempt=1, chosen={"inputs": {"x": 1}})
    assert TrainingJob.objects.values().get(pk=job.pk) == before
    assert not job.metrics.exists()


def test_each_step_of_a_phase_is_recorded_once_and_repeats_change_nothing(job):
    claimed(job)
    rows = [
        MetricRow(step=1, phase="train", values={"loss": 0.7}),
        MetricRow(step=1, phase="dev", values={"loss": 0.6}),
        MetricRow(step=2, phase="train", values={"loss": float("nan")}),
    ]
    for _ in range(2):
        assert jobs.record_metrics(job_id=job.pk, attempt=1, rows=rows)
    found = {(m.phase, m.step): m.values for m in job.metrics.all()}
    assert found == {
        ("train", 1): {"loss": 0.7},
        ("dev", 1): {"loss": 0.6},
        ("train", 2): {"loss": None},
    }


def test_a_step_trained_again_after_a_resume_has_the_newer_attempts_numbers(job):
    claimed(job)
    old = [MetricRow(step=n, phase="train", values={"loss": 1.0}) for n in (1, 2, 3)]
    jobs.record_metrics(job_id=job.pk, attempt=1, rows=old)
    lose(job)
    claimed(job)
    new = [MetricRow(step=n, phase="train", values={"loss": 0.5}) for n in (3, 4)]
    jobs.record_metrics(job_id=job.pk, attempt=2, rows=new)
    assert [m.values["loss"] for m in jobs.metrics_since(job=job, step=0)] == [1.0, 1.0, 0.5, 0.5]
    assert [m.step for m in jobs.metrics_since(job=job, step=2)] == [3, 4]


# --- how it ends --------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once_and_an_ended_one_not_at_all(job):
    jobs.cancel_job(job=job, by=None)
    assert job.status == JobStatus.CANCELLED
    assert claimed(job) is None
    with pytest.raises(Conflict, match="has ended already: Cancelled"):
        jobs.cancel_job(job=job, by=None)


def test_a_running_job_is_cancelled_by_its_worker(job):
    claimed(job)
    assert jobs.cancel_job(job=job, by=None).status == JobStatus.RUNNING
    assert jobs.confirm_cancel(job_id=job.pk, attempt=1, exit_code=3)
    job.refresh_from_db()
    assert (job.status, job.exit_code) == (JobStatus.CANCELLED, 3)


def test_a_job_ends_once(job):
    claimed(job)
    assert jobs.finish_job(job_id=job.pk, attempt=1, result={"loss": 0.5})
    assert not jobs.fail_job(job_id=job.pk, attempt=1, error="too late")
    job.refresh_from_db()
    assert (job.status, job.result, job.exit_code, job.error) == (
        JobStatus.DONE,
        {"loss": 0.5},
        0,
        "",
    )


def test_a_failed_job_keeps_its_sentence_and_the_end_of_its_log(job):
    claimed(job)
    jobs.fail_job(job_id=job.pk, attempt=1, error="Bad.", exit_code=2, log_tail="x" * 20_000)
    job.refresh_from_db()
    assert (job.status, job.error, job.exit_code) == (JobStatus.FAILED, "Bad.", 2)
    assert len(job.log_tail) == jobs.LOG_TAIL_CHARACTERS


def test_a_released_job_waits_again_and_does_not_count_as_lost(job):
    claimed(job)
    assert jobs.release_job(job_id=job.pk, attempt=1)
    assert claimed(job).attempt == 2
    job.refresh_from_db()
    assert job.lost_attempts == 0


def test_a_job_released_after_a_cancel_is_cancelled(job):
    claimed(job)
    jobs.cancel_job(job=job, by=None)
    jobs.release_job(job_id=job.pk, attempt=1)
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


# --- lost workers -------------------------------------------------------------------------------


def test_a_silent_job_is_queued_again_and_a_lively_one_is_not(project, job, settings):
    lively = jobs.request_training(project=project, kind="ppo")
    now = timezone.now()
    jobs.claim_job(job_id=job.pk, worker="one", now=now - timedelta(seconds=31))
    jobs.claim_job(job_id=lively.pk, worker="two", now=now - timedelta(seconds=29))
    settings.STALE_SECONDS = 30
    assert jobs.requeue_stale(now=now) == [job.pk]
    job.refresh_from_db()
    assert (job.status, job.worker, job.attempt) == (JobStatus.QUEUED, "", 1)


def test_a_silent_job_that_should_stop_is_cancelled(job):
    claimed(job)
    jobs.cancel_job(job=job, by=None)
    lose(job)
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


def test_a_job_that_lost_its_worker_five_times_fails_with_a_sentence(job):
    for _ in range(5):
        assert claimed(job) is not None
        lose(job)
    job.refresh_from_db()
    assert job.status == JobStatus.FAILED
    assert job.error == "The worker vanished 5 times while this job ran; it is not tried again."
    assert claimed(job) is None
