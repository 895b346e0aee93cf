"""Batches through the API."""

import json

import pytest
from django.test import Client

from annotation.models import Comparison
from annotation.services.projects import new_scheme
from tests.annotation.making import make_comparisons, make_member, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project("desk")


@pytest.fixture
def comparison(project):
    [made] = make_comparisons(project)
    return made


def client_of(project, role):
    client = Client()
    client.force_login(make_member(project, role))
    return client


def patch(client, comparison, **changes):
    return client.patch(
        f"/api/projects/desk/batches/{comparison.batch_id}/",
        json.dumps(changes),
        content_type="application/json",
    )


def test_the_list_and_one_batch_with_its_progress(project, comparison):
    client = client_of(project, "reviewer")
    [one] = client.get("/api/projects/desk/batches/").json()["results"]
    assert (one["id"], one["name"], one["scheme"]) == (comparison.batch_id, "first", 1)
    shown = client.get(f"/api/projects/desk/batches/{one['id']}/").json()
    assert shown["progress"] == {"comparisons": 1, "retired": 0, "wanted": 1, "free": 1}


def test_an_admin_changes_what_is_named_alone(project, comparison):
    new_scheme(project=project, by=None, axes=["overall"])
    client = client_of(project, "admin")
    changed = patch(client, comparison, priority=2, due_on="2026-12-01", scheme=2, overlap=3)
    assert changed.status_code == 200
    assert changed.json() == changed.json() | {
        "priority": 2,
        "due_on": "2026-12-01",
        "scheme": 2,
        "overlap": 3,
        "paused": False,
    }
    assert Comparison.objects.get().answers_wanted == 3
    assert patch(client, comparison, paused=True).json()["paused"] is True
    assert patch(client, comparison, due_on=None).json()["priority"] == 2


def test_who_says_what_they_saw_overwrites_nobody(project, comparison):
    client = client_of(project, "admin")
    assert (
        patch(client, comparison, priority=2, seen={"priority": 0, "scheme": 1}).status_code == 200
    )
    late = patch(client, comparison, priority=5, due_on="2026-12-01", seen={"priority": 0})
    assert (late.status_code, late.json()["code"]) == (409, "changed_meanwhile")
    assert "priority 2" in late.json()["detail"]
    now = client.get(f"/api/projects/desk/batches/{comparison.batch_id}/").json()
    assert (now["priority"], now["due_on"]) == (2, None)
    assert patch(client, comparison, priority=5, seen={"priority": 2}).json()["priority"] == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheme": 9}, "no version 9"),
        ({"overlap": 0}, "overlap: "),
        ({"priority": "high"}, "priority: "),
        ({"due_on": "someday"}, "due_on: "),
    ],
)
def test_what_makes_no_sense_is_400(project, comparison, changes, words):
    answer = patch(client_of(project, "admin"), comparison, **changes)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_only_admins_change_and_labelers_do_not_look(project, comparison):
    assert patch(client_of(project, "reviewer"), comparison, priority=1).status_code == 403
    assert client_of(project, "labeler").get("/api/projects/desk/batches/").status_code == 403


def test_retire_and_re_open(project, comparison):
    client = client_of(project, "reviewer")
    address = f"/api/projects/desk/comparisons/{comparison.pk}"
    retired = client.post(
        f"{address}/retire", json.dumps({"reason": "Cut off"}), content_type="application/json"
    )
    assert retired.json()["retired_at"] is not None
    assert client.post(f"{address}/retire", {}, content_type="application/json").status_code == 400
    assert client.post(f"{address}/reopen").json()["retired_at"] is None
    assert client.post(f"{address}/reopen").status_code == 409
