"""Every page in a real browser: no error, no broken policy, in both languages and all widths."""

import pytest

from annotation.management.commands.compile_translations import compile_file
from annotation.models import JobKind, JobMetric, JobStatus, ModelVersion, Promotion, TrainingJob
from annotation.services import questions, queue
from annotation.services.guidelines import add_entry
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.sendbacks import send_back
from tests.annotation.golden import make_item
from tests.annotation.test_translations import PO

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def everything(cast, settings, tmp_path):
    """A project in which every page has something to show; the paths of these pages."""
    settings.ARTIFACTS_DIR = tmp_path
    compile_file(PO)
    cast.ask("One?", ["Yes.", "No."])
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    lease = queue.claim_comparison(annotator=annotator)
    answer = queue.submit_preference(
        assignment=lease, rankings=[AxisRanking(outcome="equal")], key="key"
    )
    words = {"en": {"question": "May it be long?", "answer": "Yes."}}
    add_entry(project=cast.project, texts=words, by=cast.admin)
    question = questions.ask(annotator=annotator, comparison=lease.comparison, text="May it?")
    questions.answer(question=question, text="Yes, it may.", by=cast.admin)
    send_back(preference=answer, by=cast.reviewer, comment="Read the second one again.")
    # only now: the queue is shuffled, and the list of three is what is left to label
    cast.ask("Two?", ["Yes.", "No.", "Maybe."])
    gold = make_item([cast.admin, cast.reviewer], cast.comparisons[-1], "practice")
    job = TrainingJob.objects.create(
        project=cast.project,
        kind=JobKind.PPO,
        status=JobStatus.RUNNING,
        step=4,
        total_steps=9,
        log_tail="step 4",
    )
    for step in range(5):
        JobMetric.objects.create(job=job, phase="ppo", step=step, values={"score": step / 3})
    version = ModelVersion.objects.create(
        kind="policy",
        stage="ppo",
        name="ppo-1",
        path="models/p1",
        sha256="0" * 64,
        job=job,
        metrics={"gate": {"passed": False, "why": "KL 12 nats.", "numbers": {"kl": 12.0}}},
    )
    Promotion.objects.create(
        project=cast.project, slot="policy", version=version, verdict="by_admin", by=cast.admin
    )
    return cast, [
        "/",
        "/tokens/",
        "/projects/new/",
        "/p/shop/",
        "/p/shop/label/",
        "/p/shop/batches/",
        f"/p/shop/batches/{answer.comparison.batch_id}/",
        f"/p/shop/void-range/?annotator={annotator.pseudonym}"
        "&since=2026-01-01T00:00&until=2050-01-01T00:00",
        "/p/shop/jobs/",
        "/p/shop/jobs/new/?kind=ppo&preset=rloo",
        f"/p/shop/jobs/{job.pk}/",
        "/p/shop/versions/",
        f"/p/shop/versions/{version.pk}/",
        "/p/shop/gold/",
        f"/p/shop/gold/{gold.pk}/",
        "/p/shop/practice/",
        f"/p/shop/practice/{gold.pk}/",
        "/p/shop/guideline/",
        "/p/shop/guideline/history/",
        "/p/shop/questions/?state=all",
        f"/p/shop/questions/{question.pk}/",
        "/p/shop/sent-back/",
        "/p/shop/search/?text=one",
        "/p/shop/analysis/",
        "/p/shop/analysis/?part=languages",
        "/p/shop/analysis/votes/?part=languages&language=en",
        "/p/shop/analysis/disagreements/",
        "/p/shop/analysis/contributions/",
        "/p/shop/preferences/",
        f"/p/shop/preferences/{answer.pk}/",
        "/p/shop/imports/",
        "/p/shop/export/",
        "/p/shop/forget/",
        "/p/shop/members/",
    ]


def overflow(page) -> int:
    """How many pixels the page is wider than the window."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 800}},
        {"viewport": {"width": 360, "height": 740}, "locale": "zh-CN", "color_scheme": "dark"},
    ],
    ids=["desk-en-light", "phone-zh-dark"],
)
def test_every_page_is_whole(visitors, everything, options):
    cast, paths = everything
    visitor = visitors(**options)
    visitor.enter(cast.admin, "/tokens/")
    for path in paths:
        visitor.visit(path)
        assert visitor.do(lambda page: page.locator("h1, .empty h2").count()) >= 1, path
        assert visitor.do(overflow) <= 0, path
        names = visitor.do(
            lambda page: page.evaluate(
                """() => [...document.querySelectorAll("input, select, textarea")]
                  .filter((one) => one.type !== "hidden" && !one.labels?.length && !one.ariaLabel
                    && !one.hasAttribute("aria-labelledby"))
                  .map((one) => one.name)"""
            )
        )
        assert names == [], path


def test_the_overview_renews_itself(visitor, everything):
    cast, _paths = everything
    visitor.enter(cast.admin, "/tokens/")
    visitor.visit("/p/shop/")
    visitor.wait_for("text=4/9")
    TrainingJob.objects.update(step=7)
    visitor.wait_for("text=7/9")


def test_chinese_is_a_click_away_and_stays(visitor, everything):
    cast, _paths = everything
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.do(lambda page: page.click("text=简体中文"))
    visitor.wait_for("h1:has-text('为这 3 个回答排序')")
    visitor.keys("1", "2")
    visitor.wait_for("#says:has-text('B 排在第 2 名')")
    visitor.do(lambda page: page.reload())
    visitor.wait_for("h1:has-text('为这 3 个回答排序')")
    assert visitor.do(lambda page: page.get_attribute("html", "lang")) == "zh-Hans"


def test_what_cannot_be_undone_is_asked_first(visitor, everything):
    cast, _paths = everything
    visitor.enter(cast.admin, "/tokens/")
    visitor.visit("/p/shop/")
    visitor.do(lambda page: page.click("button:has-text('Cancel')"))
    visitor.wait_for("text=Stopping…")
    assert len(visitor.dialogs) == 1
    assert TrainingJob.objects.get().cancel_requested_at is not None
