"""A turn's text on its way from the worker to the page: a Redis stream per turn.

Best effort, like hints: the row is what counts. A stream that is lost costs the reader the sight of
the answers being written, and nothing else. Entries carry the attempt that wrote them; a reader
drops what an older attempt says after a newer one has begun.

    begin  an attempt starts, or writes both answers anew: what was shown is void
    piece  place 1 or 2, and the text that follows there
    end    the turn is settled; the row says how
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import redis
import redis.asyncio
from django.conf import settings

from annotation.services.live_seats import WAIT_SECONDS, Seat

TIMEOUT_SECONDS = 0.2
"""A writer waits for Redis no longer than a hint does."""
FLUSH_SECONDS = 0.05
"""Pieces are put together for so long: a page needs no more than twenty a second."""
KEPT_SECONDS = 3600
"""A stream outlives its turn for who comes late; the row has the whole text anyway."""
MAX_ENTRIES = 20_000
READ_AT_ONCE = 500

log = logging.getLogger(__name__)


def stream_key(turn_id: int) -> str:
    """The Redis stream of a turn."""
    return f"concord:live:{turn_id}"


class Publisher:
    """What a worker says of one attempt at a turn; never raises, and hardly keeps it waiting."""

    def __init__(self, turn_id: int, attempt: int) -> None:
        self.key, self.attempt = stream_key(turn_id), attempt
        self.client = redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self.is_broken = False
        """A piece was lost: the rest would make no sense, so only the end is told."""
        self._held = {1: "", 2: ""}
        self._flushed_at = 0.0

    def begin(self) -> None:
        """Both answers start, or start again."""
        self._held = {1: "", 2: ""}
        self._send({"kind": "begin"})

    def piece(self, place: int, text: str) -> None:
        """Text that follows at a place; sent with what comes soon after."""
        self._held[place] += text
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is held, the left one first."""
        self._flushed_at = time.monotonic()
        for place, text in self._held.items():
            if text and not self.is_broken:
                self._send({"kind": "piece", "place": place, "text": text})
        self._held = {1: "", 2: ""}

    def end(self) -> None:
        """The row is settled; call it after that is in the ledger."""
        self.flush()
        self._send({"kind": "end"})
        self.client.close()

    def _send(self, entry: dict[str, Any]) -> None:
        try:
            with self.client.pipeline(transaction=False) as pipeline:
                fields: dict[Any, Any] = {"attempt": self.attempt, **entry}
                pipeline.xadd(self.key, fields, maxlen=MAX_ENTRIES, approximate=True)
                pipeline.expire(self.key, KEPT_SECONDS)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self.is_broken = True
            log.info("%s: the page is not told: %s", self.key, error)


class Place(NamedTuple):
    """How far a reader has come: the newest attempt it saw, and the id of the last entry."""

    attempt: int
    entry: str

    @classmethod
    def of(cls, last_event_id: str) -> "Place":
        """As a browser sends it back; the beginning for anything else."""
        attempt, _dot, entry = last_event_id.partition(".")
        left, _dash, right = entry.partition("-")
        numbers = (attempt, left, right)
        if all(one.isascii() and one.isdigit() and len(one) <= 18 for one in numbers):
            return cls(int(attempt), entry)
        return cls(0, "0-0")

    def __str__(self) -> str:
        return f"{self.attempt}.{self.entry}"


async def events(
    turn_id: int,
    last_event_id: str,
    *,
    is_settled: Callable[[], Awaitable[bool]],
    seat: Seat,
) -> AsyncIterator[bytes]:
    """Server-sent events of a turn, from where the reader was, until the turn is settled.

    is_settled: looks at the row, at the start, before the end, and whenever nothing was heard for a
    while; no thread and no database connection is held in between. The last event is `end`, or
    `lost` where Redis went away: ask for the row.
    """
    place = Place.of(last_event_id)
    yield b"retry: 1000\n\n"
    try:
        async with redis.asyncio.Redis.from_url(
            settings.REDIS_URL, decode_responses=True, socket_timeout=2 * WAIT_SECONDS
        ) as client:
            try:
                settled = await is_settled()
                while True:
                    await seat.keep(client)
                    wait = None if settled else WAIT_SECONDS * 1000
                    key = stream_key(turn_id)
                    found: Any = await client.xread({key: place.entry}, READ_AT_ONCE, wait)
                    for entry_id, fields in found[0][1] if found else []:
                        attempt = int(fields["attempt"])
                        place, before = Place(max(attempt, place.attempt), entry_id), place.attempt
                        if fields["kind"] == "end":
                            settled = await is_settled()
                        elif attempt >= before:  # else a worker that was thought dead still talks
                            yield _event(place, fields)
                    if not found and settled:
                        yield b"event: end\ndata: {}\n\n"
                        return
                    if not found:
                        yield b": nothing new\n\n"
                        settled = await is_settled()
            finally:
                await seat.leave(client)
    except (redis.RedisError, OSError) as error:
        log.info("Turn %s: its stream is lost: %s", turn_id, error)
        yield b"event: lost\ndata: {}\n\n"


def _event(place: Place, fields: dict[str, str]) -> bytes:
    if fields["kind"] == "begin":
        data = "{}"
    else:
        data = json.dumps({"place": int(fields["place"]), "text": fields["text"]})
    return f"id: {place}\nevent: {fields['kind']}\ndata: {data}\n\n".encode()
