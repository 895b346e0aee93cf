"""The chat with everything real: Redis, a worker with a model, the web process, and its events.

A worker is killed in mid-stream, Redis goes away, readers come back: the row is right in the end,
and a page is told how it stands.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
import pytest
from django.conf import settings
from django.test import Client

from annotation.models import LiveTurn, User
from annotation.services import live, versions
from annotation.services.live_seats import MAX_SEATS
from annotation.services.live_setup import change_setup
from annotation.services.projects import annotator_for
from tests.annotation.making import make_member
from tests.workers.conftest import Installation, wait_for
from tests.workers.tiny import slow_policy

pytestmark = [pytest.mark.celery, pytest.mark.django_db(transaction=True)]
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Event:
    kind: str
    data: dict
    id: str = ""


class Listener:
    """Who reads a turn's events over HTTP, as a browser would."""

    def __init__(self, url: str, turn: LiveTurn, user: User, last_event_id: str = "") -> None:
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session}"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        place = urlsplit(url)
        self.connection = http.client.HTTPConnection(
            str(place.hostname), place.port, timeout=TIMEOUT_SECONDS
        )
        path = f"/p/{turn.thread.project.slug}/chat/{turn.thread_id}/{turn.number}/stream/"
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def events(self) -> Iterator[Event]:
        """To the end of the stream."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line == "\n":
                if "event" in fields:
                    yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture
def listen(site, turn, writer) -> Iterator[Callable[..., Listener]]:
    """Makes listeners, and hangs up for all of them in the end."""
    made: list[Listener] = []

    def make(user: User = writer, last_event_id: str = "", of: LiveTurn = turn) -> Listener:
        made.append(Listener(site.url, of, user, last_event_id))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shown(events: list[Event]) -> dict[int, str]:
    """What stands on the page after these events."""
    texts = {1: "", 2: ""}
    for event in events:
        if event.kind == "begin":
            texts = {1: "", 2: ""}
        elif event.kind == "piece":
            texts[event.data["place"]] += event.data["text"]
    return texts


@pytest.fixture
def site(concord: Installation, project) -> Installation:
    """The web process, and a chat that a slow model answers."""
    folder = slow_policy(concord.var / "artifacts" / "models" / f"slow-{project.pk}")
    version = versions.register_version(kind="policy", stage="registered", directory=folder)
    versions.promote(project=project, slot="policy", version=version, verdict="registered")
    change_setup(project=project, changes={"max_new_tokens": 400}, is_open=True, by=None)
    concord.start("web")
    return concord


@pytest.fixture
def writer(project) -> User:
    return make_member(project)


@pytest.fixture
def turn(site, project, writer) -> LiveTurn:
    project.refresh_from_db()
    annotator = annotator_for(user=writer, project=project)
    thread = live.start_thread(annotator=annotator, message="Where is the cat?", key="s")
    return thread.turns.get()


def as_in_the_row(turn: LiveTurn) -> dict[int, str]:
    turn.refresh_from_db()
    assert turn.state == "ready", (turn.state, turn.error)
    return {one.place: one.text for one in turn.answers.all()}


def test_a_message_is_answered_before_the_readers_eyes(site, turn, listen):
    listener = listen()
    assert listener.status == 200
    assert listener.response.headers["Content-Type"].startswith("text/event-stream")
    assert listener.response.headers["Content-Length"] is None
    assert "frame-ancestors 'none'" in listener.response.headers["Content-Security-Policy"]
    site.start("live")
    events = list(listener.events())
    assert events[0].kind == "begin"
    assert events[-1].kind == "end"
    assert sum(event.kind == "piece" for event in events) >= 2
    assert shown(events) == as_in_the_row(turn)
    # who comes late is told all of it, who comes back what they have missed
    assert shown(list(listen().events())) == shown(events)
    middle = len(events) // 2
    rest = list(listen(last_event_id=events[middle].id).events())
    assert shown(events[: middle + 1] + rest) == shown(events)
    assert len(rest) == len(events) - middle - 1


def test_a_worker_killed_in_mid_stream_is_replaced_and_the_page_goes_on(site, turn, listen):
    for number in range(5):  # until one is not done before it is killed: a model may say little
        site.start("live")
        told = listen(of=turn).events()
        before = [next(told) for _ in range(2)]
        assert [event.kind for event in before] == ["begin", "piece"]
        site.kill("live")
        turn.refresh_from_db()
        if turn.state == "writing":
            break
        annotator = turn.thread.annotator
        thread = live.start_thread(annotator=annotator, message="Where?", key=f"s{number}")
        turn = thread.turns.get()
    assert turn.state == "writing"
    site.start("live")
    events = before + list(told)
    assert [event.kind for event in events].count("begin") >= 2
    assert events[-1].kind == "end"
    assert shown(events) == as_in_the_row(turn)
    assert (turn.attempt, turn.lost_attempts) == (2, 1)


def test_a_listener_holds_neither_thread_nor_connection(site, turn, listen, project):
    others = [make_member(project, "reviewer") for _ in range(3)]
    listen().close()  # what the first one starts stays
    web = psutil.Process(site.processes["web"].pid)
    threads, files = web.num_threads(), web.num_fds()
    listeners = [listen() for _ in range(MAX_SEATS - 1)]
    assert {one.status for one in listeners} == {200}
    first = [next(iter(one.response)) for one in listeners]  # each has been served by the loop
    assert first == [b"retry: 1000\n"] * len(listeners)
    more = len(listeners) - 1
    assert web.num_threads() - threads < more, "a thread each"
    # its own socket and Redis's are two; a connection to the database would be a third
    wait_for(lambda: web.num_fds() - files < 2 * len(listeners) + more, "no third file each", 60)
    assert listen(others[0]).status == 404
    for one in listeners:
        one.close()


def test_one_user_holds_so_many_streams_and_gets_the_seat_back(site, turn, listen):
    listeners = [listen() for _ in range(MAX_SEATS)]
    assert {one.status for one in listeners} == {200}
    assert listen().status == 429
    listeners[0].close()
    wait_for(lambda: listen().status == 200, "the seat to be free")


def test_when_redis_goes_the_reader_is_told_and_the_row_is_right_in_the_end(site, turn, listen):
    site.start("live")
    listener = listen()
    told = listener.events()
    assert next(told).kind == "begin"
    site.kill("redis")
    assert list(told)[-1].kind == "lost"
    assert listen().status == 204
    site.start("redis")
    wait_for(lambda: LiveTurn.objects.get(pk=turn.pk).state == "ready", "the turn to be ready")
    assert all(as_in_the_row(turn).values())
