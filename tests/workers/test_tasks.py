"""workers.tasks: what one tick does for all projects."""

import logging

import pytest

from annotation.models import JobKind, TrainingJob
from annotation.services import versions
from annotation.services.ledger import add_prompt
from tests.annotation.making import make_project
from tests.workers.tiny import tiny_policy
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
