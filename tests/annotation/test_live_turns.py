"""services.live_turns: one worker at a time, and a late one changes nothing."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import LiveTurn
from annotation.services import live, live_turns
from annotation.services.jobs import MAX_LOST_ATTEMPTS, Pulse
from tests.annotation.live_world import make_chat, start, whole

pytestmark = pytest.mark.django_db
LATER = timedelta(seconds=3600)


@pytest.fixture
def turn() -> LiveTurn:
    _project, annotator = make_chat()
    return start(annotator).turns.get()


def claim(turn: LiveTurn) -> LiveTurn | None:
    return live_turns.claim_turn(turn_id=turn.pk, worker="w")


def go_stale(turn: LiveTurn) -> None:
    assert live_turns.requeue_stale_turns(now=timezone.now() + LATER) == [turn.pk]


def finish(turn: LiveTurn, attempt: int, a: str = "A.", b: str = "B.") -> str | None:
    return live_turns.finish_turn(turn_id=turn.pk, attempt=attempt, whole=whole(a, b))


def test_a_turn_is_claimed_once(turn):
    assert list(live_turns.waiting_turns()) == [turn]
    held = claim(turn)
    assert (held.attempt, held.state) == (1, "writing")
    assert claim(turn) is None
    assert not live_turns.waiting_turns().exists()


def test_a_worker_that_lives_keeps_its_turn(turn):
    held = claim(turn)
    assert live_turns.requeue_stale_turns() == []
    later = timezone.now() + LATER
    assert live_turns.heartbeat(turn_id=turn.pk, attempt=held.attempt, now=later) is Pulse.GO_ON
    assert live_turns.requeue_stale_turns(now=later) == []


def test_a_worker_that_was_thought_dead_changes_nothing(turn):
    first = claim(turn)
    go_stale(turn)
    second = claim(turn)
    assert second.attempt == 2
    assert live_turns.heartbeat(turn_id=turn.pk, attempt=first.attempt) is Pulse.FENCED_OFF
    assert finish(turn, first.attempt, "Late.", "Too late.") is None
    assert not live_turns.fail_turn(turn_id=turn.pk, attempt=first.attempt, error="late")
    assert not live_turns.release_turn(turn_id=turn.pk, attempt=first.attempt)
    assert not turn.answers.exclude(text="").exists()
    assert finish(turn, second.attempt) == "ready"
    assert finish(turn, first.attempt, "Late.", "Too late.") is None
    assert set(turn.answers.values_list("text", flat=True)) == {"A.", "B."}


def test_given_back_it_waits_again(turn):
    held = claim(turn)
    assert live_turns.release_turn(turn_id=turn.pk, attempt=held.attempt)
    assert list(live_turns.waiting_turns()) == [turn]


def test_one_that_loses_its_worker_again_and_again_fails_and_may_be_asked_again(turn):
    for _ in range(MAX_LOST_ATTEMPTS):
        assert claim(turn)
        go_stale(turn)
    turn.refresh_from_db()
    assert turn.state == "failed"
    assert f"vanished {MAX_LOST_ATTEMPTS} times" in turn.error
    live.ask_again(turn=turn)
    assert (turn.state, turn.draw, turn.error) == ("waiting", 1, "")
    assert claim(turn)


def test_a_blank_answer_fails_the_turn(turn):
    held = claim(turn)
    assert finish(turn, held.attempt, "A.", " \n") == "failed"
    turn.refresh_from_db()
    assert (turn.state, turn.error) == ("failed", "A model wrote nothing at all.")


def test_nearly_the_same_is_alike_where_the_project_says_so(turn):
    held = claim(turn)
    project = held.thread.project
    near, leak = ("It is here, today.", "It is here today"), "I am ChatGPT, made by OpenAI."
    assert not live_turns.is_worth_another_draw(project, ("Yes.", "No."))
    assert live_turns.is_worth_another_draw(project, ("Yes.", " "))
    for caught in (True, False):
        project.catch_alike = project.catch_leaks = caught
        assert live_turns.is_worth_another_draw(project, near) is caught
        assert live_turns.is_worth_another_draw(project, ("Hello!", leak)) is caught
    project.catch_alike = True
    project.save()
    assert finish(turn, held.attempt, *near) == "alike"
    turn.refresh_from_db()
    assert turn.continued_with == turn.answers.get(place=1).text


def test_what_no_database_holds_is_replaced(turn):
    held = claim(turn)
    assert finish(turn, held.attempt, "A\x00.", "B.") == "ready"
    assert turn.answers.get(side="a").text == "A\ufffd."


def test_a_thread_that_ends_takes_its_turn_from_the_worker(turn):
    held = claim(turn)
    live.end_thread(thread=turn.thread)
    assert live_turns.heartbeat(turn_id=turn.pk, attempt=held.attempt) is Pulse.FENCED_OFF
    assert finish(turn, held.attempt) is None
    turn.refresh_from_db()
    assert turn.state == "dropped"
