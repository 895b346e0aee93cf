"""Review over the API: list, read, decide, void."""

import json

import pytest
from django.test import Client

from annotation.services.disagreements import look_again
from tests.annotation.making import make_member, make_project
from tests.annotation.voting import cast, compare, ids_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project("shop")


@pytest.fixture
def apart(project):
    comparison = compare(project)
    for order in ([[0], [1]], [[1], [0]]):
        cast(comparison, order=order)
    look_again(comparison.pk)
    return comparison


def calls(project, role="reviewer"):
    client = Client()
    client.force_login(make_member(project, role))

    def call(path, body=None):
        url = f"/api/projects/shop/{path}"
        if body is None:
            return client.get(url)
        return client.post(url, json.dumps(body), content_type="application/json")

    return call


def ranked(comparison, place):
    ids = ids_of(comparison)
    return [{"outcome": "ranked", "groups": [[ids[place]], [ids[1 - place]]]}]


def test_what_waits_is_listed_and_read(project, apart):
    call = calls(project)
    (row,) = call("reviews/?state=open").json()["results"]
    assert (row["comparison"], row["accord"]) == (apart.pk, {"overall": 0.0})
    assert call("reviews/?state=decided").json()["results"] == []
    assert call("reviews/?state=odd").json()["code"] == "bad_input"
    whole = call(f"reviews/{apart.pk}/").json()
    assert [one["id"] for one in whole["completions"]] == ids_of(apart)
    assert set(whole["completions"][0]) == {"id", "text"}  # who wrote it stays hidden
    assert len(whole["answers"]) == 2
    assert whole["decisions"] == []


def test_the_first_decision_wins_and_the_second_must_look_at_it(project, apart):
    one, two = calls(project), calls(project)
    made = one(f"reviews/{apart.pk}/decide", {"seen": 0, "rankings": ranked(apart, 0)})
    assert made.status_code == 201
    assert made.json()["by"]
    late = two(f"reviews/{apart.pk}/decide", {"seen": 0, "rankings": ranked(apart, 1)})
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert two(f"reviews/{apart.pk}/").json()["decisions"][0]["id"] == made.json()["id"]
    again = two(f"reviews/{apart.pk}/decide", {"seen": 1, "rankings": ranked(apart, 1)})
    assert again.json()["number"] == 2
    listed = two("decisions/").json()["results"]
    assert [row["current"] for row in listed] == [True, False]


def test_cannot_be_decided_and_void(project, apart):
    call = calls(project)
    body = {"seen": 0, "undecidable": True}
    assert call(f"reviews/{apart.pk}/decide", body).json()["code"] == "bad_input"
    made = call(f"reviews/{apart.pk}/decide", {**body, "reason": "a matter of taste"}).json()
    assert (made["undecidable"], made["rankings"]) == (True, [])
    void = call(f"decisions/{made['id']}/void", {"reason": "it can"}).json()
    assert (void["current"], void["void_reason"]) == (False, "it can")
    assert call("reviews/?state=open").json()["results"]


@pytest.mark.parametrize("role", ["labeler", "researcher"])
def test_it_is_for_reviewers(project, apart, role):
    call = calls(project, role)
    for path in ("reviews/", f"reviews/{apart.pk}/", "decisions/"):
        assert call(path).status_code == 403
    assert call(f"reviews/{apart.pk}/decide", {"seen": 0}).status_code == 403


def test_a_list_takes_a_fixed_number_of_queries(project, django_assert_max_num_queries):
    call = calls(project)
    for _ in range(4):
        comparison = compare(project)
        for order in ([[0], [1]], [[1], [0]]):
            cast(comparison, order=order)
        look_again(comparison.pk)
    with django_assert_max_num_queries(5):
        assert len(call("reviews/").json()["results"]) == 4
