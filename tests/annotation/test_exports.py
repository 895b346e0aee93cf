"""Exports that are ordered: quick ones at once, large ones by workers, each once."""

import os
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput
from annotation.exporters.folder import export_of, forget_parts
from annotation.models import DatasetSnapshot, ExportOrder, OrderState
from annotation.services import exports
from annotation.services.exports import order_export, waiting_orders, write_order
from annotation.services.jobs import Pulse
from annotation.services.ledger import add_completion, add_prompt, record_generation
from tests.annotation.making import make_project, make_user
from tests.annotation.voting import cast, compare

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return make_project("here", open_target=0)


@pytest.fixture
def large(project, monkeypatch):
    """Two votes, which are many here."""
    monkeypatch.setattr(exports, "SMALL", 1)
    for _ in range(2):
        cast(compare(project))
    return project


def rows_of(project, order):
    return sum(file["rows"] for file in export_of(project, order.export)["files"])


def test_of_a_small_project_it_is_ready_at_once(project):
    cast(compare(project))
    order = order_export(project=project, format="trl", by=make_user())
    assert (order.state, rows_of(project, order)) == (OrderState.DONE, 1)


def test_of_a_large_one_workers_write_what_was_there_when_it_was_ordered(large, artifacts):
    order = order_export(project=large, format="trl")
    assert (order.state, list(waiting_orders())) == (OrderState.WAITING, [order])
    assert not (artifacts / "exports").exists()
    cast(compare(large))
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, rows_of(large, order)) == (OrderState.DONE, 2)
    assert not waiting_orders()


def test_exactly_so_many_votes_are_few(project, monkeypatch):
    monkeypatch.setattr(exports, "SMALL", 1)
    cast(compare(project))
    assert order_export(project=project, format="trl").state == OrderState.DONE


def test_a_double_click_is_one_order(large):
    user = make_user()
    first = order_export(project=large, format="trl", query={"splits": ["train"]}, by=user)
    again = order_export(project=large, format="trl", query={"splits": ["train"]}, by=user)
    other = order_export(project=large, format="trl", query={"splits": ["dev"]}, by=user)
    assert (again, other.pk == first.pk) == (first, False)
    write_order(first.pk)
    write_order(first.pk)
    assert DatasetSnapshot.objects.count() == 1
    cast(compare(large))
    assert order_export(project=large, format="trl", query={"splits": ["train"]}, by=user) != first


def test_a_second_click_on_what_was_ready_at_once_makes_no_second_export(project):
    cast(compare(project))
    user = make_user()
    first = order_export(project=project, format="trl", by=user)
    assert order_export(project=project, format="trl", by=user) == first
    cast(compare(project))
    assert rows_of(project, order_export(project=project, format="trl", by=user)) == 2


def test_an_order_of_long_ago_is_no_second_click(large):
    first = order_export(project=large, format="trl")
    ExportOrder.objects.update(created_at=timezone.now() - timedelta(days=3))
    assert order_export(project=large, format="trl") != first


@pytest.mark.parametrize(("kind", "format"), [("sft", "sft"), ("prompts", "prompts")])
def test_ideal_answers_and_prompts_may_be_many_too(project, monkeypatch, kind, format):
    monkeypatch.setattr(exports, "SMALL", 1)
    for n in range(2):
        messages = [{"role": "user", "content": f"Question {n}?"}]
        source = project.sources.get()
        prompt, _ = add_prompt(project=project, source=source, messages=messages)
        answer, _ = add_completion(prompt=prompt, source=source, text="So.")
        record_generation(completion=answer, origin="demonstration", writer="expert")
    order = order_export(project=project, format=format, counts_only=True)
    assert order.state == OrderState.WAITING
    write_order(order.pk)
    order.refresh_from_db()
    assert sum(order.account["funnel"].values()) == 2


def test_a_full_disk_is_said_and_not_tried_again(large, monkeypatch, caplog):
    def full(**wish):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "make_export", full)
    order = order_export(project=large, format="trl")
    write_order(order.pk)
    order.refresh_from_db()
    assert order.state == OrderState.FAILED
    assert order.error == "It could not be written: OSError: [Errno 28] No space left on device"
    assert "Export order" in caplog.text


def test_a_heartbeat_keeps_an_order_alive_between_two_rows(large):
    """As workers.tasks beats; whoever was overtaken is told so."""
    order = order_export(project=large, format="trl")
    told = []

    @contextmanager
    def keep_alive(heartbeat):
        ExportOrder.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))
        told.append(heartbeat(step=1))
        told.append(list(waiting_orders()))
        ExportOrder.objects.update(attempt=2)
        told.append(heartbeat())
        ExportOrder.objects.update(attempt=1)
        yield

    write_order(order.pk, keep_alive=keep_alive)
    assert told == [Pulse.GO_ON, [], Pulse.FENCED_OFF]


def test_what_is_counted_freezes_nothing(large):
    order = order_export(project=large, format="comparisons", counts_only=True)
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, order.account["rows"]) == (OrderState.DONE, 2)
    assert order.account["funnel"]["trained"] == 2
    assert not DatasetSnapshot.objects.exists()


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"format": "pickle"}, "not|pickle"),
        ({"format": "trl", "files": "csv"}, "csv"),
        ({"format": "trl", "query": {"colour": ["red"]}}, "colour"),
        ({"format": "trl", "query": {"up_to": {"preference": 10**9}}}, "beyond"),
    ],
)
def test_nonsense_is_no_order(project, wish, reason):
    with pytest.raises(BadInput, match=reason):
        order_export(project=project, **wish)
    assert not ExportOrder.objects.exists()


def test_what_cannot_be_written_says_why(project):
    order = order_export(project=project, format="trl")
    assert (order.state, order.error) == (
        OrderState.FAILED,
        "There is nothing to export: the project has no vote yet.",
    )


def test_nobody_takes_what_another_is_at_until_that_one_falls_silent(large, settings):
    order = order_export(project=large, format="trl")
    now = timezone.now()
    ExportOrder.objects.update(attempt=1, heartbeat_at=now)
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (OrderState.WAITING, 1)
    silent = now - timedelta(seconds=settings.STALE_SECONDS + 1)
    ExportOrder.objects.update(heartbeat_at=silent)
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, order.attempt) == (OrderState.DONE, 2)


def test_an_order_whose_worker_always_vanishes_is_given_up(large, settings):
    order = order_export(project=large, format="trl")
    ExportOrder.objects.update(attempt=exports.MOST_ATTEMPTS)
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, order.error) == (OrderState.FAILED, exports.VANISHED % 3)


def test_a_writer_that_lost_its_order_leaves_nothing(large, monkeypatch, artifacts):
    """Another took it while this one was slow: its next pulse finds that."""
    monkeypatch.setattr(exports, "PULSE_SECONDS", 0.0)
    order = order_export(project=large, format="trl")
    make = exports.make_export

    def overtaken(**wish):
        ExportOrder.objects.update(attempt=2)
        return make(**wish)

    monkeypatch.setattr(exports, "make_export", overtaken)
    write_order(order.pk)
    order.refresh_from_db()
    assert (order.state, order.attempt, order.export) == (OrderState.WAITING, 2, "")
    assert not DatasetSnapshot.objects.exists()
    assert not [one for one in artifacts.rglob("*") if one.is_file()]


def test_the_pulse_tells_how_far_it_is(large, monkeypatch):
    monkeypatch.setattr(exports, "PULSE_SECONDS", 0.0)
    order = order_export(project=large, format="trl")
    write_order(order.pk)
    order.refresh_from_db()
    assert order.rows_done == 4  # two frozen, two written


def test_parts_of_a_dead_writer_go_after_a_day(artifacts):
    for name, age in (("old", 90_000), ("new", 60)):
        part = artifacts / "exports" / "1" / f".{name}.part-1"
        part.mkdir(parents=True)
        os.utime(part, (time.time() - age,) * 2)
    forget_parts()
    assert [one.name for one in (artifacts / "exports" / "1").iterdir()] == [".new.part-1"]
