"""The tasks: thin, and safe to run twice. What they do is said in the module that each calls."""

import logging
from functools import partial
from typing import Any

from celery import signals
from celery.worker import WorkController
from kombu.connection import Connection

from annotation.exporters.folder import forget_parts
from annotation.models import JobKind, Project
from annotation.services import (
    exports,
    forgetting,
    imports,
    jobs,
    live_turns,
    mails,
    queue,
    scores,
    studies,
    versions,
    voiding,
)
from workers.beating import Beating
from workers.celery import MESSAGE_SECONDS, app
from workers.launch import shutting_down
from workers.retraining import request_what_is_due
from workers.topup import request_top_up
from workers.training import run_training_job
from workers.wake import Listener

RUN_SAMPLE, JUDGE = "workers.model_tasks.run_sample", "workers.model_tasks.judge"
SCORE, STUDY = "workers.model_tasks.score", "workers.model_tasks.study"
ANSWER = "workers.model_tasks.answer"
"""By name: importing them would load torch."""
MAX_BACKLOG = 10
"""A busy worker's queue is not filled further: each tick would add the same messages again."""
log = logging.getLogger(__name__)


@app.task
def run_training(_job_id: int) -> None:
    """One attempt at the oldest pretrain, sft, reward or ppo job that may start.

    The job that the message names is why it was sent: messages of a busy hour come in any order.
    """
    if shutting_down.is_set():
        return
    if job := jobs.startable_jobs().exclude(kind=JobKind.SAMPLE).first():
        run_training_job(job.pk)


@app.task
def import_file(import_id: int) -> None:
    """Look at a file that was handed in, or import it."""
    imports.work_on(import_id)


@app.task
def write_export(order_id: int) -> None:
    """Write an export that was ordered."""
    beating = partial(Beating, name=f"export order {order_id}")
    exports.write_order(order_id, keep_alive=beating)


@app.task
def replace_datasets(forgotten_id: int) -> None:
    """Replace the datasets that hold somebody whose data was deleted."""
    forgetting.replace_all(forgotten_id)


@app.task
def dispatch() -> None:
    """Send what the ledger says is to be done: turns of chats, jobs, files in and out, versions to
    judge, scores, studies."""
    with app.connection_for_write() as connection:
        for turn in live_turns.waiting_turns()[:MAX_BACKLOG]:
            send(connection, ANSWER, "live", turn.pk)
        for job in jobs.startable_jobs():
            if job.kind == JobKind.SAMPLE:
                send(connection, RUN_SAMPLE, "generate", job.pk)
            else:
                send(connection, run_training.name, "training", job.pk)
        for one in imports.waiting_imports()[:MAX_BACKLOG]:
            send(connection, import_file.name, "files", one.pk)
        for order in exports.waiting_orders()[:MAX_BACKLOG]:
            send(connection, write_export.name, "files", order.pk)
        for made in forgetting.unfinished()[:MAX_BACKLOG]:
            send(connection, replace_datasets.name, "files", made.pk)
        for version in versions.versions_without_verdict():
            send(connection, JUDGE, "generate", version.pk)
        for project in scores.projects_to_score():
            send(connection, SCORE, "generate", project.pk)
        for study in studies.waiting_studies()[:MAX_BACKLOG]:
            send(connection, STUDY, "generate", study.pk)


def send(connection: Connection, task: str, queue_name: str, row_id: int) -> None:
    """Send a message that dies before long; while its row stands, the next tick sends another."""
    # declared, not only asked for: its worker may not have started yet
    backlog = connection.default_channel.queue_declare(queue_name).message_count
    if backlog < MAX_BACKLOG:
        app.send_task(
            task,
            [row_id],
            queue=queue_name,
            expires=MESSAGE_SECONDS,
            connection=connection,
        )


@app.task
def requeue_stale_jobs() -> None:
    """Jobs and turns whose worker fell silent wait again; files that nobody imported go, and what
    was left half exported."""
    jobs.requeue_stale()
    live_turns.requeue_stale_turns()
    imports.forget_old_files()
    forget_parts()


@app.task
def look_what_is_due() -> None:
    """Reward jobs by rule, PPO after a new reward model, comparisons to write."""
    for project in Project.objects.all():
        try:
            request_what_is_due(project)
            request_top_up(project)
        except Exception:  # of one project, which the others must not wait for
            log.exception("Project %s: what is due could not be asked for", project.slug)


@app.task
def sweep_leases() -> None:
    """Give back the slots of expired leases."""
    queue.sweep_expired_leases()


@app.task
def send_mails() -> None:
    """What admins are to be told."""
    mails.send_waiting()


@app.task
def carry_on_voids() -> None:
    """Go on with orders to void an annotator's answers."""
    voiding.carry_on_all()


@signals.worker_ready.connect
def listen_for_hints(sender: WorkController, **_: Any) -> None:
    """The worker of the light queue hears the web's hints."""
    if "light" in sender.app.amqp.queues.consume_from:
        Listener(lambda: dispatch.apply_async(expires=MESSAGE_SECONDS)).start()


@signals.worker_shutting_down.connect
def tell_the_trainer(**_: Any) -> None:
    """In the solo pool this runs amid a task, whose loop then stops its trainer."""
    shutting_down.set()
