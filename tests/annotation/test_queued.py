"""Why a queued job waits."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import JobKind, JobStatus, TrainingJob
from annotation.pages.queued import waits_of
from annotation.services import projects
from annotation.services.queued import why_queued
from tests.pages_cast import person

BUSY = "Its workers are busy with"


def put(cast, kind, status=JobStatus.QUEUED, **more):
    return TrainingJob.objects.create(project=cast.project, kind=kind, status=status, **more)


def said(job):
    return waits_of([job]).get(job.pk)


def test_a_fresh_job_starts_as_soon_as_a_worker_takes_it(cast):
    assert said(put(cast, JobKind.REWARD)) == "It starts as soon as a worker takes it."
    assert said(put(cast, JobKind.PPO, JobStatus.RUNNING)) is None


def test_of_a_kind_one_runs_at_a_time_in_the_loop(cast):
    first = put(cast, JobKind.PPO, JobStatus.RUNNING)
    second = put(cast, JobKind.PPO)
    assert said(second) == f"It waits until job {first.pk} (PPO) has ended, which runs."
    # an experiment needs no other's end, but a worker
    assert said(put(cast, JobKind.PPO, lane="experiment")) == f"{BUSY} PPO #{first.pk}."


def test_fine_tuning_waits_for_the_pretraining(cast):
    first = put(cast, JobKind.PRETRAIN)
    words = f"It waits until job {first.pk} (Pretraining) has ended, which is queued too."
    assert said(put(cast, JobKind.SFT)) == words


def test_a_judge_waits_for_the_pretraining_of_its_own_start_alone(cast):
    put(cast, JobKind.PRETRAIN, JobStatus.RUNNING)
    start = put(cast, JobKind.PRETRAIN, lane="experiment", inputs={"judge_of": 1})
    words = f"It waits until job {start.pk} (Pretraining) has ended, which is queued too."
    assert said(put(cast, JobKind.JUDGE)) == words


def test_jobs_of_the_same_queue_are_before_it(cast):
    running = put(cast, JobKind.PPO, JobStatus.RUNNING)
    put(cast, JobKind.SAMPLE)
    put(cast, JobKind.REWARD)
    last = put(cast, JobKind.SFT)
    assert said(last) == f"{BUSY} PPO #{running.pk}. 1 queued job is before it."


def test_another_projects_job_is_not_named(cast):
    other = projects.create_project(name="Other", slug="other", by=person("olga"))
    TrainingJob.objects.create(project=other, kind="ppo", status=JobStatus.RUNNING)
    assert said(put(cast, JobKind.REWARD)) == "Its workers are busy with another project."


@pytest.mark.parametrize(("kind", "queue"), [("reward", "training"), ("sample", "generate")])
def test_where_nothing_is_before_it_and_nobody_takes_it_a_worker_is_asked_for(
    cast, settings, kind, queue
):
    settings.TICK_SECONDS = 6  # so 30 seconds of silence
    job = put(cast, kind)
    for seconds, silent in ((30, 0), (31, 31)):
        found = why_queued([job], now=job.requested_at + timedelta(seconds=seconds))
        assert found[job.pk].silent_seconds == silent
    TrainingJob.objects.update(requested_at=timezone.now() - timedelta(seconds=99))
    job.refresh_from_db()
    assert f"Does a worker listen to the queue “{queue}”?" in said(job)
    assert "for 99 seconds" in said(job)
    put(cast, kind, JobStatus.DONE, finished_at=timezone.now())
    assert said(job) == "It starts as soon as a worker takes it."


def test_page_and_list_say_it(cast, enter):
    put(cast, JobKind.PPO, JobStatus.RUNNING)
    job = put(cast, JobKind.PPO)
    client = enter(cast.reviewer)
    for page in ("", f"{job.pk}/"):
        assert "has ended, which runs." in client.get(f"/p/shop/jobs/{page}").content.decode()
