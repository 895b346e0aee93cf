"""The Celery app on one page: the broker, the queues, the schedule.

    training   pretrain, sft, reward, ppo: one trainer at a time
    generate   sample, and the gates: keeps models loaded between tasks (-I workers.model_tasks)
    live       turns of a chat, with the same tasks: somebody waits, so no sample job is before them
    files      what people handed in to be imported, large exports, and datasets to be replaced
               where somebody's data was deleted, one at a time
    light      the ticks below

Every worker runs with `--pool solo`. A task then runs in the process that gets the signals, so that
a shutdown reaches the trainer, and a killed worker leaves no child that goes on without it.

The row is the message: a task carries an id, is acknowledged before it runs, and claims its row
with a conditional update. So a message lost, late or delivered twice does no harm, and Redis may
vanish and come back empty: the next tick finds what is to be done in the ledger.
"""

import os
from urllib.parse import parse_qs, urlsplit

import django
from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
django.setup()


def broker_url(redis_url: str) -> str:
    """kombu's spelling of our REDIS_URL: unix:///path?db=1 is redis+socket:///path there."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


MESSAGE_SECONDS = 60 + 2 * settings.TICK_SECONDS
"""A message that nobody took dies, for the ticks go on; clocks of machines may differ by less."""


def every(task: str, seconds: float) -> dict[str, object]:
    """A beat entry."""
    return {
        "task": f"workers.tasks.{task}",
        "schedule": seconds,
        "options": {"queue": "light", "expires": MESSAGE_SECONDS},
    }


app = Celery("concord", broker=broker_url(settings.REDIS_URL), include=["workers.tasks"])
app.conf.update(
    beat_schedule={
        "dispatch": every("dispatch", settings.TICK_SECONDS),
        "requeue the stale": every("requeue_stale_jobs", settings.TICK_SECONDS),
        "is anything due": every("look_what_is_due", settings.TICK_SECONDS),
        "go on voiding": every("carry_on_voids", settings.TICK_SECONDS),
        "send mails": every("send_mails", settings.TICK_SECONDS),
        "sweep leases": every("sweep_leases", max(10, settings.TICK_SECONDS)),
    },
    task_default_queue="light",
    task_acks_late=False,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    # A message that can't be sent is the next tick's business, not a reason to wait.
    task_publish_retry=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Redelivery of what a dead worker had taken and not started; a claim refuses what is stale.
    broker_transport_options={"visibility_timeout": 3600},
    timezone="UTC",
)
