"""services.claims: of two who saw a row waiting one takes it; who was overtaken changes nothing."""

import pytest

from annotation.models import ExportOrder, OrderState
from annotation.services import claims
from tests.annotation.making import make_project


@pytest.fixture
def order(db):
    return ExportOrder.objects.create(project=make_project(), format="trl", files="jsonl")


def read(order) -> ExportOrder:
    return ExportOrder.objects.get(pk=order.pk)


def taken(order) -> ExportOrder:
    """By a worker that was not heard of since."""
    one = read(order)
    assert claims.claim(one)
    ExportOrder.objects.update(heartbeat_at="2000-01-01T00:00Z")
    return one


def test_of_two_who_saw_it_waiting_one_takes_it(order):
    first, second = read(order), read(order)
    assert claims.claim(first, rows_done=3)
    assert not claims.claim(second)
    now = read(order)
    assert (now.attempt, now.rows_done) == (first.attempt, first.rows_done) == (1, 3)


def test_whoever_speaks_again_before_it_is_taken_keeps_it(order):
    holder = taken(order)
    late = read(order)
    claims.pulse(holder, rows_done=5)
    assert not claims.claim(late)
    assert claims.lives(holder)
    assert (read(order).attempt, read(order).rows_done) == (1, 5)


def test_who_was_overtaken_changes_nothing(order):
    slow = taken(order)
    assert claims.claim(read(order))
    assert not claims.lives(slow, rows_done=9)
    assert not claims.let_go(slow, OrderState.DONE)
    with pytest.raises(claims.Lost):
        claims.pulse(slow, rows_done=9)
    now = read(order)
    assert (now.state, now.attempt, now.rows_done) == (OrderState.WAITING, 2, 0)


def test_what_was_let_go_unfinished_is_free_at_once(order):
    one = read(order)
    claims.claim(one)
    assert not ExportOrder.objects.filter(claims.is_unattended())
    assert claims.let_go(one, OrderState.WAITING)
    assert ExportOrder.objects.filter(claims.is_unattended()).get() == order
