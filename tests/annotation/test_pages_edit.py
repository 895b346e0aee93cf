"""One's own answer again: shown as it was filled in, changed as a revision, nobody else's."""

import pytest

from annotation.models import Preference
from annotation.pages.answers import answer_from, fields_of
from annotation.services import queue
from annotation.services.answers import Judgment
from annotation.services.projects import annotator_for, new_scheme
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference

PAIR, LIST = ["Yes.", "No."], ["One.", "Two.", "Three.", "Four."]
ASKS = {
    "strength_steps": 4,
    "acceptability": True,
    "ratings": [{"name": "correct", "low": 1, "high": 5}],
    "flags": ["unsafe", "rude"],
    "ideal": True,
}


def given(cast, texts, rankings_of, **more) -> Preference:
    """The labeler's answer to a new comparison; rankings_of takes the ids as they were shown."""
    cast.ask(f"{rankings_of} of {len(texts)}?", texts)
    lease = queue.claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    order = lease.presented_order
    if lease.scheme.options:
        more["judgments"] = [
            Judgment(completion=pk, ratings={"correct": 1 + place}, flags=["rude"] * (place % 2))
            for place, pk in enumerate(order)
        ]
    return queue.submit_preference(
        assignment=lease, rankings=rankings_of(order), key=f"key {lease.pk}", **more
    )


def of_pair(**one):
    def rankings(order):
        left, right = order
        named = {"12": [[left], [right]], "21": [[right], [left]], "both": [[left, right]]}
        return [AxisRanking(**{**one, "groups": named.get(one.get("groups"), [])})]

    return rankings


def of_list(places, **one):
    def rankings(order):
        return [AxisRanking(groups=[[order[n] for n in group] for group in places], **one)]

    return rankings


PLAIN = [
    (PAIR, of_pair(groups="12")),
    (PAIR, of_pair(groups="21")),
    (PAIR, of_pair(groups="both", outcome="equal")),
    (PAIR, of_pair(outcome="both_bad")),
    (PAIR, of_pair(outcome="cannot_tell")),
    (LIST, of_list([[3], [0, 1], [2]])),
    (LIST, of_list([[1], [2]])),
    (LIST, of_list([[1, 3]], outcome="equal")),
]
FULL = [
    (PAIR, of_pair(groups="12", strengths=[3], acceptable=1)),
    (PAIR, of_pair(groups="21", strengths=[1], acceptable=0)),
    (PAIR, of_pair(groups="both", outcome="equal", acceptable=1)),
    (PAIR, of_pair(groups="both", outcome="equal", acceptable=0)),
    (PAIR, of_pair(groups="both", outcome="equal")),
    (LIST, of_list([[3], [0, 1], [2]], acceptable=2)),
    (LIST, of_list([[1, 3]], outcome="equal", acceptable=1)),
    (LIST, of_list([[1, 3]], outcome="equal", acceptable=0)),
]


@pytest.mark.parametrize(
    ("asks", "texts", "rankings"),
    [*(({}, *case) for case in PLAIN), *((ASKS, *case) for case in FULL)],
)
def test_the_form_of_a_stored_answer_gives_the_answer_back(cast, asks, texts, rankings):
    new_scheme(project=cast.project, by=None, options=asks)
    more = {"ideal": "Better."} if asks else {}
    stored = given(cast, texts, rankings, note="Because.", **more)
    again = answer_from(fields_of(stored), stored.scheme, stored.presented_order, texts)
    kept = [
        (row.axis, row.outcome, row.groups, row.strengths, row.acceptable)
        for row in stored.rankings.all()
    ]
    read = [
        (one.axis, one.outcome, one.groups, one.strengths, one.acceptable) for one in again.rankings
    ]
    assert read == kept
    said = {row.completion_id: (row.ratings, row.flags) for row in stored.judgments.all()}
    asked = {one.completion: (one.ratings, one.flags) for one in again.judgments}
    assert asked == said if asks else not any(r or f for r, f in asked.values())
    assert (again.note, again.ideal) == ("Because.", more.get("ideal", ""))


def test_a_change_is_a_revision_and_the_older_answer_stays(cast, enter):
    stored = given(cast, PAIR, of_pair(groups="12"), note="Clear.")
    client, url = enter(cast.labeler), f"/p/shop/preferences/{stored.pk}/edit/"
    html = client.get(url).content.decode()
    assert 'value="1"' in html
    assert "checked" in html
    assert "Clear.</textarea>" in html
    assert "data-goes-on" not in html  # it is sent as a form, and leads to another page
    response = client.post(url, {"axis0-choice": "tie", "note": "On second thoughts."})
    assert response.headers["Location"] == "/p/shop/label/"
    old, new = Preference.objects.order_by("pk")
    assert (old.current, new.current, new.revision) == (False, True, 2)
    assert new.rankings.get().outcome == "equal"
    assert (new.note, new.cause, new.counted) == (
        "On second thoughts.", "edited by the annotator", True,
    )  # fmt: skip
    assert client.get(url).status_code == 404  # replaced: the newer one has its own address


def test_what_makes_no_sense_changes_nothing_and_stays_in_the_form(cast, enter):
    stored = given(cast, LIST, of_list([[0], [1]]))
    response = enter(cast.labeler).post(
        f"/p/shop/preferences/{stored.pk}/edit/", {"axis0-place-A": "3", "note": "Hm."}
    )
    html = response.content.decode()
    assert response.status_code == 422
    assert "Give a place to two answers or more." in html
    assert "Hm.</textarea>" in html
    assert Preference.objects.count() == 1


def test_only_ones_own_answers_that_stand_can_be_changed(cast, enter):
    stored = given(cast, PAIR, of_pair(groups="12"))
    url = f"/p/shop/preferences/{stored.pk}/edit/"
    for other in (cast.reviewer, cast.admin, cast.stranger):
        assert enter(other).post(url, {"axis0-choice": "2"}).status_code == 404
    assert enter(cast.researcher).get(url).status_code == 403
    void_preference(preference=stored, by=cast.admin, reason="spam")
    assert enter(cast.labeler).post(url, {"axis0-choice": "2"}).status_code == 404
    assert Preference.objects.get().rankings.get().groups == stored.rankings.get().groups


def test_the_desk_and_the_answer_lead_there(cast, enter):
    stored = given(cast, PAIR, of_pair(groups="12"))
    link = f'href="/p/shop/preferences/{stored.pk}/edit/"'
    client = enter(cast.labeler)
    assert link in client.get("/p/shop/label/").content.decode()  # nothing to do any more
    cast.ask("Next?", PAIR)
    assert link in client.get("/p/shop/label/").content.decode()
    assert link in client.get(f"/p/shop/preferences/{stored.pk}/").content.decode()
    assert (
        link not in enter(cast.reviewer).get(f"/p/shop/preferences/{stored.pk}/").content.decode()
    )
