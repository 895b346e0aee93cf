"""The chat over the API: the same steps as on the page, as blind, and safe to repeat."""

import json

import pytest
from django.test import Client

from annotation.models import LiveThread, ModelVersion, Preference
from annotation.services.live_setup import setup_of
from tests.annotation.live_world import make_policy, open_chat, write
from tests.annotation.making import make_member, make_project

pytestmark = pytest.mark.django_db
FIRST = {"rankings": [{"outcome": "ranked", "groups": [[1], [2]]}]}


@pytest.fixture
def project():
    project = make_project("mine")
    make_policy(project, "secret")
    open_chat(project, temperature_a=0.31)
    return project


@pytest.fixture
def ask(project):
    """Ask as a labeler; the answer's JSON after its status was looked at."""
    client = Client()
    client.force_login(make_member(project))

    def send(method: str, path: str, body=None, *, status: int = 200):
        got = client.generic(
            method,
            f"/api/projects/mine/{path}",
            json.dumps(body or {}),
            content_type="application/json",
        )
        assert got.status_code == status, got.content
        return got.json() if got.content else None

    return send


def test_from_the_first_message_to_the_next(ask):
    begun = {"key": "s", "message": "Hello?", "language": "en"}
    thread = ask("POST", "chats/", begun, status=201)
    assert ask("POST", "chats/", begun, status=201)["id"] == thread["id"]
    assert thread["turns"][0] | {"created_at": ""} == {
        "number": 1,
        "message": "Hello?",
        "state": "waiting",
        "answers": [],
        "continued_with": "",
        "preference": None,
        "created_at": "",
    }
    here = f"chats/{thread['id']}"
    turn = write(LiveThread.objects.get().turns.get())
    answers = ask("GET", f"{here}/1/")["answers"]
    assert answers == [{"place": n, "text": turn.answers.get(place=n).text} for n in (1, 2)]
    chosen = ask("POST", f"{here}/1/choose", {"key": "k", **FIRST})
    assert chosen == ask("POST", f"{here}/1/choose", {"key": "k", **FIRST})
    assert chosen["continued_with"] == answers[0]["text"]
    assert chosen["preference"] == Preference.objects.get().pk
    second = ask("POST", f"{here}/say", {"key": "m", "message": "And?"}, status=201)
    assert second["number"] == 2
    assert len(ask("GET", f"{here}/")["turns"]) == 2
    assert [one["id"] for one in ask("GET", "chats/")["results"]] == [thread["id"]]
    assert ask("POST", f"{here}/end")["closed_at"]


def test_nothing_tells_who_writes(ask, project):
    thread = ask("POST", "chats/", {"key": "s", "message": "Hello?"}, status=201)
    write(LiveThread.objects.get().turns.get())
    ask("POST", f"chats/{thread['id']}/1/choose", {"key": "k", **FIRST})
    preference = Preference.objects.get().pk
    told = json.dumps(
        [
            ask("GET", f"chats/{thread['id']}/"),
            ask("GET", "chats/"),
            ask("GET", f"preferences/{preference}/"),
        ]
    )
    for word in (ModelVersion.objects.get().name, "0.31", "temperature", "version_", "side"):
        assert word not in told


def test_errors_say_what_was_wrong(ask):
    thread = ask("POST", "chats/", {"key": "s", "message": "Hello?"}, status=201)
    here = f"chats/{thread['id']}"
    early = ask("POST", f"{here}/1/choose", {"key": "k", **FIRST}, status=409)
    assert early["code"] == "conflict"
    assert (
        "not settled"
        in ask("POST", f"{here}/say", {"key": "m", "message": "?"}, status=409)["detail"]
    )
    write(LiveThread.objects.get().turns.get())
    tie = {"rankings": [{"outcome": "equal"}]}
    lost = ask("POST", f"{here}/1/choose", {"key": "k", **tie}, status=400)
    assert "goes on from" in lost["detail"]
    stranger = {"rankings": [{"outcome": "ranked", "groups": [[7], [1]]}]}
    assert "no 7" in ask("POST", f"{here}/1/choose", {"key": "k", **stranger}, status=400)["detail"]
    assert ask("POST", f"{here}/1/again", status=409)["code"] == "conflict"
    assert ask("GET", f"{here}/9/", status=404)["code"] == "not_found"
    assert "blank" in ask("POST", "chats/", {"key": "t", "message": " "}, status=400)["detail"]


def test_a_server_without_streams_says_so_at_once(ask):
    thread = ask("POST", "chats/", {"key": "s", "message": "Hello?"}, status=201)
    assert ask("GET", f"chats/{thread['id']}/1/stream", status=204) is None


def test_an_admin_sets_who_answers(project):
    client = Client()
    client.force_login(make_member(project, "admin"))
    version = make_policy(project)
    url = "/api/projects/mine/chat-setup"
    assert client.get(url).json()["is_open"] is True

    def patch(body):
        return client.patch(url, json.dumps(body), content_type="application/json")

    got = patch({"version_b": version.pk, "max_turns": 3, "is_open": False})
    assert got.status_code == 200, got.content
    assert (got.json()["version_b"], got.json()["max_turns"]) == (version.pk, 3)
    assert got.json()["is_open"] is False
    assert setup_of(project).version_b == version
    assert patch({"version_a": make_policy(make_project()).pk}).status_code == 404
    assert patch({"max_turns": 0}).json()["code"] == "bad_input"
