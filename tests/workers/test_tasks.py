"""workers.tasks: what one tick does for all projects."""

import logging

import pytest

from annotation.models import JobKind, TrainingJob
from annotation.services import jobs, versions
from annotation.services.ledger import add_prompt
from tests.annotation.making import make_project
from tests.workers.tiny import tiny_policy
from workers import model_tasks, tasks
from workers.tasks import look_what_is_due

pytestmark = pytest.mark.django_db


def test_a_project_that_breaks_is_named_in_the_log_and_stops_no_other(project, artifacts, caplog):
    make_project("broken", job_defaults={"inputs": {"reward": 3}})  # from before it was checked
    last = make_project("last")
    add_prompt(
        project=last, source=last.sources.get(), messages=[{"role": "user", "content": "Why?"}]
    )
    policy = versions.register_version(
        kind="policy", stage="registered", directory=tiny_policy(artifacts / "models" / "p")
    )
    versions.promote(project=last, slot="policy", version=policy, verdict="registered")
    TrainingJob.objects.all().delete()
    with caplog.at_level(logging.ERROR, "workers.tasks"):
        look_what_is_due()
    assert TrainingJob.objects.get(project=last).kind == JobKind.SAMPLE
    (told,) = caplog.records
    assert "broken" in told.getMessage()
    assert told.exc_info


@pytest.mark.parametrize(
    ("task", "module", "runs", "kinds"),
    [
        (tasks.run_training, tasks, "run_training_job", ["sft", "reward", "ppo"]),
        (model_tasks.run_sample, model_tasks, "run_sample_job", ["sample", "sample"]),
    ],
)
def test_the_oldest_job_runs_first_whichever_message_comes_first(
    project, monkeypatch, task, module, runs, kinds
):
    """A message for the youngest arrives while the oldest waits: nobody is overtaken."""
    request = jobs.request_training
    other = "reward" if "sample" in kinds else "sample"
    request(project=project, kind=other)  # of another queue, older than all
    wanted = [request(project=project, kind=kind, lane="experiment").pk for kind in kinds]
    ran = []

    def run(job_id):
        assert jobs.claim_job(job_id=job_id, worker="w")
        ran.append(job_id)

    monkeypatch.setattr(module, runs, run)
    for job_id in reversed(wanted):
        task(job_id)
    assert ran == wanted
    task(wanted[0])  # delivered twice: nothing is left
    assert ran == wanted
