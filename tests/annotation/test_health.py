"""Health: what machines ask, what an admin sees, and logs that machines read."""

import json
import logging
import sys
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from annotation import health
from annotation.logs import JsonLines
from annotation.management.commands.compile_translations import compile_file
from annotation.models import JobStatus, TrainingJob
from tests.annotation.test_translations import PO

pytestmark = pytest.mark.django_db


class Broker:
    """A Redis that holds so many hints in the queue `light`."""

    def __init__(self, light: int = 0) -> None:
        self.light = light

    def ping(self) -> bool:
        return True

    def llen(self, name: str) -> int:
        return self.light if name == "light" else 0


def test_a_process_that_answers_is_alive_without_a_database(client, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", None)
        answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")
    assert "no-store" in answer.headers["Cache-Control"]


def test_ready_means_that_a_page_can_be_served(client, monkeypatch, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/readyz")
    assert answer.status_code == 200  # workers wake later without a broker, and pages work
    assert answer.json()["parts"] == {
        "database": True,
        "migrations": True,
        "artifacts": True,
        "disk": answer.json()["parts"]["disk"],
        "broker": False,
    }
    settings.ARTIFACTS_DIR = tmp_path / "file"
    settings.ARTIFACTS_DIR.write_text("")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["artifacts"]) == (503, False)


def test_a_database_that_is_away_is_told_and_not_raised(monkeypatch):
    def away(*_args, **_kwargs):
        raise DatabaseError("connection refused")

    monkeypatch.setattr(connection, "cursor", away)
    found = health.parts()
    assert not health.is_ready(found)
    assert found[0].says == "DatabaseError: connection refused"


def test_an_admin_sees_queues_workers_and_who_does_not_listen(cast, enter, monkeypatch):
    monkeypatch.setattr(health, "_client", lambda: Broker(light=25))
    now = timezone.now()
    for number, (kind, status) in enumerate(
        [("sample", "queued"), ("reward", "running"), ("ppo", "done")]
    ):
        TrainingJob.objects.create(
            project=cast.project,
            kind=kind,
            status=status,
            worker="box:7" if status != JobStatus.QUEUED else "",
            heartbeat_at=now - timedelta(minutes=number) if status != JobStatus.QUEUED else None,
        )
    found = {queue.name: queue for queue in health.queues()}
    assert (found["training"].running, found["training"].queued) == (1, 0)
    assert (found["generate"].running, found["generate"].queued) == (0, 1)
    assert [name for name, queue in found.items() if queue.is_deaf] == ["light"]
    (worker,) = health.workers_seen()
    assert (worker.name, worker.jobs, worker.last_seen) == ("box:7", 2, now - timedelta(minutes=1))
    html = enter(cast.admin).get("/p/shop/health/").content.decode()
    assert "nobody listens" in html
    assert "box:7" in html
    assert enter(cast.reviewer).get("/p/shop/health/").status_code == 403


def test_a_log_line_is_one_json_object():
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logging.LogRecord(
            "workers", logging.ERROR, "f.py", 1, "Job %s\nfailed", (7,), sys.exc_info()
        )
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "workers", "Job 7\nfailed")
    assert line["traceback"].endswith("ValueError: no\nway")
    assert line["time"].endswith("+00:00")


def test_the_page_is_in_the_readers_language(cast, enter, monkeypatch, settings, tmp_path):
    compile_file(PO)
    settings.ARTIFACTS_DIR = tmp_path
    monkeypatch.setattr(health, "_client", lambda: Broker(light=0))
    client = enter(cast.admin)
    html = client.get("/p/shop/health/", headers={"Accept-Language": "zh-hans"}).content.decode()
    assert "可写" in html
    assert "剩余" in html
    assert not [word for word in ("writable", "free", "applied") if word in html]
    settings.ARTIFACTS_DIR = tmp_path / "file"
    settings.ARTIFACTS_DIR.write_text("")
    html = client.get("/p/shop/health/").content.decode()
    assert f"cannot be written: {settings.ARTIFACTS_DIR}" in html
