"""Turns as workers see them: found, claimed, kept alive, given back whole.

    waiting -> writing -> ready | alike | failed
       ^          |
       +----------+   released by a worker that shuts down, or found stale

Like a TrainingJob's, every update of a turn at work asks for its attempt number: a worker that was
thought dead and was not finds itself fenced off and changes nothing. A thread that ends takes its
open turn out of every worker's hands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from annotation.leaks import identity_leak, near_identical
from annotation.models import LiveAnswer, LiveTurn, Project, TurnState
from annotation.services.hints import wake_workers_on_commit
from annotation.services.jobs import MAX_LOST_ATTEMPTS, Pulse

SIDES = ("a", "b")


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeAnswer:
    """One side's answer, as it was written."""

    text: str
    seed: int
    sampling: Mapping[str, Any]
    finish_reason: str


def waiting_turns() -> QuerySet[LiveTurn]:
    """Turns that a worker could claim now, the longest waiting first."""
    return LiveTurn.objects.filter(state=TurnState.WAITING).order_by("pk")


def claim_turn(*, turn_id: int, worker: str, now: datetime | None = None) -> LiveTurn | None:
    """Take a waiting turn. None if it is not to be had.

    The turn returned carries the attempt number that every later call must show.
    """
    claimed = LiveTurn.objects.filter(pk=turn_id, state=TurnState.WAITING).update(
        state=TurnState.WRITING,
        attempt=F("attempt") + 1,
        worker=worker,
        heartbeat_at=now or timezone.now(),
    )
    if not claimed:
        return None
    return LiveTurn.objects.select_related(
        "thread__project", "thread__version_a", "thread__version_b"
    ).get(pk=turn_id)


def _held(turn_id: int, attempt: int) -> QuerySet[LiveTurn]:
    """The turn while this attempt holds it, else nothing: the fence."""
    return LiveTurn.objects.filter(pk=turn_id, attempt=attempt, state=TurnState.WRITING)


def heartbeat(*, turn_id: int, attempt: int, now: datetime | None = None) -> Pulse:
    """Say that the attempt lives."""
    alive = _held(turn_id, attempt).update(heartbeat_at=now or timezone.now())
    return Pulse.GO_ON if alive else Pulse.FENCED_OFF


def is_worth_another_draw(project: Project, texts: Sequence[str]) -> bool:
    """Whether both answers should be drawn once more: they are alike, one of them is blank, or
    names its maker where the project catches that."""
    if not all(text.strip() for text in texts) or _are_alike(project, *texts):
        return True
    return project.catch_leaks and any(identity_leak(text) for text in texts)


def _are_alike(project: Project, one: str, other: str) -> bool:
    """The same text, or nearly so where the project catches that."""
    if one.strip() == other.strip():
        return True
    return project.catch_alike and near_identical(one, other)


@transaction.atomic
def finish_turn(*, turn_id: int, attempt: int, whole: Mapping[str, WholeAnswer]) -> str | None:
    """Give both answers back, by side; the state that the turn is in then. None if fenced off.

    Two answers that are alike leave nothing to compare: the thread goes on from the left one. One
    that is blank fails the turn.
    """
    texts = {side: storable(whole[side].text) for side in SIDES}
    if not all(text.strip() for text in texts.values()):
        error = "A model wrote nothing at all."
        return (
            TurnState.FAILED if fail_turn(turn_id=turn_id, attempt=attempt, error=error) else None
        )
    turn = LiveTurn.objects.select_related("thread__project").get(pk=turn_id)
    is_alike = _are_alike(turn.thread.project, *texts.values())
    left = turn.answers.get(place=1).side
    state = TurnState.ALIKE if is_alike else TurnState.READY
    ended = _held(turn_id, attempt).update(
        state=state,
        ready_at=timezone.now(),
        error="",
        continued_with=texts[left] if is_alike else "",
    )
    if not ended:
        return None
    for side in SIDES:
        LiveAnswer.objects.filter(turn=turn_id, side=side).update(
            text=texts[side],
            seed=whole[side].seed,
            sampling=dict(whole[side].sampling),
            finish_reason=whole[side].finish_reason[:10],
        )
    return state


def fail_turn(*, turn_id: int, attempt: int, error: str) -> bool:
    """End a turn with the sentence that says why. False if the attempt is fenced off."""
    error = storable(error)[:2000]
    return bool(_held(turn_id, attempt).update(state=TurnState.FAILED, error=error))


def storable(text: str) -> str:
    """What a model wrote, as PostgreSQL takes it: no NUL."""
    return text.replace("\x00", "\ufffd")


@transaction.atomic
def release_turn(*, turn_id: int, attempt: int) -> bool:
    """Give a turn back because its worker shuts down. False if the attempt is fenced off."""
    released = _held(turn_id, attempt).update(state=TurnState.WAITING, worker="", heartbeat_at=None)
    if released:
        wake_workers_on_commit()
    return bool(released)


def requeue_stale_turns(*, now: datetime | None = None) -> list[int]:
    """Turns whose worker fell silent wait again; their ids.

    Silent means no heartbeat for settings.STALE_SECONDS. One that lost its worker
    MAX_LOST_ATTEMPTS times fails.
    """
    silent_since = (now or timezone.now()) - timedelta(seconds=settings.STALE_SECONDS)
    stale = LiveTurn.objects.filter(state=TurnState.WRITING, heartbeat_at__lt=silent_since)
    return [turn.pk for turn in stale if _take_away(turn, silent_since)]


@transaction.atomic
def _take_away(turn: LiveTurn, silent_since: datetime) -> bool:
    lost = turn.lost_attempts + 1
    changes: dict[str, Any] = {"lost_attempts": lost, "worker": "", "heartbeat_at": None}
    if lost >= MAX_LOST_ATTEMPTS:
        changes |= {
            "state": TurnState.FAILED,
            "error": f"The worker vanished {lost} times over this turn; it is not tried again.",
        }
    else:
        changes["state"] = TurnState.WAITING
    taken = _held(turn.pk, turn.attempt).filter(heartbeat_at__lt=silent_since).update(**changes)
    if taken:
        wake_workers_on_commit()
    return bool(taken)
