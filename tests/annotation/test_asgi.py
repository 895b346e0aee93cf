"""The web process's own handler: one thread per request, streams that end when somebody leaves."""

import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from annotation.asgi import FORM_BYTES, application
from annotation.garbage import OBJECTS_BETWEEN_LOOKS
from annotation.models import User

pytestmark = pytest.mark.urls(__name__)
seen: list[str] = []


@csrf_exempt
def name_of_thread(request):
    seen.append(threading.current_thread().name)
    return HttpResponse(f"{request.method} {request.body.decode()}", headers={"X-Own": "yes"})


def broken(request):
    raise RuntimeError("not foreseen")


def users(request):
    return HttpResponse(str(User.objects.count()))


async def ticks():
    try:
        while True:
            yield b"tick"
            await asyncio.sleep(0)
    finally:
        seen.append("closed")


def endless(request):
    return StreamingHttpResponse(ticks())


def three(request):
    async def pieces():
        for piece in (b"one ", b"two ", b"three"):
            yield piece

    return StreamingHttpResponse(pieces())


async def waits(request):
    await asyncio.sleep(0)
    return HttpResponse("waited")


urlpatterns = [
    path("name", name_of_thread),
    path("broken", broken),
    path("users", users),
    path("endless", endless),
    path("three", three),
    path("waits", waits),
]


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


def ask(url, *, method="GET", body=b"", leave_after=None):
    """The status, headers and body; the client leaves after so many messages."""

    async def talk():
        messages, left = [], asyncio.Event()
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            if (message := next(asked, None)) is not None:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)
            if leave_after is not None and len(messages) >= leave_after:
                left.set()
                await asyncio.sleep(0)

        headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http", "method": method, "path": url, "query_string": b"", "headers": headers,
            "server": ("localhost", 80), "scheme": "http",
        }  # fmt: skip
        await asyncio.wait_for(application(scope, receive, send), 30)
        return messages

    start, *rest = asyncio.run(talk())
    text = b"".join(message.get("body", b"") for message in rest)
    return start["status"], dict(start["headers"]), text


def test_a_view_runs_in_one_of_the_web_threads_and_its_answer_is_whole():
    status, headers, text = ask("/name", method="PUT", body=b"words")
    assert (status, headers[b"X-Own"], text) == (200, b"yes", b"PUT words")
    assert b"Content-Security-Policy" in headers
    assert [name.startswith("web") for name in seen] == [True]


def test_what_nobody_foresaw_is_a_500_without_details(caplog):
    status, _, text = ask("/broken")
    assert status == 500
    assert b"not foreseen" not in text
    assert "not foreseen" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_the_database_answers_in_the_threads():
    User.objects.create_user("one")
    assert [ask("/users")[2] for _ in range(3)] == [b"1"] * 3


def test_a_stream_is_sent_piece_by_piece():
    assert ask("/three")[2] == b"one two three"


def test_a_stream_ends_when_its_reader_leaves():
    status, _, text = ask("/endless", leave_after=4)
    assert (status, text[:12]) == (200, b"tick" * 3)
    assert seen == ["closed"]


def test_an_async_view_answers_too():
    assert ask("/waits")[2] == b"waited"


def test_a_body_that_is_larger_than_any_file_may_be_is_not_read(settings):
    settings.UPLOAD_BYTES = 10
    allowed = b"x" * (10 + FORM_BYTES)
    assert ask("/three", method="POST", body=allowed)[0] != 413
    status, _headers, text = ask("/three", method="POST", body=allowed + b"x")
    assert (status, text) == (413, b"A request has at most 10 bytes.")


def test_a_body_in_pieces_is_read_no_further_than_a_file_may_be(settings):
    """It says no length beforehand."""
    settings.UPLOAD_BYTES = 10
    taken, sent = [], []
    piece = b"x" * (FORM_BYTES // 2)

    async def receive():
        taken.append(piece)
        return {"type": "http.request", "body": piece, "more_body": len(taken) < 50}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/three", "query_string": b"",
        "headers": [(b"host", b"localhost")], "server": ("localhost", 80), "scheme": "http",
    }  # fmt: skip
    asyncio.run(application(scope, receive, send))
    assert (sent[0]["status"], len(taken)) == (413, 3)
    assert sent[1]["body"] == b"A request has at most 10 bytes."


def test_the_collector_looks_seldom_and_never_at_what_stays():
    assert gc.get_threshold()[0] == OBJECTS_BETWEEN_LOOKS
    assert gc.get_freeze_count() > 10_000


SUMS = """
import importlib, os, sys
importlib.import_module(sys.argv[1])
import numpy
many = numpy.ones((300, 300)) @ numpy.ones((300, 300))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("entry", ["annotation.asgi", "annotation.wsgi"])
def test_sums_of_a_page_start_no_threads_of_their_own(entry):
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    said = subprocess.run(
        [sys.executable, "-c", SUMS, entry], env=environment, stdout=subprocess.PIPE, check=True
    )
    assert said.stdout.split() == [b"1"]
