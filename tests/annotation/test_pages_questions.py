"""Questions on the pages: asked beside the task, answered by leads, read by the asker; blind."""

import re

import pytest

from annotation.models import Assignment, AssignmentState, Question
from annotation.pages.waiting import Desk, desk_of, questions_waiting
from annotation.services import questions
from annotation.services.ledger import record_generation
from annotation.services.projects import add_member, annotator_for, current_guideline
from annotation.services.queue import claim_comparison, submit_preference
from tests.annotation.making import as_shown
from tests.pages_cast import person

HTMX = {"HX-Request": "true"}


def html_of(response) -> str:
    return response.content.decode()


@pytest.fixture
def lease(cast) -> Assignment:
    """The labeler's, with a telltale writer behind each answer."""
    comparison = cast.ask("Can you help?", ["Yes, **gladly**.", "No."])
    for completion in comparison.completions.all():
        record_generation(completion=completion, origin="imported", writer="famous-model")
    return claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))


def asked(lease, text="May it be long?") -> Question:
    return questions.ask(annotator=lease.annotator, comparison=lease.comparison, text=text)


def test_asking_beside_the_task_leaves_the_task_as_it_is(cast, enter, lease):
    client = enter(cast.labeler)
    url = f"/p/shop/label/{lease.pk}/ask/"
    assert f'action="{url}"' in html_of(client.get("/p/shop/label/"))
    response = client.post(url, {"text": "May it be long?", "then": "keep"}, headers=HTMX)
    assert (response.headers["HX-Retarget"], response.headers["HX-Reswap"]) == (
        "#asked", "innerHTML",
    )  # fmt: skip
    assert "Your question is with the lead." in html_of(response)
    assert "form" not in html_of(response)
    assert Question.objects.get().text == "May it be long?"
    empty = client.post(url, {"text": " ", "then": "keep"}, headers=HTMX)
    assert "1 to 2000 characters, not 0" in html_of(empty)
    assert "data-asked" not in html_of(empty)


def test_asking_and_putting_aside_shows_the_next(cast, enter, lease):
    cast.ask("Next?", ["One.", "Two."])
    client = enter(cast.labeler)
    form = {"text": "May it be long?", "then": "aside"}
    html = html_of(client.post(f"/p/shop/label/{lease.pk}/ask/", form, headers=HTMX))
    assert "Asked and put aside." in html
    assert "Next?" in html
    lease.refresh_from_db()
    assert lease.state == AssignmentState.ASIDE
    wrong = client.post(f"/p/shop/label/{lease.pk}/ask/", {"then": "aside"}, headers=HTMX)
    assert "1 to 2000 characters" in html_of(wrong)
    assert "Next?" in html_of(wrong)


@pytest.mark.parametrize(
    ("then", "place"), [("keep", "label"), ("aside", "label"), ("stay", "questions")]
)
def test_without_javascript_it_is_a_form_and_a_page(cast, enter, lease, then, place):
    form = {"text": "May it be long?", "then": then}
    response = enter(cast.labeler).post(f"/p/shop/label/{lease.pk}/ask/", form)
    assert response.headers["Location"] == f"/p/shop/{place}/"
    assert Question.objects.exists()


def test_ones_own_answers_can_be_asked_about(cast, enter, lease):
    stored = submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    client = enter(cast.labeler)
    for page in (f"preferences/{stored.pk}/", f"preferences/{stored.pk}/edit/"):
        html = html_of(client.get(f"/p/shop/{page}"))
        assert f'action="/p/shop/label/{lease.pk}/ask/"' in html
        assert 'value="aside"' not in html
    html = html_of(enter(cast.reviewer).get(f"/p/shop/preferences/{stored.pk}/"))
    assert "/ask/" not in html


def test_a_lead_sees_the_item_as_the_asker_did_and_answers(cast, enter, lease):
    question = asked(lease, "Is <b>1</b> fine?")
    client = enter(cast.reviewer)
    listed = html_of(client.get("/p/shop/questions/"))
    assert "Is &lt;b&gt;1&lt;/b&gt; fine?" in listed
    assert lease.annotator.pseudonym in listed
    html = html_of(client.get(f"/p/shop/questions/{question.pk}/"))
    texts = dict(lease.comparison.completions.values_list("pk", "text"))
    shown = re.findall(r"Yes, <strong>gladly</strong>|No\.", html)
    wanted = {"No.": "No."}
    assert shown == [
        wanted.get(texts[pk], "Yes, <strong>gladly</strong>") for pk in lease.presented_order
    ]
    assert "Is &lt;b&gt;1&lt;/b&gt; fine?" in html
    assert "famous-model" not in html
    assert cast.labeler.username not in html.replace(client.get("/").content.decode(), "")
    client.post(f"/p/shop/questions/{question.pk}/answer/", {"text": "Yes, **if** it helps."})
    question.refresh_from_db()
    assert (question.state, question.answered_by) == ("answered", cast.reviewer)
    late = client.post(f"/p/shop/questions/{question.pk}/answer/", {"text": "No."}, follow=True)
    assert f"Question {question.pk} was settled before: Answered." in html_of(late)


def test_the_asker_is_told_on_the_desk_reads_it_and_closes_it(cast, enter, lease):
    question = asked(lease)
    client = enter(cast.labeler)
    assert "answer to your question" not in html_of(client.get("/p/shop/label/"))
    questions.answer(question=question, text="Yes, **if** it helps.", by=cast.reviewer)
    html = html_of(client.get("/p/shop/label/"))
    assert "1 answer to your question" in html
    assert 'title="waiting for you">1</span>' in html
    page = f"/p/shop/questions/{question.pk}/"
    assert page in html_of(client.get("/p/shop/questions/?state=answered"))
    html = html_of(client.get(page))
    assert "Yes, <strong>if</strong> it helps." in html
    assert cast.reviewer.username not in html
    assert "famous-model" not in html
    assert "/answer/" not in html
    assert "/publish/" not in html
    client.post(f"{page}close/")
    question.refresh_from_db()
    assert question.state == "closed"
    assert "answer to your question" not in html_of(client.get("/p/shop/label/"))


def test_labelers_see_nobodys_questions_but_their_own(cast, enter, lease):
    question = asked(lease)
    other = person("other-labeler")
    add_member(project=cast.project, user=other, role="labeler", by=cast.admin)
    client = enter(other)
    assert "May it be long?" not in html_of(client.get("/p/shop/questions/"))
    assert client.get(f"/p/shop/questions/{question.pk}/").status_code == 404
    assert client.post(f"/p/shop/questions/{question.pk}/close/").status_code == 404
    mine = html_of(enter(cast.reviewer).get("/p/shop/questions/?whose=mine"))
    assert "May it be long?" not in mine


def test_a_lead_publishes_in_their_own_words(cast, enter, lease):
    question = asked(lease)
    questions.answer(question=question, text="Yes.", by=cast.reviewer)
    client, url = enter(cast.admin), f"/p/shop/questions/{question.pk}/"
    assert 'value="May it be long?"' in html_of(client.get(url))
    half = client.post(f"{url}publish/", {"question-en": "Length?"}, follow=True)
    assert "answer in en needs" in html_of(half)
    form = {
        "question-en": "How long may an answer be?", "answer-en": "As long as it helps.",
        "question-zh-hans": "回答可以多长？", "answer-zh-hans": "有用就可以。",
    }  # fmt: skip
    client.post(f"{url}publish/", form)
    newest = current_guideline(cast.project)
    assert newest.faq_in("en")[0]["question"] == "How long may an answer be?"
    assert newest.faq_in("zh-hans")[0]["answer"] == "有用就可以。"
    html = html_of(client.get(url))
    assert "from version 2 on" in html
    assert "/publish/" not in html


def test_what_waits_is_counted_for_each_by_role_and_never_far(
    cast, lease, django_assert_num_queries
):
    members = {one.role: one for one in cast.project.memberships.select_related("project")}
    first, _second = asked(lease, "One?"), asked(lease, "Two?")
    questions.answer(question=first, text="Yes.", by=cast.reviewer)
    counts = {role: questions_waiting(one) for role, one in members.items()}
    assert counts == {"admin": 1, "reviewer": 1, "labeler": 1, "researcher": 0}
    assert desk_of(members["labeler"]) == Desk(sent_back=0, answers=1)
    assert desk_of(members["reviewer"]) == Desk(sent_back=0, answers=0)
    with django_assert_num_queries(1) as asked_for:
        questions_waiting(members["reviewer"])
    assert "LIMIT 100" in asked_for.captured_queries[0]["sql"]


def test_the_list_is_filtered_and_paged(cast, enter, lease, monkeypatch):
    monkeypatch.setattr("annotation.pages.questions.ROWS_PER_PAGE", 2)
    made = [asked(lease, f"Number {n}?") for n in range(4)]
    questions.close(question=made[3], by=cast.admin)
    client = enter(cast.admin)
    html = html_of(client.get("/p/shop/questions/"))
    assert re.findall(r"Number \d", html) == ["Number 2", "Number 1"]
    older = re.search(r'href="\?(before=\d+)"', html)[1]
    assert re.findall(r"Number \d", html_of(client.get(f"/p/shop/questions/?{older}"))) == [
        "Number 0"
    ]
    closed = html_of(client.get("/p/shop/questions/?state=closed&before=x"))
    assert re.findall(r"Number \d", closed) == ["Number 3"]
