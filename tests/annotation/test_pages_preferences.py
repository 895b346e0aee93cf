"""The list of answers with its filters, one answer's page, voiding."""

import pytest

from annotation.models import Batch, Comparison, Preference, Prompt, Purpose, Split
from annotation.services import queue
from annotation.services.answers import Judgment
from annotation.services.projects import annotator_for, new_scheme
from annotation.services.rankings import AxisRanking


@pytest.fixture
def answers(cast):
    """Three answers of the labeler (first better, equal, both bad) and one of the reviewer."""
    for number in range(4):
        cast.ask(f"Question {number}?", ["Yes.", "No."])
    found = []
    for place, user in enumerate([cast.labeler] * 3 + [cast.reviewer]):
        lease = queue.claim_comparison(annotator=annotator_for(user=user, project=cast.project))
        ranking = [
            AxisRanking(groups=[[pk] for pk in lease.presented_order]),
            AxisRanking(outcome="equal"),
            AxisRanking(outcome="both_bad"),
            AxisRanking(groups=[[pk] for pk in reversed(lease.presented_order)]),
        ][place]
        found.append(
            queue.submit_preference(assignment=lease, rankings=[ranking], key=f"key {place}")
        )
    return found


def listed(html: str, answers) -> list[int]:
    return [n for n, one in enumerate(answers) if f"/p/shop/preferences/{one.pk}/" in html]


def test_a_labeler_sees_their_own_answers_alone(cast, enter, answers):
    client = enter(cast.labeler)
    assert listed(client.get("/p/shop/preferences/").content.decode(), answers) == [0, 1, 2]
    assert client.get(f"/p/shop/preferences/{answers[3].pk}/").status_code == 404
    assert client.get(f"/p/shop/preferences/{answers[0].pk}/").status_code == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("?outcome=ranked", [0, 3]),
        ("?outcome=equal", [1]),
        ("?outcome=both_bad&purpose=production", [2]),
        ("?purpose=gold", []),
        ("?kind=person", [0, 1, 2, 3]),
        ("?kind=simulated", []),
        ("?state=valid", [0, 1, 2, 3]),
        ("?state=voided", []),
        ("?outcome=password", [0, 1, 2, 3]),
        ("?annotator__user__password__startswith=p", [0, 1, 2, 3]),
    ],
)
def test_filters_by_an_allow_list(cast, enter, answers, query, expected):
    html = enter(cast.reviewer).get("/p/shop/preferences/" + query).content.decode()
    assert listed(html, answers) == expected


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "²"])
def test_a_bad_page_mark_is_the_first_page(cast, enter, answers, before):
    html = enter(cast.reviewer).get(f"/p/shop/preferences/?before={before}").content.decode()
    assert listed(html, answers) == [0, 1, 2, 3]


def test_older_answers_are_a_link_away(cast, enter, answers, monkeypatch):
    monkeypatch.setattr("annotation.pages.preferences.ROWS_PER_PAGE", 3)
    client = enter(cast.reviewer)
    html = client.get("/p/shop/preferences/?kind=person").content.decode()
    assert listed(html, answers) == [1, 2, 3]
    link = f"?kind=person&amp;before={answers[1].pk}"
    assert link in html
    older = client.get("/p/shop/preferences/" + link.replace("&amp;", "&")).content.decode()
    assert listed(older, answers) == [0]


def test_an_answer_reads_as_on_the_page_it_was_given_on(cast, enter, answers):
    html = enter(cast.reviewer).get("/p/shop/preferences/").content.decode()
    for words in ("1 &gt; 2", "1 = 2", "Both bad", "2 &gt; 1"):
        assert words in html


def test_an_answer_is_shown_with_all_that_was_said(cast, enter):
    asks = {
        "strength_steps": 4,
        "acceptability": True,
        "ratings": [{"name": "correct", "low": 1, "high": 5}],
        "flags": ["rude words"],
        "ideal": True,
    }
    new_scheme(project=cast.project, by=None, options=asks)
    cast.ask("Why?", ["Yes.", "No."])
    lease = queue.claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    first, second = lease.presented_order
    preference = queue.submit_preference(
        assignment=lease,
        rankings=[AxisRanking(groups=[[second], [first]], strengths=[4], acceptable=1)],
        judgments=[
            Judgment(completion=first, ratings={"correct": 2}, flags=["rude words"]),
            Judgment(completion=second, ratings={"correct": 5}),
        ],
        ideal="So it *should* be.",
        key="k",
    )
    client = enter(cast.labeler)
    said = "2 &gt; 1 (significantly better, good enough: 2)"
    assert said in client.get("/p/shop/preferences/").content.decode()
    html = client.get(f"/p/shop/preferences/{preference.pk}/").content.decode()
    for words in (said, "correct <strong>2</strong>", "rude words", "So it <em>should</em> be."):
        assert words in html


def test_pseudonyms_alone_are_shown(cast, enter, answers):
    client = enter(cast.researcher)
    for url in ("/p/shop/preferences/", f"/p/shop/preferences/{answers[0].pk}/"):
        html = client.get(url).content.decode()
        assert cast.labeler.username not in html
        assert answers[0].annotator.pseudonym in html


def test_a_labeler_stays_blind(cast, enter, answers):
    html = enter(cast.labeler).get(f"/p/shop/preferences/{answers[0].pk}/").content.decode()
    assert "Written by" not in html
    assert "From default" not in html
    assert "From default" in (
        enter(cast.reviewer).get(f"/p/shop/preferences/{answers[0].pk}/").content.decode()
    )


def test_a_labeler_does_not_learn_what_a_question_is_for(cast, enter, answers):
    Comparison.objects.update(purpose=Purpose.GOLD)
    Batch.objects.update(name="the gold batch")
    Prompt.objects.update(split=Split.TEST)
    urls = ("/p/shop/preferences/", f"/p/shop/preferences/{answers[0].pk}/")
    telling = ("Purpose", "Gold", ">Split<", "Test", "the gold batch", "default")
    mine, theirs = (
        [client.get(url).content.decode() for url in urls]
        for client in (enter(cast.labeler), enter(cast.reviewer))
    )
    assert not [(words, html) for words in telling for html in mine if words in html]
    assert all(any(words in html for html in theirs) for words in telling)
    for query in ("?purpose=production", "?split=train"):
        html = enter(cast.labeler).get(urls[0] + query).content.decode()
        assert listed(html, answers) == [0, 1, 2]
        assert listed(enter(cast.reviewer).get(urls[0] + query).content.decode(), answers) == []


def test_a_reviewer_voids_with_a_reason(cast, enter, answers):
    client = enter(cast.reviewer)
    url = f"/p/shop/preferences/{answers[0].pk}/void/"
    response = client.post(url, {"reason": " "}, follow=True)
    assert "reason" in response.content.decode()
    assert Preference.objects.filter(voided_at=None).count() == 4
    response = client.post(url, {"reason": "clicked <b>wrong</b>"}, follow=True)
    answers[0].refresh_from_db()
    assert (answers[0].voided_by, answers[0].counted) == (cast.reviewer, False)
    html = response.content.decode()
    assert "clicked &lt;b&gt;wrong&lt;/b&gt;" in html
    assert "Void it" not in html
    response = client.post(url, {"reason": "again"}, follow=True)
    assert "void already" in response.content.decode()


def test_the_list_has_a_query_budget(cast, enter, answers, django_assert_max_num_queries):
    client = enter(cast.reviewer)
    # session, user, membership, sources that brought answers, answers, rankings, what waits twice
    with django_assert_max_num_queries(8):
        client.get("/p/shop/preferences/?outcome=ranked&kind=person&state=valid")
