"""What two who write at the same moment must not do to each other, on the real database of the run.

Threads with connections of their own. SQLite has one writer, so there the second waits at once; on
PostgreSQL what is tested here is a lock.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.query import QuerySet

from annotation.errors import BadInput
from annotation.models import Preference, Prompt, TrainingJob
from annotation.services import jobs, ledger, snapshots, versions
from annotation.services.batches import change_batch, reopen_comparison, retire_comparison
from annotation.services.queue import claim_comparison, submit_preference
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_SECONDS = 30
IS_POSTGRES = "postgresql"


@pytest.fixture
def beside():
    """A function that runs another in a thread with its own connection; its Future."""
    with ThreadPoolExecutor(4) as pool:

        def start(work: Callable[[], Any]) -> "Future[Any]":
            def run() -> Any:
                try:
                    return work()
                finally:
                    connections.close_all()

            return pool.submit(run)

        yield start


def answer(lease) -> Preference:
    return submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")


def test_a_snapshot_waits_for_a_vote_with_a_lower_number_that_is_under_way(
    beside, settings, tmp_path
):
    settings.ARTIFACTS_DIR = tmp_path
    project = make_project()
    make_comparisons(project, 2)
    project.prompts.update(split="train")
    first, second = (claim_comparison(annotator=make_annotator(project)) for _ in range(2))
    taken, go = threading.Event(), threading.Event()

    def slow() -> int:
        with transaction.atomic():  # as a chunk of an import holds it
            pk = answer(first).pk
            taken.set()
            assert go.wait(PATIENCE_SECONDS)
        return int(pk)

    late = beside(slow)
    assert taken.wait(PATIENCE_SECONDS)
    if connection.vendor == IS_POSTGRES:
        answer(second)  # a higher number, committed before the lower one
    frozen = beside(lambda: snapshots.freeze(project=project, kind="comparisons"))
    if connection.vendor == IS_POSTGRES:
        _wait_until_somebody_waits_for_a_table()
        assert not frozen.done()
    go.set()
    late.result(PATIENCE_SECONDS)
    snapshot = frozen.result(PATIENCE_SECONDS)
    position = snapshot.ledger_position["preference"]
    held = {vote["preference"] for row in snapshots.rows_of(snapshot) for vote in row["votes"]}
    assert held == set(Preference.objects.filter(pk__lte=position).values_list("pk", flat=True))
    assert sum(snapshot.counts.values()) == len(held)


def _wait_until_somebody_waits_for_a_table() -> None:
    for _ in range(PATIENCE_SECONDS * 20):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'")
            if cursor.fetchone()[0]:
                return
        threading.Event().wait(0.05)
    raise AssertionError("nobody waits for a table")


def test_two_imports_do_not_part_a_group(beside):
    project = make_project()
    source = project.sources.get()
    has_read = threading.Event()

    def imported(split: str, wait: float) -> str:
        with transaction.atomic():
            prompt, _ = ledger.add_prompt(
                project=project,
                source=source,
                messages=[{"role": "user", "content": f"Asked for {split}?"}],
                split_group="tree 1",
                split=split,
            )
            has_read.set()
            threading.Event().wait(wait)  # the other one has time to do it wrong
            return str(prompt.split)

    one = beside(lambda: imported("train", 0.5))
    assert has_read.wait(PATIENCE_SECONDS)
    two = beside(lambda: imported("test", 0.0))
    assert one.result(PATIENCE_SECONDS) == two.result(PATIENCE_SECONDS) == "train"
    assert set(Prompt.objects.values_list("split", flat=True)) == {"train"}


@pytest.mark.parametrize("second", ["promoted", "asked for"])
def test_one_version_does_not_become_judge_and_reward_at_once(beside, settings, tmp_path, second):
    settings.ARTIFACTS_DIR = tmp_path
    project = make_project()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    version = versions.register_version(kind="reward", stage="registered", directory=tmp_path)
    is_judge = threading.Event()

    def as_judge() -> None:
        with transaction.atomic():
            versions.promote(project=project, slot="judge", version=version, verdict="by_admin")
            is_judge.set()
            threading.Event().wait(0.5)  # the other one has time to do it wrong

    def as_reward() -> None:
        if second == "promoted":
            versions.promote(project=project, slot="reward", version=version, verdict="by_admin")
        else:
            jobs.request_training(project=project, kind="ppo", reward=version)

    one = beside(as_judge)
    assert is_judge.wait(PATIENCE_SECONDS)
    two = beside(as_reward)
    one.result(PATIENCE_SECONDS)
    with pytest.raises(BadInput, match="is a judge, and a judge is never a reward"):
        two.result(PATIENCE_SECONDS)


def test_a_cancel_is_not_lost_to_a_worker_that_gives_the_job_back(beside, monkeypatch):
    project = make_project()
    job = jobs.request_training(project=project, kind="sft")
    job = jobs.claim_job(job_id=job.pk, worker="w")
    released: list[Future[Any]] = []
    plain = QuerySet.update

    def update(self: QuerySet[Any], **values: Any) -> int:
        """Whoever cancels is overtaken, or not, at their first write."""
        if self.model is TrainingJob and "cancel_requested_at" in values and not released:
            released.append(beside(lambda: jobs.release_job(job_id=job.pk, attempt=job.attempt)))
            threading.Event().wait(0.5)
        return plain(self, **values)

    monkeypatch.setattr(QuerySet, "update", update)
    jobs.cancel_job(job=job, by=None)
    assert released
    released[0].result(PATIENCE_SECONDS)
    job.refresh_from_db()
    assert (job.status, job.cancel_requested_at is not None) == ("cancelled", True)


@pytest.mark.parametrize("how", ["opens", "is put back"])
def test_what_opens_while_its_batch_changes_gets_what_the_batch_has_then(beside, how):
    project = make_project()
    [first] = make_comparisons(project)
    if how == "is put back":
        retire_comparison(comparison=first, by=None, reason="Wrong")
    is_open, go = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():  # as a chunk of an import holds it
            if how == "opens":
                make_comparisons(project)
            else:
                reopen_comparison(comparison=first, by=None)
            is_open.set()
            assert go.wait(PATIENCE_SECONDS)

    opening = beside(slow)
    assert is_open.wait(PATIENCE_SECONDS)
    changing = beside(lambda: change_batch(batch=first.batch, changes={"priority": 7}, by=None))
    threading.Event().wait(0.5)  # the change has time to overtake
    go.set()
    opening.result(PATIENCE_SECONDS)
    changing.result(PATIENCE_SECONDS)
    assert set(project.comparisons.values_list("priority", flat=True)) == {7}
