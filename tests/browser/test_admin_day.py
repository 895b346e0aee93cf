"""An admin's day in a real browser: retrains by the form, promotes what was made, rolls back."""

import pytest

from annotation.models import JobStatus, ModelVersion, Promotion, RetrainRule, TrainingJob
from tests.annotation.test_pages_job_form import answer

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
GATE = {
    "passed": False,
    "verdict": "undecided",
    "why": "Undecided: about 40 more answered dev groups would tell. Against reward-1 on 24 groups "
    "of dev, look 2: log loss -0.0100 [-0.0500, +0.0300], accuracy +0.0000.",
    "numbers": {"against": "reward-1"},
}


def make(cast, name: str, kind: str, *, promoted: bool = False, **metrics) -> ModelVersion:
    job = TrainingJob.objects.create(project=cast.project, kind=kind, status=JobStatus.DONE)
    version = ModelVersion.objects.create(
        kind="reward" if kind == "reward" else "policy",
        stage=kind,
        name=name,
        path=f"models/{name}",
        sha256=name.rjust(64, "0"),
        job=job,
        metrics=metrics,
    )
    if promoted:
        Promotion.objects.create(
            project=cast.project, slot=version.kind, version=version, verdict="by_admin"
        )
    return version


def test_an_admin_retrains_promotes_and_rolls_back(visitor, cast, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    make(cast, "sft-1", "sft", promoted=True)
    make(cast, "reward-1", "reward", promoted=True)
    answer(cast, 2)
    RetrainRule.objects.update(enabled=False)
    TrainingJob.objects.filter(kind="reward").update(status=JobStatus.CANCELLED)

    # the overview says what to do, and leads there
    visitor.enter(cast.admin, "/p/shop/")
    assert "2 answers have not been learned from" in visitor.text(".advice")
    visitor.do(lambda page: page.click("text=Train on them"))
    visitor.wait_for("#job-form")
    visitor.do(lambda page: page.fill("#set-epochs", "2"))
    visitor.do(lambda page: page.click("[name=look]"))
    visitor.wait_for("#plan")
    assert "trained" in visitor.text("#plan") or "for training" in visitor.text("#plan")
    visitor.do(lambda page: page.dblclick("#queue-it"))  # a nervous finger
    visitor.wait_for("text=is queued.")
    job = TrainingJob.objects.get(status=JobStatus.QUEUED)
    assert job.config == {"epochs": 2}

    # the job ends, its gate is undecided, and the overview asks for a decision
    TrainingJob.objects.filter(pk=job.pk).update(status=JobStatus.DONE)
    version = ModelVersion.objects.create(
        kind="reward",
        stage="reward",
        name="reward-2",
        path="models/reward-2",
        sha256="2" * 64,
        job=job,
        metrics={"gate": GATE},
    )
    visitor.visit("/p/shop/")
    assert "reward-2 is undecided. Undecided: about 40 more" in visitor.text(".advice")
    visitor.do(lambda page: page.click(".advice .decide .act"))
    visitor.wait_for("text=Gate: undecided")
    visitor.do(lambda page: page.click("text=Promote: Reward model"))
    visitor.wait_for("text=reward-2 is in force.")
    asked = "The gate is undecided. Put reward-2 in force as Reward model all the same?"
    assert visitor.dialogs == [asked]
    assert Promotion.objects.latest("pk").version == version

    # and back again, with a nervous finger
    visitor.visit("/p/shop/versions/")
    visitor.do(lambda page: page.dblclick("#roll-back-reward"))
    visitor.wait_for("text=reward-1 is in force again.")
    reward = Promotion.objects.filter(slot="reward").order_by("pk")
    assert [one.version.name for one in reward] == ["reward-1", "reward-2", "reward-1"]

    visitor.visit("/p/shop/health/")
    assert "Artifact directory" in visitor.text("table")
    assert visitor.problems == []
