"""The event stream of a turn over HTTP, for the page and the API alike."""

import redis
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse

from annotation.events import can_stream, event_stream
from annotation.models import LiveTurn, TurnState, User
from annotation.services.live_seats import MAX_SEATS, Seat
from annotation.services.live_stream import events

AT_WORK = (TurnState.WAITING, TurnState.WRITING)


def turn_events(request: HttpRequest, turn: LiveTurn, user: User) -> HttpResponse:
    """The events; 204, which tells a browser not to ask again, where there are none to be had, and
    429 for a user who holds too many streams. Whoever gets no stream asks for the turn instead."""
    if not can_stream(request):
        return HttpResponse(status=204)
    seat = Seat(user.pk)
    try:
        is_free = seat.take()
    except (redis.RedisError, OSError):
        return HttpResponse(status=204)
    if not is_free:
        words = f"You hold {MAX_SEATS} streams already: close another page first."
        return HttpResponse(words, status=429, content_type="text/plain; charset=utf-8")

    look = sync_to_async(_is_settled, thread_sensitive=False)
    source = events(
        turn.pk,
        request.headers.get("Last-Event-ID", ""),
        is_settled=lambda: look(turn.pk),
        seat=seat,
    )
    return event_stream(request, source)


def _is_settled(turn_id: int) -> bool:
    """Looked up in a thread of the pool, which keeps no connection for it."""
    try:
        return not LiveTurn.objects.filter(pk=turn_id, state__in=AT_WORK).exists()
    finally:
        connection.close()
