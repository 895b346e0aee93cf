"""Two tabs and two workers at the same moment, on the real database of the run."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from annotation.errors import Conflict
from annotation.models import Comparison, LiveThread, LiveTurn, Preference, Prompt
from annotation.services import live, live_turns
from tests.annotation.live_world import make_chat, ready_turn, start
from tests.annotation.making import require_invariant
from tests.annotation.test_live import FIRST, SECOND

pytestmark = pytest.mark.django_db(transaction=True)
AT_ONCE = 6


def at_once(act: Callable[[int], Any]) -> list[Any]:
    """What `act` gives, or the Conflict it raises, in threads that start together."""
    barrier = threading.Barrier(AT_ONCE)

    def run(number: int) -> Any:
        try:
            barrier.wait(30)
            return act(number)
        except Conflict as conflict:
            return conflict
        finally:
            connections.close_all()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, range(AT_ONCE)))


def test_of_many_workers_one_has_the_turn():
    _project, annotator = make_chat()
    turn = start(annotator).turns.get()
    claimed = at_once(lambda n: live_turns.claim_turn(turn_id=turn.pk, worker=f"w{n}"))
    assert [one.attempt for one in claimed if one] == [1]


def test_a_choice_in_many_tabs_is_one_answer():
    project, annotator = make_chat()
    turn = ready_turn(annotator)
    chosen = at_once(
        lambda n: live.choose(turn=turn, answer=FIRST if n % 2 else SECOND, key=f"tab {n}")
    )
    assert sum(isinstance(one, LiveTurn) for one in chosen) == 1
    assert Preference.objects.count() == Comparison.objects.count() == Prompt.objects.count() == 1
    require_invariant(project)


def test_a_choice_that_is_sent_again_and_again_is_one_answer():
    project, annotator = make_chat()
    turn = ready_turn(annotator)
    chosen = at_once(lambda n: live.choose(turn=turn, answer=FIRST, key="the same"))
    assert len({one.preference_id for one in chosen}) == 1
    require_invariant(project)


def test_a_message_in_many_tabs_is_one_turn():
    _project, annotator = make_chat()
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=FIRST, key="k")
    thread = turn.thread
    said = at_once(lambda n: live.say(thread=thread, message=f"From tab {n}", key=f"tab {n}"))
    assert sum(isinstance(one, LiveTurn) for one in said) == 1
    assert thread.turns.count() == 2


def test_the_days_limit_holds_in_many_tabs():
    _project, annotator = make_chat(max_threads_per_day=2)
    at_once(lambda n: start(annotator))
    assert LiveThread.objects.count() == 2


def test_a_choice_and_an_end_leave_all_of_it_or_nothing():
    project, annotator = make_chat()
    turn = ready_turn(annotator)

    def act(number: int) -> Any:
        if number % 2:
            return live.end_thread(thread=turn.thread)
        return live.choose(turn=turn, answer=FIRST, key="k")

    at_once(act)
    turn.refresh_from_db()
    assert turn.state in ("chosen", "dropped")
    assert Preference.objects.count() == Prompt.objects.count() == (turn.state == "chosen")
    require_invariant(project)
