"""A job's page in a real browser: what is unfolded stays so while the page renews itself."""

import pytest

from annotation.models import JobKind, JobMetric, JobStatus, TrainingJob

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_an_unfolded_part_stays_unfolded_when_the_page_renews_itself(visitor, cast):
    job = TrainingJob.objects.create(
        project=cast.project, kind=JobKind.PPO, status=JobStatus.RUNNING, step=2, total_steps=9
    )
    for step in (1, 2):
        values = {"score": step / 3, "lr": step}
        JobMetric.objects.create(job=job, phase="ppo", step=step, values=values)
    visitor.enter(cast.admin, f"/p/shop/jobs/{job.pk}/")
    visitor.do(lambda page: page.click("#more-charts > summary"))
    visitor.wait_for("#more-charts[open] svg")
    TrainingJob.objects.update(step=3)
    visitor.wait_for("text=step 3 of 9")
    assert visitor.do(lambda page: page.locator("#more-charts").get_attribute("open")) == ""
