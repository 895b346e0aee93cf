"""The labeler's API: the same queue as the page's, in JSON, and every error as code and detail."""

import base64
import json

import pytest
from django.test import Client

from annotation.models import ApiToken, Preference
from annotation.services.ledger import record_generation
from annotation.services.projects import new_scheme
from annotation.services.tokens import issue_token, revoke_token
from tests.annotation.making import (
    make_comparisons,
    make_member,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db


class Caller:
    """Calls the API with a token, as a script does."""

    def __init__(self, user):
        self.user = user
        self.token, plaintext = issue_token(user=user, name="script")
        self.client = Client(headers={"Authorization": f"Bearer {plaintext}"})

    def get(self, path):
        return self.client.get(f"/api/{path}")

    def post(self, path, body=None):
        return self.client.post(
            f"/api/{path}", json.dumps(body or {}), content_type="application/json"
        )


@pytest.fixture
def project():
    return make_project("helpdesk")


@pytest.fixture
def labeler(project):
    return Caller(make_member(project))


@pytest.fixture
def reviewer(project):
    return Caller(make_member(project, "reviewer"))


def ranked(task, **more):
    groups = [[completion["id"]] for completion in task["completions"]]
    return {"axis": "overall", "outcome": "ranked", "groups": groups, **more}


def claim_and_submit(caller, key="k"):
    task = caller.post("projects/helpdesk/claim").json()
    return caller.post(
        f"projects/helpdesk/assignments/{task['id']}/submit",
        {"key": key, "rankings": [ranked(task)]},
    )


def test_a_claimed_task_is_complete_and_blind(project, labeler):
    [comparison] = make_comparisons(project, k=3, purpose="evaluation")
    for completion in comparison.completions.all():
        record_generation(completion=completion, origin="imported", writer="gpt-telltale")
    response = labeler.post("projects/helpdesk/claim")
    task = response.json()
    assert response.status_code == 200
    assert set(task) == {
        "id", "comparison", "kind", "state", "expires_at",
        "prompt", "completions", "scheme", "guideline",
    }  # fmt: skip
    assert task["comparison"] == comparison.pk
    assert task["prompt"] == comparison.prompt.messages
    assignment = comparison.assignments.get()
    assert [one["id"] for one in task["completions"]] == assignment.presented_order
    texts = dict(comparison.completions.values_list("pk", "text"))
    assert all(one["text"] == texts[one["id"]] for one in task["completions"])
    assert task["scheme"]["axes"] == ["overall"]
    assert task["guideline"] == {
        "version": 1,
        "language": "en",
        "text": assignment.guideline.texts["en"],
        "faq": [],
    }
    for secret in (b"telltale", b"evaluation", b"first"):
        assert secret not in response.content


def test_an_answer_is_stored_once_however_often_it_is_sent(project, labeler):
    asks = {
        "strength_steps": 4,
        "ratings": [{"name": "correct", "low": 1, "high": 5}],
        "flags": ["unsafe"],
        "ideal": True,
    }
    new_scheme(project=project, by=None, options=asks)
    make_comparisons(project)
    task = labeler.post("projects/helpdesk/claim").json()
    assert task["scheme"]["options"] == {
        **asks, "levels": 4, "allow_partial": True, "acceptability": False, "reason": "optional",
    }  # fmt: skip
    said = [
        {"completion": one["id"], "ratings": {"correct": 5 - place}, "flags": ["unsafe"] * place}
        for place, one in enumerate(task["completions"])
    ]
    body = {
        "key": "k",
        "rankings": [ranked(task, strengths=[3])],
        "note": "Clear.",
        "judgments": said,
        "ideal": " As it should be.\n",
    }
    path = f"projects/helpdesk/assignments/{task['id']}/submit"
    first, second = labeler.post(path, body), labeler.post(path, body)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    stored = Preference.objects.get()
    assert stored.rankings.get().groups == [[one["id"]] for one in task["completions"]]
    assert stored.rankings.get().strengths == [3]
    assert first.json()["judgments"] == sorted(said, key=lambda one: said.index(one))
    assert first.json()["ideal"] == stored.ideal.text == " As it should be.\n"
    refused = labeler.post(path, {**body, "key": "other", "judgments": []})
    assert refused.status_code == 400
    assert "needs a 'correct' from 1 to 5" in refused.json()["detail"]
    require_invariant(project)


def test_the_prefetched_lease_comes_when_asked_for(project, labeler):
    make_comparisons(project, 2)
    active = labeler.post("projects/helpdesk/claim").json()
    ahead = labeler.post("projects/helpdesk/claim", {"kind": "prefetched"}).json()
    assert ahead["kind"] == "prefetched"
    assert ahead["id"] != active["id"]


@pytest.mark.parametrize("act", ["renew", "release", "skip"])
def test_a_lease_can_be_renewed_released_and_skipped(project, labeler, act):
    make_comparisons(project)
    task = labeler.post("projects/helpdesk/claim").json()
    response = labeler.post(f"projects/helpdesk/assignments/{task['id']}/{act}")
    assert response.status_code == 200
    states = {"renew": "leased", "release": "released", "skip": "skipped"}
    assert response.json()["state"] == states[act]
    require_invariant(project)


def test_nothing_to_do_says_why_and_when_to_come_back(project, labeler, reviewer):
    make_comparisons(project)
    reviewer.post("projects/helpdesk/claim")
    response = labeler.post("projects/helpdesk/claim")
    body = response.json()
    assert response.status_code == 404
    assert (body["code"], body["reason"]) == ("nothing_to_do", "all_leased")
    assert response["Retry-After"] == str(body["retry_after_seconds"]) == "60"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"key": "k"}, "bad_input", "rankings: This field is required."),
        ({"key": "", "rankings": []}, "bad_input", "key: This field may not be blank."),
        ({"key": "k", "rankings": [{"outcome": "won"}]}, "bad_input", '"won" is not a valid'),
        (
            {"key": "k", "rankings": [{"outcome": "ranked", "groups": [[1], [999999]]}]},
            "bad_ranking",
            "was not shown",
        ),
        (
            {"key": "k", "rankings": [{"outcome": "ranked", "groups": [[10**40]]}]},
            "bad_ranking",
            "was not shown",
        ),
        ({"key": "\x00", "rankings": [{"outcome": "both_bad"}]}, "bad_input", "NUL character at"),
        (
            {"key": "k", "rankings": [{"outcome": "both_bad"}], "note": "\ud800"},
            "bad_input",
            "half a surrogate pair, U+D800",
        ),
    ],
)
def test_a_bad_answer_is_refused_with_what_was_seen(project, labeler, body, code, words):
    make_comparisons(project)
    task = labeler.post("projects/helpdesk/claim").json()
    response = labeler.post(f"projects/helpdesk/assignments/{task['id']}/submit", body)
    assert response.status_code == 400
    assert response.json()["code"] == code
    assert words in response.json()["detail"]
    assert Preference.objects.count() == 0
    require_invariant(project)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "JSON parse error"),
        (b"[1]", "must be a JSON object, not list"),
        (b'{"key": NaN}', "Out of range float"),
        (b'{"note": "' + b"x" * 1_000_001 + b'"}', "at most 1000000 bytes"),
    ],
)
def test_a_body_that_is_no_small_json_object_is_refused(project, labeler, raw, words):
    response = labeler.client.post(
        "/api/projects/helpdesk/claim", raw, content_type="application/json"
    )
    assert (response.status_code, response.json()["code"]) == (400, "parse_error")
    assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[" * 100_000, "nested too deeply, more than 50 levels"),
        *((b'{"a": ' + b"[" * n + b"]" * n + b"}", "more than 50 levels") for n in (50, 800, 900)),
        (b'{"a": [1e999]}', "a number is out of range: inf"),
        (b'{"a": {"b": "x\\u0000"}}', "a NUL character at place 1: 'x\\x00'"),
        (b'{"a": {"b\\u0000": 1}}', "a NUL character at place 1"),
        (b'{"a": "\\ud800"}', "half a surrogate pair, U+D800"),
    ],
)
def test_a_body_that_the_ledger_can_not_keep_is_refused(project, labeler, raw, words):
    response = labeler.client.post(
        "/api/projects/helpdesk/claim", raw, content_type="application/json"
    )
    assert (response.status_code, response.json()["code"]) == (400, "bad_input")
    assert words in response.json()["detail"]


@pytest.mark.parametrize("position", ["p=abc", "p=", "p=1.5", "p=%00", f"p={10**26}", "o=x&p=1"])
def test_a_cursor_that_was_never_given_out_is_not_found(project, reviewer, position):
    cursor = base64.b64encode(position.encode()).decode()
    for asked in (cursor, position, "é"):
        response = reviewer.client.get("/api/projects/helpdesk/preferences/", {"cursor": asked})
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert response.json()["detail"] == "Invalid cursor"


def test_labelers_see_their_own_answers_and_reviewers_all(project, labeler, reviewer):
    make_comparisons(project, answers_wanted=2)
    mine = claim_and_submit(labeler).json()
    theirs = claim_and_submit(reviewer, "l").json()
    path = "projects/helpdesk/preferences/"

    def listed(caller, query=""):
        return [one["id"] for one in caller.get(path + query).json()["results"]]

    assert listed(labeler) == [mine["id"]]
    assert listed(reviewer) == [theirs["id"], mine["id"]]
    assert listed(reviewer, "?mine=1") == [theirs["id"]]
    assert labeler.get(f"{path}{theirs['id']}/").status_code == 404
    assert reviewer.get(f"{path}{mine['id']}/").json() == mine
    assert labeler.user.username not in json.dumps(mine)


def test_listing_answers_takes_as_many_queries_for_fifty_as_for_one(
    project, reviewer, django_assert_num_queries
):
    make_comparisons(project, 12)
    claim_and_submit(reviewer, "0")
    reviewer.get("projects/helpdesk/preferences/")  # the token's use is noted once a minute
    with django_assert_num_queries(5):
        reviewer.get("projects/helpdesk/preferences/")
    for number in range(1, 12):
        claim_and_submit(reviewer, str(number))
    with django_assert_num_queries(5):
        reviewer.get("projects/helpdesk/preferences/")


def test_a_reviewer_voids_with_a_reason_and_once(project, labeler, reviewer):
    make_comparisons(project)
    answer = claim_and_submit(labeler).json()
    path = f"projects/helpdesk/preferences/{answer['id']}/void"
    assert labeler.post(path, {"reason": "x"}).status_code == 403
    assert reviewer.post(path, {}).json()["code"] == "bad_input"
    voided = reviewer.post(path, {"reason": "Clicked through"}).json()
    assert (voided["void_reason"], voided["counted"]) == ("Clicked through", False)
    assert reviewer.post(path, {"reason": "x"}).status_code == 409
    require_invariant(project)


def test_an_assignment_of_somebody_else_is_not_there(project, labeler, reviewer):
    make_comparisons(project)
    task = labeler.post("projects/helpdesk/claim").json()
    for act in ("submit", "skip", "renew", "release"):
        response = reviewer.post(f"projects/helpdesk/assignments/{task['id']}/{act}", {})
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_researcher_does_not_vote(project):
    make_comparisons(project)
    response = Caller(make_member(project, "researcher")).post("projects/helpdesk/claim")
    assert (response.status_code, response.json()["code"]) == (403, "not_allowed")
    assert "you are a researcher" in response.json()["detail"]


def test_without_a_token_or_session_the_api_is_closed(project):
    response = Client().post("/api/projects/helpdesk/claim")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert response.json()["code"] == "not_authenticated"


@pytest.mark.parametrize("header", ["Bearer", "Bearer a b", "Bearer wrong", "Bearer \xe9"])
def test_a_token_that_opens_nothing_is_401(project, header):
    response = Client(headers={"Authorization": header}).get("/api/projects/")
    assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")


def test_a_revoked_token_and_one_of_an_inactive_user_are_closed(project, labeler, reviewer):
    revoke_token(token=labeler.token, by=labeler.user)
    assert labeler.get("projects/").status_code == 401
    reviewer.user.is_active = False
    reviewer.user.save()
    assert reviewer.get("projects/").status_code == 401


def test_only_the_hash_of_a_token_is_kept(project, labeler):
    _, plaintext = issue_token(user=labeler.user, name="second")
    kept = json.dumps(list(ApiToken.objects.values()), default=str)
    assert plaintext not in kept
    assert plaintext[:12] in kept


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(project, labeler):
    labeler.get("projects/")
    noted = ApiToken.objects.get().last_used_at
    labeler.get("projects/")
    assert noted is not None
    assert ApiToken.objects.get().last_used_at == noted


def test_a_session_needs_the_csrf_token(project):
    make_comparisons(project)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(make_member(project))
    response = browser.post("/api/projects/helpdesk/claim", {}, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (403, "not_allowed")
    assert "CSRF" in response.json()["detail"]
    browser.cookies["csrftoken"] = "a" * 32
    response = browser.post(
        "/api/projects/helpdesk/claim",
        {},
        content_type="application/json",
        headers={"X-CSRFToken": "a" * 32},
    )
    assert response.status_code == 200


@pytest.mark.parametrize("act", ["submit", "skip", "renew", "release"])
def test_an_assignment_beyond_all_ids_is_not_there(labeler, act):
    response = labeler.post(f"projects/helpdesk/assignments/{10**30}/{act}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
