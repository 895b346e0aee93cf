"""Mails to admins: to whom, in which language, once for each event, and a dead server."""

import smtplib
import socket
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail as outbox
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction

from annotation import environment
from annotation.models import JobKind, JobStatus, Mail, MailKind, Role, TrainingJob
from annotation.services import jobs
from annotation.services.checkrules import change_checks
from annotation.services.mails import FIRST_PAUSE, MOST_TRIES, owe_admins, send_waiting
from tests.annotation.golden import make_experts, make_items
from tests.annotation.making import make_comparisons, make_member, make_project
from tests.annotation.test_standing import Labeler

pytestmark = pytest.mark.django_db
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def configured(settings):
    settings.MAILS = {"DEFAULT_FROM_EMAIL": "concord@concord.example"}
    settings.DEFAULT_FROM_EMAIL = "concord@concord.example"
    settings.SITE_URL = "https://concord.example"


@pytest.fixture
def project():
    return make_project("shop")


def member(project, email, *, role=Role.ADMIN, **fields):
    user = make_member(project, role)
    for name, value in {"email": email, **fields}.items():
        setattr(user, name, value)
    user.save()
    return user


@pytest.fixture
def admins(project):
    """Two with an address, and four others who get nothing."""
    found = [member(project, "ann@x.example"), member(project, "王@x.example", language="zh-hans")]
    member(project, "")
    member(project, "left@x.example", is_active=False)
    member(project, "rev@x.example", role=Role.REVIEWER)
    member(make_project("other"), "other@x.example")
    return found


@pytest.fixture
def job(project):
    return TrainingJob.objects.create(
        project=project, kind=JobKind.PPO, status=JobStatus.RUNNING, attempt=1
    )


def fail(job) -> bool:
    error = "Training diverged: the loss is nan"
    return jobs.fail_job(job_id=job.pk, attempt=job.attempt, error=error)


def test_a_job_that_fails_is_told_to_each_admin_with_an_address_in_their_language(job, admins):
    assert fail(job)
    assert not fail(job)
    assert outbox.outbox == []  # nothing is sent by who tells
    assert send_waiting() == 2
    assert send_waiting() == 0
    english, chinese = sorted(outbox.outbox, key=lambda one: one.to)
    assert (english.to, english.from_email) == (["ann@x.example"], "concord@concord.example")
    assert english.subject == f"Shop: job {job.pk} (PPO) failed"
    assert english.body.splitlines()[:3] == [
        "Training diverged: the loss is nan",
        "",
        f"https://concord.example/p/shop/jobs/{job.pk}/",
    ]
    assert chinese.subject == f"Shop：任务 {job.pk}（PPO）失败"
    assert "训练发散：the loss is nan" in chinese.body


def test_a_job_whose_workers_vanish_is_told_once_and_not_at_each_try(job, admins, settings):
    for attempt in range(1, jobs.MAX_LOST_ATTEMPTS + 1):
        TrainingJob.objects.update(
            status=JobStatus.RUNNING, attempt=attempt, heartbeat_at=datetime(2026, 1, 1, tzinfo=UTC)
        )
        jobs.requeue_stale()
        assert Mail.objects.count() == (2 if attempt == jobs.MAX_LOST_ATTEMPTS else 0)


def test_an_event_that_is_rolled_back_owes_nothing(job, admins):
    with transaction.atomic():
        fail(job)
        assert Mail.objects.count() == 2
        transaction.set_rollback(True)
    assert (Mail.objects.count(), send_waiting()) == (0, 0)


def test_the_same_event_is_owed_once(project, admins):
    for _ in range(2):
        owe_admins(project=project, kind=MailKind.JOB_FAILED, event="job:1", job=1, error="x")
    assert Mail.objects.count() == 2


def test_nothing_is_owed_where_no_mail_is_configured(job, admins, settings):
    settings.MAILS = {}
    assert fail(job)
    assert not Mail.objects.exists()


@pytest.fixture
def labeler(project):
    make_items(make_experts(project), project, 14)
    make_comparisons(project, 40)
    changes = {"gold_every": 2, "bar_percent": 80, "bar_window": 5, "bar_more": 2}
    change_checks(project=project, changes=changes, by=None)
    return Labeler(project)


def test_a_labeler_below_the_bar_is_told_as_warned_and_as_stopped(labeler, admins):
    assert labeler.checks("+++--+-")[-3:] == ["warned", "warned", "stopped"]
    assert send_waiting() == 4
    name = labeler.annotator.pseudonym
    told = [one for one in outbox.outbox if one.to == ["ann@x.example"]]
    assert [one.subject for one in told] == [
        f"Shop: {name} is below the bar and was warned",
        f"Shop: {name} is below the bar and was stopped",
    ]
    assert "Of the last 5 hidden checks 3 held." in told[0].body
    assert f"/p/shop/gold/people/{labeler.annotator.pk}/" in told[0].body


@pytest.fixture
def refusing_port(settings):
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = taken.getsockname()
        settings.EMAIL_TIMEOUT = 5
        yield


def test_a_dead_mail_server_fails_no_job_and_is_tried_again_later(job, admins, refusing_port):
    assert fail(job)
    job.refresh_from_db()
    assert job.status == JobStatus.FAILED
    now = LATER
    assert send_waiting(now) == 0
    tries = sorted(Mail.objects.values_list("tries", flat=True))
    assert tries == [0, 1]  # the second was not tried: the server is away
    assert send_waiting(now + timedelta(seconds=50)) == 0
    assert sorted(Mail.objects.values_list("tries", flat=True)) == tries
    for _ in range(30):
        now += FIRST_PAUSE * 4**MOST_TRIES
        send_waiting(now)
    assert set(Mail.objects.values_list("tries", "sent_at")) == {(MOST_TRIES, None)}


def test_once_the_server_is_back_the_mails_go(job, admins, refusing_port, settings):
    fail(job)
    send_waiting(LATER)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert send_waiting(LATER + FIRST_PAUSE) == 2
    assert send_waiting(LATER + 9 * FIRST_PAUSE) == 0


def test_an_address_that_is_refused_holds_up_no_other(job, admins, monkeypatch):
    fail(job)
    deliver = EmailBackend.send_messages

    def refuse(self, messages):
        if messages[0].to == ["ann@x.example"]:
            raise smtplib.SMTPRecipientsRefused({"ann@x.example": (550, b"no")})
        return deliver(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    assert send_waiting() == 1
    assert [one.to for one in outbox.outbox] == [["王@x.example"]]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://u:p%40w@mail.example", ("mail.example", 587, "u", "p@w", True, False)),
        ("smtps://mail.example", ("mail.example", 465, "", "", False, True)),
        ("smtp+plain://127.0.0.1:2525", ("127.0.0.1", 2525, "", "", False, False)),
    ],
)
def test_the_environment_says_where_mails_go(monkeypatch, url, expected):
    monkeypatch.setenv("CONCORD_MAIL_URL", url)
    monkeypatch.setenv("CONCORD_MAIL_FROM", "c@x.example")
    found = environment.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM")
    keys = ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_TLS", "USE_SSL")
    assert tuple(found[f"EMAIL_{key}"] for key in keys) == expected
    assert found["DEFAULT_FROM_EMAIL"] == "c@x.example"


def test_a_bad_mail_setting_stops_the_start_and_none_sends_nothing(monkeypatch):
    monkeypatch.delenv("CONCORD_MAIL_URL", raising=False)
    assert environment.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM") == {}
    monkeypatch.setenv("CONCORD_MAIL_URL", "smtp://mail.example")
    monkeypatch.delenv("CONCORD_MAIL_FROM", raising=False)
    with pytest.raises(ImproperlyConfigured, match="CONCORD_MAIL_FROM must be set"):
        environment.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM")
    monkeypatch.setenv("CONCORD_MAIL_FROM", "c@x.example")
    monkeypatch.setenv("CONCORD_MAIL_URL", "http://mail.example")
    with pytest.raises(ImproperlyConfigured, match="its scheme is 'http'"):
        environment.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM")
    monkeypatch.setenv("CONCORD_MAIL_URL", "console:")
    found = environment.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM")
    assert found["EMAIL_BACKEND"].endswith("console.EmailBackend")
