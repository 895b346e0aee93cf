"""A reward job of two processes, through the real launch: stopped, resumed, published."""

import json

import pytest

from annotation.errors import BadInput
from annotation.models import JobStatus, ModelVersion
from annotation.services import jobs, queue, versions
from tests.annotation.making import as_shown, make_annotator, make_comparisons
from workers import launch as launching
from workers.launch import living_trainers
from workers.training import _starting, job_folder, run_training_job

pytestmark = pytest.mark.django_db
TINY = {"layers": 1, "heads": 1, "width": 16, "context": 64, "vocab_size": 300}


@pytest.fixture
def voted(project):
    annotator = make_annotator(project)
    make_comparisons(project, 6)
    project.prompts.update(split="train")
    for _ in range(6):
        lease = queue.claim_comparison(annotator=annotator)
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))
    return project


def test_two_processes_stop_with_one_checkpoint_when_the_worker_does_and_go_on_from_it(
    voted, settings, monkeypatch
):
    settings.HEARTBEAT_SECONDS = 0.2
    # on a machine under load a step and its checkpoint may take longer than a worker waits
    monkeypatch.setattr(launching, "GRACE_SECONDS", 300.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = jobs.request_training(
        project=voted,
        kind="reward",
        config={**TINY, "comparisons_per_step": 3, "epochs": 100, "checkpoint_every": 1000},
        inputs={"init": "none", "processes": 2},
    )
    record, most = jobs.record_metrics, []

    def stop_at_the_first_step(*, rows, **told):
        most.append(len(living_trainers([job_folder(job) / "attempt-1"])))
        if any(row.phase == "train" for row in rows):
            launching.shutting_down.set()
        return record(rows=rows, **told)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "record_metrics", stop_at_the_first_step)
        try:
            run_training_job(job.pk)
        finally:
            launching.shutting_down.clear()
    job.refresh_from_db()
    first, second = (job_folder(job) / f"attempt-{number}" for number in (1, 2))
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1), job.log_tail
    assert max(most) == 3  # who started them, and two
    assert living_trainers([first]) == []
    assert len(list((first / "model" / "checkpoints").glob("step-*"))) == 1

    run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.attempt, job.exit_code) == (JobStatus.DONE, 2, 0), job.log_tail
    assert living_trainers([first, second]) == []
    directory = versions.directory_of(ModelVersion.objects.get(job=job))
    run = json.loads((directory / "run.json").read_text())
    assert run["processes"] == 2
    assert [list(one) for one in run["resumes"]] == [["at_step", "changed"]]
    assert run["resumed_at_step"] > 0
    steps = job.metrics.filter(phase="train").order_by("step").values_list("step", flat=True)
    assert list(steps) == list(range(1, 201))


@pytest.mark.parametrize(
    ("kind", "asked", "of_the_machine", "words"),
    [
        ("reward", None, 1, ["-m", "x"]),
        ("reward", None, 4, ["-m", "policy.several", "4", "x"]),
        ("judge", 2, 4, ["-m", "policy.several", "2", "x"]),
        ("reward", 1, 4, ["-m", "x"]),
        ("ppo", 2, 1, ["-m", "policy.several", "2", "x"]),
        ("sft", 1, 4, ["-m", "x"]),
    ],
)
def test_a_job_asks_for_processes_or_the_machine_says_how_many(
    project, settings, kind, asked, of_the_machine, words
):
    settings.TRAINER_PROCESSES = of_the_machine
    inputs = {"processes": asked} if asked else {}
    job = jobs.request_training(project=project, kind=kind, inputs=inputs)
    assert _starting(job, ["x"]) == words


@pytest.mark.parametrize("count", [0, 65, "2", True, 1.0])
def test_a_number_of_processes_that_is_none_is_refused(project, count):
    with pytest.raises(BadInput, match=r"inputs\.processes must be a whole number from 1 to 64"):
        jobs.request_training(project=project, kind="reward", inputs={"processes": count})
