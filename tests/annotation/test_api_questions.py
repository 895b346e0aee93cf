"""Guideline, questions and send-backs through the API: the whole talk between labeler and lead."""

import json

import pytest
from django.test import Client

from annotation.models import Assignment, GuidelineReading, Preference, SendBack
from annotation.services.queue import claim_comparison
from tests.annotation.making import make_comparisons, make_member, make_project, require_invariant

pytestmark = pytest.mark.django_db


class Caller(Client):
    """JSON in and out, below the project."""

    def send(self, path, expect, **body):
        response = self.post(
            f"/api/projects/desk/{path}", json.dumps(body), content_type="application/json"
        )
        assert response.status_code == expect, response.content
        return response.json()

    def look(self, path, **headers):
        response = self.get(f"/api/projects/desk/{path}", headers=headers)
        assert response.status_code == 200, response.content
        return response.json()


@pytest.fixture
def project():
    return make_project("desk")


def caller(project, role) -> Caller:
    client = Caller()
    client.force_login(make_member(project, role))
    return client


@pytest.fixture
def labeler(project):
    return caller(project, "labeler")


@pytest.fixture
def reviewer(project):
    return caller(project, "reviewer")


def test_a_question_is_asked_answered_published_and_closed(project, labeler, reviewer):
    make_comparisons(project)
    task = labeler.send("claim", 200)
    asked = labeler.send(
        "questions/", 201, assignment=task["id"], text="May it be long?", put_aside=True
    )
    assert (asked["state"], asked["answer"], asked["published_in"]) == ("open", "", None)
    assert Assignment.objects.get().state == "aside"
    require_invariant(project)
    [waiting] = reviewer.look("questions/?state=open")["results"]
    assert waiting["text"] == "May it be long?"
    assert waiting["annotator"] == Assignment.objects.get().annotator.pseudonym
    assert reviewer.look("questions/?mine=1")["results"] == []
    path = f"questions/{asked['id']}"
    assert reviewer.send(f"{path}/answer", 200, text="Yes.")["state"] == "answered"
    assert reviewer.send(f"{path}/answer", 409, text="No.")["code"] == "conflict"
    texts = {"en": {"question": "How long?", "answer": "As it helps."}}
    assert reviewer.send(f"{path}/publish", 200, texts=texts)["published_in"] == 2
    assert labeler.look(f"{path}/")["answer"] == "Yes."
    assert labeler.send(f"{path}/close", 200)["state"] == "closed"
    again = labeler.send("claim", 200)
    assert again["id"] == task["id"]
    assert again["guideline"]["version"] == 2
    assert again["guideline"]["faq"] == [texts["en"]]


def test_one_asks_about_ones_own_assignments_alone(project, labeler, reviewer):
    make_comparisons(project)
    task = labeler.send("claim", 200)
    reviewer.send("questions/", 404, assignment=task["id"], text="And this?")
    labeler.send("questions/", 400, assignment=task["id"], text=" ")


def test_an_answer_is_sent_back_revised_and_declined(project, labeler, reviewer):
    answers = []
    for key in ("one", "two"):
        make_comparisons(project)
        task = labeler.send("claim", 200)
        order = [one["id"] for one in task["completions"]]
        ranking = {"outcome": "ranked", "groups": [[pk] for pk in order]}
        answers.append(
            labeler.send(f"assignments/{task['id']}/submit", 201, key=key, rankings=[ranking])
        )
    first, second = (
        reviewer.send(f"preferences/{one['id']}/send-back", 201, comment="Look again.")
        for one in answers
    )
    reviewer.send(f"preferences/{answers[0]['id']}/send-back", 409, comment="Look again.")
    assert [one["id"] for one in labeler.look("send-backs/?state=open")["results"]] == [
        second["id"],
        first["id"],
    ]
    tie = {"outcome": "both_bad"}
    revised = labeler.send(f"preferences/{answers[0]['id']}/revise", 201, rankings=[tie])
    assert (revised["revision"], revised["cause"], revised["counted"]) == (
        2, "sent back: Look again.", True,
    )  # fmt: skip
    reviewer.send(f"preferences/{answers[1]['id']}/revise", 404, rankings=[tie])
    done = labeler.send(f"send-backs/{second['id']}/decline", 200, reply="It stands.")
    assert (done["state"], done["reply"]) == ("declined", "It stands.")
    labeler.send(f"send-backs/{second['id']}/decline", 409, reply="It stands.")
    outcome = {one["id"]: one["revision"] for one in reviewer.look("send-backs/")["results"]}
    assert outcome == {first["id"]: revised["id"], second["id"]: None}
    reviewer.send(f"send-backs/{second['id']}/withdraw", 409)
    assert SendBack.objects.open().count() == 0
    assert Preference.objects.filter(counted=True).count() == 2
    require_invariant(project)


def test_the_guideline_in_the_language_of_the_request_and_read(project, labeler, reviewer):
    texts = {"en": "Be kind.", "zh-hans": "要有礼貌。"}
    made = reviewer.send("guidelines/", 201, texts=texts, base=1)
    assert (made["version"], made["texts"], made["faq"]) == (2, texts, [])
    reviewer.send("guidelines/", 409, texts=texts, base=1)
    reviewer.send("guidelines/", 400, texts={"english?": "Be kind."})
    labeler.send("guidelines/", 403, texts=texts)
    assert [one["version"] for one in labeler.look("guidelines/")["results"]] == [2, 1]
    assert labeler.send(f"guidelines/{made['id']}/read", 200)["version"] == 2
    assert GuidelineReading.objects.get().guideline_id == made["id"]
    make_comparisons(project)
    for language, shown in (("zh-hans", "zh-hans"), ("en", "en"), ("de", "en")):
        response = labeler.post(
            "/api/projects/desk/claim", "{}", "application/json",
            headers={"Accept-Language": language},
        )  # fmt: skip
        guideline = response.json()["guideline"]
        assert (guideline["language"], guideline["text"]) == (shown, texts[shown])
    assert claim_comparison(annotator=project.annotators.get()).guideline.version == 2
