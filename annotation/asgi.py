"""ASGI entry point of the web process: views in a few threads, streams on the event loop.

Under ASGI Django moves each request to a thread and back for every middleware, and takes a new
thread, so a new database connection, for each request. Here a request changes threads once:
middleware and view run in one of WEB_THREADS, which stay. A view that streams hands back an async
iterator, which the event loop sends without holding a thread.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import close_old_connections
from django.http import FileResponse, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from annotation.events import EventStreams
from annotation.garbage import spare_what_stays

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


FORM_BYTES = 1 << 20
"""Of a form around the file that it hands in."""


def _says_bytes(scope: Any) -> int:
    """The length of a request's body by its header; a server takes no body without one but in
    pieces, and hands these on as they come."""
    said = dict(scope["headers"]).get(b"content-length", b"")
    return int(said) if said.isdigit() else 0


class Bounded:
    """Hands on the messages of a body, and no more of it once it is too large, whatever its header
    says: a body in pieces has none."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._left = receive, most_bytes

    @property
    def is_too_large(self) -> bool:
        """Whether more came than may."""
        return self._left < 0

    async def __call__(self) -> Any:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_too_large else message


class Handler(ASGIHandler):
    """Django's handler, with one change of threads per request."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=False)
        self.threads = ThreadPoolExecutor(settings.WEB_THREADS, thread_name_prefix="web")

    async def handle(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; one whose body is larger than any may be is not read, or no further
        than that."""
        most_bytes = settings.UPLOAD_BYTES + FORM_BYTES
        if _says_bytes(scope) > most_bytes:
            await self.refuse(send)
            return
        bounded = Bounded(receive, most_bytes)
        try:
            body = await self.read_body(bounded)
        except RequestAborted:
            if bounded.is_too_large:
                await self.refuse(send)
            return
        with body:
            response = await asyncio.get_running_loop().run_in_executor(
                self.threads, copy_context().run, self.respond, scope, body
            )
            if response.streaming:
                await self.stream(response, receive, send)
            else:
                await self.send_response(response, send)

    async def refuse(self, send: Send) -> None:
        """Say that the body is too large."""
        too_large = HttpResponse(
            f"A request has at most {settings.UPLOAD_BYTES:,} bytes.",
            status=413,
            content_type="text/plain",
        )
        await self.send_response(too_large, send)

    def respond(self, scope: Any, body: Any) -> HttpResponseBase:
        """Run middleware and view; what does not stream is done with here."""
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, error = self.create_request(scope, body)
        response: Any = self.get_response(request) if request else error
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        if response.streaming:
            close_old_connections()
        else:
            response.close()
        return response

    async def stream(self, response: HttpResponseBase, receive: Receive, send: Send) -> None:
        """Send until the response or the client ends."""
        tasks = [
            asyncio.create_task(self.send_response(response, send)),
            asyncio.create_task(self.listen_for_disconnect(receive)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await sync_to_async(response.close)()
        expected = (RequestAborted, asyncio.CancelledError)
        for error in ends:
            if isinstance(error, BaseException) and not isinstance(error, expected):
                raise error


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
os.environ.setdefault("CONCORD_DATABASE_POOL", "yes")
# Threads of the web process share the cores already; a page's vectors are too short for more, and
# OpenBLAS's own would wait for each other at every one of the thousands of sums of a fit.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
django.setup(set_prefix=False)
application = EventStreams(Handler())
spare_what_stays()
