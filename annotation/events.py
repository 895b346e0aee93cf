"""Server-sent events behind Django's own request handling.

Under ASGI Django keeps a thread, and in it a database connection, for every response that is not
finished. So a view that streams answers at once, with its headers and an empty body, and leaves the
events here: they are sent after Django is through with the request, session, membership and
security headers included.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse

SLOT = "concord.events"
"""Of the ASGI scope: where a view leaves its events."""

Message = Any
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Application = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


def can_stream(request: HttpRequest) -> bool:
    """Whether this server sends events: one behind EventStreams does, WSGI doesn't."""
    return isinstance(request, ASGIRequest) and SLOT in request.scope


def event_stream(request: HttpRequest, source: AsyncIterator[bytes]) -> HttpResponse:
    """The response to a request for events, which can_stream has looked at."""
    assert isinstance(request, ASGIRequest)
    request.scope[SLOT].append(source)
    return HttpResponse(
        content_type="text/event-stream; charset=utf-8",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class EventStreams:
    """ASGI application around Django's."""

    def __init__(self, django: Application) -> None:
        self.django = django

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.django(scope, receive, send)
            return
        left: list[AsyncIterator[bytes]] = []
        start: Message | None = None

        async def keep_back(message: Message) -> None:
            nonlocal start
            if not left:
                await send(message)
            elif message["type"] == "http.response.start":
                start = message

        await self.django({**scope, SLOT: left}, receive, keep_back)
        if left and start is not None:
            headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
            await send({**start, "headers": headers})
            await _send_until_gone(left[0], receive, send)


async def _send_until_gone(source: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send the events to their end, or to the moment when nobody listens any more."""

    async def send_all() -> None:
        async for piece in source:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def be_left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(send_all()), asyncio.create_task(be_left())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
