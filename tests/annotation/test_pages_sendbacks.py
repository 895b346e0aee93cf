"""Answers sent back, on the pages: the reviewer's comment, the labeler's desk, and the outcome."""

import re

import pytest

from annotation.models import Preference, SendBack
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.sendbacks import send_back
from tests.annotation.making import as_shown


def html_of(response) -> str:
    return response.content.decode()


def answered(cast, question="Can you help?") -> Preference:
    cast.ask(question, ["Yes.", "No."])
    lease = claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    return submit_preference(assignment=lease, rankings=as_shown(lease), key=question)


@pytest.fixture
def stored(cast) -> Preference:
    return answered(cast)


def sent(cast, preference, comment="Is <b>that</b> so?") -> SendBack:
    return send_back(preference=preference, by=cast.reviewer, comment=comment)


def test_a_reviewer_sends_an_answer_back_from_its_page(cast, enter, stored):
    client, page = enter(cast.reviewer), f"/p/shop/preferences/{stored.pk}/"
    assert f'action="{page}send-back/"' in html_of(client.get(page))
    response = client.post(f"{page}send-back/", {"comment": "Read 2 again."}, follow=True)
    assert "it stands first on the labeler" in html_of(response)
    html = html_of(client.get(page))
    assert "Read 2 again." in html
    assert f'action="{page}send-back/"' not in html
    assert "on its way back already" in html_of(
        client.post(f"{page}send-back/", {"comment": "Again."}, follow=True)
    )
    assert SendBack.objects.get().by == cast.reviewer


def test_it_stands_first_on_the_labelers_desk_and_leads_to_the_answer(cast, enter, stored):
    client = enter(cast.labeler)
    assert "came back to you" not in html_of(client.get("/p/shop/label/"))
    one = sent(cast, stored)
    for address in ("/p/shop/label/", "/p/shop/sent-back/"):
        html = html_of(client.get(address))
        assert 'title="waiting for you">1</span>' in html
        assert cast.reviewer.username not in html
    assert "1 of your answers came back to you" in html_of(client.get("/p/shop/label/"))
    html = html_of(client.get("/p/shop/sent-back/"))
    assert "Is &lt;b&gt;that&lt;/b&gt; so?" in html
    link = f"/p/shop/preferences/{stored.pk}/edit/"
    assert link in html
    html = html_of(client.get(link))
    assert "Is &lt;b&gt;that&lt;/b&gt; so?" in html
    assert f"/p/shop/sent-back/{one.pk}/decline/" in html
    own = html_of(client.get(f"/p/shop/preferences/{stored.pk}/"))
    assert "Is &lt;b&gt;that&lt;/b&gt; so?" in own
    assert cast.reviewer.username not in own


def test_the_labeler_revises_it_and_the_reviewer_sees_what_came(cast, enter, stored):
    one, other = sent(cast, stored), sent(cast, answered(cast, "And now?"))
    client = enter(cast.labeler)
    url = f"/p/shop/preferences/{stored.pk}/edit/"
    response = client.post(url, {"axis0-choice": "both_bad"})
    assert response.headers["Location"] == "/p/shop/sent-back/"  # there is one more
    one.refresh_from_db()
    new = Preference.objects.get(revision=2)
    assert (one.state, one.revision, new.cause) == ("revised", new, f"sent back: {one.comment}")
    html = html_of(enter(cast.reviewer).get("/p/shop/sent-back/"))
    assert f'href="/p/shop/preferences/{new.pk}/"' in html
    assert ">Revised</span>" in html
    response = client.post(
        f"/p/shop/preferences/{other.preference_id}/edit/", {"axis0-choice": "both_bad"}
    )
    assert response.headers["Location"] == "/p/shop/label/"


def test_the_labeler_declines_with_words(cast, enter, stored):
    one, client = sent(cast, stored), enter(cast.labeler)
    url = f"/p/shop/sent-back/{one.pk}/decline/"
    assert "A reply has 1 to 2000" in html_of(client.post(url, {"reply": ""}, follow=True))
    client.post(url, {"reply": "It <i>is</i> so."})
    one.refresh_from_db()
    assert (one.state, one.reply) == ("declined", "It <i>is</i> so.")
    assert "came back to you" not in html_of(client.get("/p/shop/label/"))
    html = html_of(enter(cast.reviewer).get(f"/p/shop/preferences/{stored.pk}/"))
    assert "It &lt;i&gt;is&lt;/i&gt; so." in html
    assert "Stands as it was" in html
    assert f'action="/p/shop/preferences/{stored.pk}/send-back/"' in html  # once more, if need be


def test_only_whoever_gave_it_declines_and_only_reviewers_withdraw(cast, enter, stored):
    one = sent(cast, stored)
    for other in (cast.reviewer, cast.admin):
        response = enter(other).post(f"/p/shop/sent-back/{one.pk}/decline/", {"reply": "x"})
        assert response.status_code == 404
    client = enter(cast.labeler)
    assert client.post(f"/p/shop/sent-back/{one.pk}/withdraw/").status_code == 403
    assert client.post(f"/p/shop/preferences/{stored.pk}/send-back/").status_code == 403
    enter(cast.reviewer).post(f"/p/shop/sent-back/{one.pk}/withdraw/")
    one.refresh_from_db()
    assert one.state == "withdrawn"


def test_the_lists_of_labeler_and_reviewer(cast, enter, monkeypatch):
    monkeypatch.setattr("annotation.pages.sendbacks.ROWS_PER_PAGE", 2)
    for number in range(3):
        sent(cast, answered(cast, f"Question {number}?"), f"Number {number}.")
    client = enter(cast.reviewer)
    html = html_of(client.get("/p/shop/sent-back/"))
    assert re.findall(r"Number \d", html) == ["Number 2", "Number 1"]
    older = re.search(r'href="\?(before=\d+)"', html)[1]
    assert "Number 0" in html_of(client.get(f"/p/shop/sent-back/?{older}"))
    assert "Number" not in html_of(client.get("/p/shop/sent-back/?whose=mine"))
    assert "Number" not in html_of(client.get("/p/shop/sent-back/?state=revised"))
