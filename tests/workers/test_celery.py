"""workers.celery and what the light workers load; hints that wake them."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from annotation.services import hints
from tests.workers.conftest import Installation, procfile_lines, wait_for
from workers import tasks
from workers.celery import app, broker_url
from workers.wake import Listener

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("ours", "kombus"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_the_brokers_address_in_kombus_spelling(ours, kombus):
    assert broker_url(ours) == kombus


def test_every_task_of_the_schedule_exists():
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled <= set(app.tasks)
    assert {name.rpartition(".")[2] for name in scheduled} == {
        "dispatch",
        "carry_on_voids",
        "requeue_stale_jobs",
        "look_what_is_due",
        "send_mails",
        "sweep_leases",
    }


def test_only_the_generate_worker_loads_torch():
    code = (
        "import sys, workers.celery, workers.tasks\n"
        "assert 'torch' not in sys.modules\n"
        "import workers.model_tasks\n"
        "from workers.celery import app\n"
        "print(workers.tasks.RUN_SAMPLE in app.tasks, workers.tasks.JUDGE in app.tasks)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": "", "HOME": "/nonexistent"},
        check=False,
    )
    assert done.stdout.strip() == "True True", done.stderr
    assert "-I workers.model_tasks" in procfile_lines()["generate"]


@pytest.fixture
def own_redis(installation: Installation, settings) -> redis.Redis:
    settings.REDIS_URL = installation.redis_url
    return redis.Redis.from_url(installation.redis_url)


@pytest.mark.celery
def test_a_hint_wakes_the_listener_and_many_hints_wake_it_once_or_twice(own_redis, monkeypatch):
    monkeypatch.setattr(hints, "WAKE_KEY", "test:wake")
    monkeypatch.setattr("workers.wake.WAKE_KEY", "test:wake")
    woken = []
    calls = threading.Event()

    def wake():
        woken.append(1)
        calls.set()

    for _ in range(20):
        assert hints.wake_workers()
    assert own_redis.llen("test:wake") == hints.MAX_WAITING
    listener = Listener(wake)
    listener.start()
    assert calls.wait(20)
    wait_for(lambda: own_redis.llen("test:wake") == 0, "the list to be empty")
    listener.stop()
    listener.join(20)
    assert len(woken) == 1


@pytest.mark.celery
def test_a_busy_queue_is_not_filled_further(own_redis, settings):
    with app.connection_for_write(broker_url(settings.REDIS_URL)) as connection:
        for _ in range(tasks.MAX_BACKLOG + 5):
            tasks.send(connection, "workers.tasks.run_training", "nobody-listens", 1)
    assert own_redis.llen("nobody-listens") == tasks.MAX_BACKLOG
