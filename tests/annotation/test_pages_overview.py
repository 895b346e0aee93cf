"""The overview: the loop as it stands, and what an admin does from there."""

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from annotation.models import (
    AuditEntry,
    Batch,
    DatasetSnapshot,
    FileImport,
    JobKind,
    JobStatus,
    ModelVersion,
    Preference,
    Promotion,
    RetrainRule,
    TrainingJob,
)
from annotation.pages import due
from annotation.pages.audit import AMONG, OF_ACTIONS, PAGES, TABLES, WORDS
from annotation.pages.due import what_is_due
from annotation.pages.loop import counts_of
from annotation.services import queue
from annotation.services.audit import record
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from tests.annotation import voting
from tests.annotation.making import make_comparisons, make_project

FINISHED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


def answer(cast, number: int) -> None:
    """So many answers of the labeler, on train prompts."""
    for place in range(number):
        comparison = cast.ask(f"Question {place} of {number}?", ["Yes.", "No."])
        comparison.prompt.split = "train"
        comparison.prompt.save()
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    for _ in range(number):
        lease = queue.claim_comparison(annotator=annotator)
        rankings = [AxisRanking(groups=[[pk] for pk in lease.presented_order])]
        queue.submit_preference(assignment=lease, rankings=rankings, key=f"key {lease.pk}")


def running(project, **columns) -> TrainingJob:
    return TrainingJob.objects.create(
        project=project, kind=JobKind.REWARD, status=JobStatus.RUNNING, **columns
    )


def test_an_empty_loop(cast, enter):
    html = enter(cast.researcher).get("/p/shop/").content.decode()
    assert html.count('class="station') == 5
    assert "No job has run yet." in html
    assert "Start a job" not in html


def test_a_running_job_shows_its_progress_where_it_works(cast, enter):
    job = running(cast.project, step=30, total_steps=120, phase="train")
    html = enter(cast.labeler).get("/p/shop/live/").content.decode()
    assert '<progress value="30" max="120"' in html
    assert "at-work" in html
    assert 'hx-trigger="every 2s"' in html
    assert "<html" not in html
    assert "/p/shop/jobs/" not in html  # no business of a labeler
    assert f"/p/shop/jobs/{job.pk}/" in enter(cast.reviewer).get("/p/shop/live/").content.decode()


def test_the_snapshot_of_the_loop_is_one_of_votes(cast, enter):
    for number, kind in enumerate(("comparisons", "demonstrations")):
        DatasetSnapshot.objects.create(
            project=cast.project,
            kind=kind,
            query={},
            ledger_position={},
            sha256=str(number) * 64,
            path="x",
            rows=12 + number,
            counts={},
        )
    html = enter(cast.reviewer).get("/p/shop/live/").content.decode()
    assert "12 rows" in html
    assert "13 rows" not in html


def test_the_log_is_told_in_words_with_names_and_links(cast, enter):
    job = running(cast.project)
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    source = cast.project.sources.get()
    file = FileImport.objects.create(
        project=cast.project, name="pairs.jsonl", sha256="0" * 64, num_bytes=3, by=cast.admin
    )
    for action, target in [
        ("job.request", job),
        ("member.add", cast.reviewer),
        ("version.gate", "modelversion:7"),
        ("import.start", file),
        ("file.import", source),
        ("annotator.warn", annotator),
        ("project.checks", cast.project),
        ("comparison.retire", "comparison:5"),
        ("review.send", ""),
    ]:
        record(action=action, target=target, project=cast.project, actor=cast.admin)
    record(action="job.lost", target=job, project=cast.project)
    html = enter(cast.admin).get("/p/shop/").content.decode()
    log = html[html.index("What happened lately") :]
    cells = r'<td>([^<]+)</td><td>(?:<a href="([^"]+)">)?([^<]*)(?:</a>)?</td></tr>'
    found = re.findall(cells, log)
    name = f"Reward model #{job.pk}"
    assert found[:10] == [
        ("a job&#x27;s worker vanished", f"/p/shop/jobs/{job.pk}/", name),
        ("sent comparisons to review", "/p/shop/reviews/", "Look at it"),
        ("retired a comparison", "", "comparison 5"),
        ("changed how annotators are checked", "/p/shop/gold/", "Shop assistant"),
        (
            "an annotator fell below the bar",
            f"/p/shop/gold/people/{annotator.pk}/",
            annotator.pseudonym,
        ),
        ("imported a file", "/p/shop/imports/", source.name),
        ("had a file taken in", f"/p/shop/imports/{file.pk}/", "pairs.jsonl"),
        ("a version was judged", "", "version 7"),  # that is gone
        ("added a member", "/p/shop/members/", cast.reviewer.username),
        ("asked for a job", f"/p/shop/jobs/{job.pk}/", name),
    ]
    assert "a worker or a command" in log


def test_every_table_that_the_log_can_name_has_a_word_and_a_page_that_there_is():
    named = {"annotator", "batch", "comparison", "datasetsnapshot", "decision", "fileimport"}
    named |= {"forgotten", "golditem", "guideline", "invitation", "modelversion", "preference"}
    named |= {"project", "question", "rangevoid", "report", "scheme", "sendback", "source"}
    named |= {"study", "tag", "trainingjob", "user"}
    assert named == TABLES.keys()
    assert named <= {model._meta.model_name for model in apps.get_models()}
    for name in PAGES.values():
        assert reverse(name, args=["shop", 1])
    for name in {*AMONG.values(), *OF_ACTIONS.values()}:
        assert reverse(name, args=["shop"])


def test_every_action_that_the_code_records_has_words():
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("annotation", "workers")
        for path in (settings.BASE_DIR / folder).rglob("*.py")
    )
    recorded = set(re.findall(r'action="([a-z_]+\.[a-z_]+)"', source))
    assert {"preference.void", "job.request", "version.gate"} <= recorded
    of_no_project = {"token.issue", "token.revoke", "user.create", "user.password"}
    assert recorded - of_no_project - WORDS.keys() == set()
    assert {f"job.{status}" for status in FINISHED} <= WORDS.keys()


def test_what_is_in_force_is_named(cast, enter):
    for number in (1, 2):
        version = ModelVersion.objects.create(
            kind="policy", stage="sft", name=f"sft-{number}", path=f"m/{number}", sha256="0" * 64
        )
        Promotion.objects.create(
            project=cast.project, slot="policy", version=version, verdict="first"
        )
    html = enter(cast.labeler).get("/p/shop/live/").content.decode()
    assert "sft-2" in html
    assert "sft-1" not in html


@pytest.mark.parametrize(
    ("wanted", "sentence", "is_due"),
    [
        (3, "1 more answer makes a reward model due.", False),
        (5, "3 more answers make a reward model due.", False),
        (2, "A reward model is due now.", True),
    ],
)
def test_what_is_due_and_why(cast, wanted, sentence, is_due):
    answer(cast, 2)
    rule = RetrainRule(project=cast.project, after_preferences=wanted)
    found = what_is_due(cast.project, rule)
    assert (found.sentence, found.is_due, found.have) == (sentence, is_due, 2)


def test_more_new_answers_than_are_counted_have_a_plus(cast, monkeypatch):
    monkeypatch.setattr(due, "MOST_COUNTED", 1)
    for number in range(3):
        answer(cast, number)
    rule = RetrainRule(project=cast.project, after_preferences=1)
    assert what_is_due(cast.project, rule).have_in_words == "1+"
    rule.after_preferences = 2
    assert what_is_due(cast.project, rule).have_in_words == "2+"
    rule.after_preferences = 3
    assert what_is_due(cast.project, rule).have_in_words == "3"


def test_what_is_open_and_what_was_answered_by_hand(cast):
    """Three open comparisons, one of them of a paused batch, and one retired; five answers, of
    which one was changed and one is void; one is of yesterday, and one of another project."""
    project, midnight = cast.project, timezone.now().replace(hour=0, minute=0, second=0)
    one, two, retired = make_comparisons(project, 3)
    (paused,) = make_comparisons(project, 1, batch="paused")
    Batch.objects.filter(pk=paused.batch_id).update(paused=True)
    project.comparisons.filter(pk=retired.pk).update(retired_at=timezone.now())
    voting.revise(voting.cast(one), order=[[1], [0]])
    voting.cast(one, voided_at=timezone.now(), void_reason="spam")
    voting.cast(two)
    old = voting.cast(two)
    Preference.objects.filter(pk=old.pk).update(created_at=midnight - timedelta(hours=1))
    elsewhere = make_project(slug="elsewhere")
    voting.cast(make_comparisons(elsewhere, 1)[0])
    counts = counts_of(project, midnight)
    assert (counts.open, counts.leased) == (2, 0)
    assert (counts.answered, counts.today) == (3, 2)


def test_nothing_is_due_without_answers_or_rule(cast):
    rule = RetrainRule(project=cast.project, after_preferences=1)
    assert "no new answers" in what_is_due(cast.project, rule).sentence
    rule.enabled = False
    assert "The retrain rule is off" in what_is_due(cast.project, rule).sentence


def test_the_overview_waits_for_a_policy_in_the_making_as_the_loop_does(cast):
    answer(cast, 2)
    TrainingJob.objects.create(project=cast.project, kind="sft")
    found = what_is_due(cast.project, RetrainRule(project=cast.project, after_preferences=2))
    assert "waits for the policy" in found.sentence
    assert not found.is_due


def test_the_overview_counts_the_votes_that_train(cast):
    answer(cast, 2)
    cast.project.job_defaults = {"inputs": {"reward": {"annotators": ["simulated"]}}}
    rule = RetrainRule(project=cast.project, after_preferences=1)
    assert what_is_due(cast.project, rule).have == 0


def test_minutes_count_from_the_last_reward_job(cast):
    running(cast.project)
    TrainingJob.objects.update(status=JobStatus.DONE)
    answer(cast, 1)
    rule = RetrainRule(project=cast.project, every_minutes=30)
    assert what_is_due(cast.project, rule).sentence == "A reward model is due in 30 minutes."


def test_an_admin_queues_a_job(cast, enter):
    inputs = '{"data": ["demonstrations.jsonl"]}'
    form = {"kind": "reward", "lane": "experiment", "config": '{"lr_peak": 0.1}', "inputs": inputs}
    enter(cast.admin).post("/p/shop/jobs/start/", form)
    job = TrainingJob.objects.get()
    assert (job.kind, job.lane, job.config) == ("reward", "experiment", {"lr_peak": 0.1})
    assert job.requested_by == cast.admin


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"kind": "nonsense"}, "kind:"),
        ({"config": "{"}, "config:"),
        ({"config": "[1]"}, "config must be a JSON object"),
        ({"inputs": '{"data": ["/etc/passwd"]}'}, "/etc/passwd"),
    ],
)
def test_a_job_that_makes_no_sense_is_told_and_not_queued(cast, enter, form, words):
    whole = {"kind": "sft", "lane": "loop", "config": "{}", "inputs": "{}"} | form
    response = enter(cast.admin).post("/p/shop/jobs/start/", whole)
    html = response.content.decode()
    assert (response.status_code, words in html) == (422, True)
    assert escape(whole["config"]) + "</textarea>" in html  # as it was typed
    assert not TrainingJob.objects.exists()


def test_the_rule_is_changed_and_written_down(cast, enter):
    form = {"enabled": "on", "after_preferences": "7", "every_minutes": ""}
    enter(cast.admin).post("/p/shop/rule/", form)
    rule = RetrainRule.objects.get(project=cast.project)
    assert (rule.enabled, rule.after_preferences, rule.every_minutes) == (True, 7, None)
    assert rule.ppo_after_reward is False
    assert AuditEntry.objects.filter(action="project.retrain_rule", actor=cast.admin).exists()


def test_a_rule_that_says_nothing_is_refused(cast, enter):
    form = {"enabled": "on", "after_preferences": "", "every_minutes": ""}
    response = enter(cast.admin).post("/p/shop/rule/", form, follow=True)
    assert "Say after how many answers" in response.content.decode()
    assert RetrainRule.objects.get(project=cast.project).after_preferences == 100


def test_auto_promote_is_switched(cast, enter):
    client = enter(cast.admin)
    client.post("/p/shop/auto-promote/", {"auto_promote": "on"})
    cast.project.refresh_from_db()
    assert cast.project.auto_promote is True
    client.post("/p/shop/auto-promote/", {})
    cast.project.refresh_from_db()
    assert cast.project.auto_promote is False


def test_only_admins_see_the_audit_log(cast, enter):
    assert "made the project" in enter(cast.admin).get("/p/shop/").content.decode()
    assert "made the project" not in enter(cast.reviewer).get("/p/shop/").content.decode()


def test_the_live_part_has_a_query_budget(cast, enter, django_assert_max_num_queries):
    answer(cast, 3)
    for _ in range(6):
        TrainingJob.objects.create(project=cast.project, kind="sample", status=JobStatus.QUEUED)
    client = enter(cast.labeler)
    with django_assert_max_num_queries(15):
        client.get("/p/shop/live/")
