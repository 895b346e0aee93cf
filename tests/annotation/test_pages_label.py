"""The labeling page without JavaScript and as htmx asks for it."""

import re
from unittest.mock import patch

import pytest
from django.utils import timezone

from annotation import markdown
from annotation.models import (
    Assignment,
    AssignmentState,
    Comparison,
    Completion,
    Guideline,
    Preference,
    Prompt,
)
from annotation.services import queue
from annotation.services.ledger import open_comparison, record_generation
from annotation.services.projects import add_member, annotator_for, new_scheme
from tests.annotation.making import make_project

PAIR = ["Sure, **at once**.", "No."]
HTMX = {"HX-Request": "true"}
TURN = ("user", "assistant")


def key_in(html: str) -> str:
    return re.search(r'name="key" value="([0-9a-f]{32})"', html)[1]


@pytest.fixture
def at_work(cast, enter):
    """The labeler's browser with one pair in hand, and its lease."""
    cast.ask("Can you help?", PAIR)
    client = enter(cast.labeler)
    page = client.get("/p/shop/label/")
    return client, Assignment.objects.get(), key_in(page.content.decode())


def test_the_page_shows_the_pair_in_the_order_of_the_lease(cast, enter):
    cast.ask("Can you help?", PAIR)
    html = enter(cast.labeler).get("/p/shop/label/").content.decode()
    lease = Assignment.objects.get()
    html = re.sub(r'<template class="raw">.*?</template>', "", html, flags=re.DOTALL)
    shown = re.findall(r"Sure, <strong>at once</strong>|No\.", html)
    texts = dict(cast.comparisons[0].completions.values_list("pk", "text"))
    expected = ["No." if texts[pk] == "No." else "Sure, <strong>at once</strong>"
                for pk in lease.presented_order]  # fmt: skip
    assert shown == expected


def test_nothing_is_preselected_and_nothing_tells_who_wrote_it(cast, enter):
    comparison = cast.ask("Can you help?", PAIR)
    prompt, source = comparison.prompt, cast.project.sources.get()
    Comparison.objects.update(retired_at=timezone.now())
    texts = [
        Completion.objects.create(
            pk=pk, prompt=prompt, source=source, text=f"T{pk % 7}", text_hash=pk
        )
        for pk in (880441, 880442)
    ]
    record_generation(completion=texts[0], origin="imported", writer="famous-model")
    open_comparison(batch=comparison.batch, prompt=prompt, completions=texts, answers_wanted=1)
    html = enter(cast.labeler).get("/p/shop/label/").content.decode()
    assert "checked" not in html
    assert "88044" not in html
    assert "famous-model" not in html


def test_a_page_of_costly_texts_comes_soon_and_whole(cast, enter):
    """Each turn fits alone, and all of them would take the parser half a minute."""
    comparison = cast.ask("Which?", PAIR)
    costly = "![" * 19_000
    turns = [{"role": role, "content": f"{n} {costly}"} for n in range(20) for role in TURN]
    turns.append({"role": "user", "content": "The last."})
    Prompt.objects.filter(pk=comparison.prompt_id).update(messages=turns)
    with patch.object(markdown, "render", wraps=markdown.render) as render:
        html = enter(cast.labeler).get("/p/shop/label/").content.decode()
    assert sum(len(call.args[0]) for call in render.call_args_list) <= markdown.MAX_CHARACTERS
    assert html.count(costly) == 40
    assert "<strong>at once</strong>" in html
    assert "<p>The last.</p>" in html


def test_an_answer_is_stored_by_completion_id(cast, at_work):
    client, lease, key = at_work
    answer = {"key": key, "axis0-choice": "2", "note": " Shorter. "}
    response = client.post(f"/p/shop/label/{lease.pk}/submit/", answer)
    assert response.status_code == 302
    preference = Preference.objects.get()
    first, second = lease.presented_order
    assert preference.rankings.get().groups == [[second], [first]]
    assert (preference.note, preference.counted) == ("Shorter.", True)


def test_htmx_gets_the_next_comparison_in_the_answer(cast, at_work):
    client, lease, key = at_work
    cast.ask("And now?", ["This.", "That."])
    response = client.post(
        f"/p/shop/label/{lease.pk}/submit/", {"key": key, "axis0-choice": "1"}, headers=HTMX
    )
    html = response.content.decode()
    assert response.status_code == 200
    assert "And now?" in html
    assert "<html" not in html
    assert "Saved. Here is the next." in html


@pytest.mark.parametrize("act", ["submit", "skip", "renew"])
def test_ones_lease_in_another_project_is_not_there_under_this_ones_name(cast, at_work, act):
    client, lease, key = at_work
    other = make_project("other")
    add_member(project=other, user=cast.labeler, role="labeler", by=None)
    annotator_for(user=cast.labeler, project=other)
    form = {"key": key, "axis0-choice": "1", "reason": "Too long"}
    assert client.post(f"/p/other/label/{lease.pk}/{act}/", form).status_code == 404
    before, state = lease.expires_at, lease.state
    lease.refresh_from_db()
    assert (lease.expires_at, lease.state) == (before, state)
    assert not Preference.objects.exists()


@pytest.mark.parametrize("place", ["9" * 5000, "²", "-1", "1.0", "0", "4"])
def test_a_place_that_is_none_is_a_sentence(cast, enter, place):
    cast.ask("Which?", ["This.", "That.", "Those."])
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    lease = Assignment.objects.get()
    form = {"key": "k", "axis0-place-A": place, "axis0-place-B": "1"}
    response = client.post(f"/p/shop/label/{lease.pk}/submit/", form)
    assert response.status_code == 422
    assert "The place of A must be a number from 1 to 3" in response.content.decode()


def test_the_same_key_twice_is_one_answer_and_shows_the_next(cast, at_work):
    client, lease, key = at_work
    url = f"/p/shop/label/{lease.pk}/submit/"
    client.post(url, {"key": key, "axis0-choice": "1"}, headers=HTMX)
    again = client.post(url, {"key": key, "axis0-choice": "2"}, headers=HTMX)
    assert again.status_code == 200
    assert Preference.objects.get().rankings.get().groups[0] == [lease.presented_order[0]]


def test_a_second_tab_is_told_and_goes_on(cast, at_work):
    client, lease, key = at_work
    url = f"/p/shop/label/{lease.pk}/submit/"
    client.post(url, {"key": key, "axis0-choice": "1"}, headers=HTMX)
    second = client.post(url, {"key": "other", "axis0-choice": "2"}, headers=HTMX)
    assert "had been answered or given back before" in second.content.decode()
    assert Preference.objects.count() == 1


def test_a_refused_answer_loses_nothing_that_was_typed(cast, enter):
    cast.ask("Which?", ["One.", "Two.", "Three."])
    client = enter(cast.labeler)
    key = key_in(client.get("/p/shop/label/").content.decode())
    lease = Assignment.objects.get()
    answer = {"key": key, "axis0-place-A": "7", "axis0-place-B": "1", "note": "hm"}
    response = client.post(f"/p/shop/label/{lease.pk}/submit/", answer, headers=HTMX)
    html = response.content.decode()
    assert response.status_code == 422
    assert "The place of A must be a number from 1 to 3: 7" in html
    assert 'name="axis0-place-B" value="1"' in html
    assert ">hm</textarea>" in html
    assert key_in(html) == key
    assert not Preference.objects.exists()


def test_a_late_answer_is_kept_and_said_so(cast, at_work):
    client, lease, key = at_work
    Assignment.objects.update(expires_at=timezone.now())
    queue.sweep_expired_leases()
    other = annotator_for(user=cast.reviewer, project=cast.project)
    theirs = queue.claim_comparison(annotator=other)
    queue.submit_preference(
        assignment=theirs, rankings=[queue.AxisRanking(outcome="equal")], key="theirs"
    )
    answer = {"key": key, "axis0-choice": "1"}
    response = client.post(f"/p/shop/label/{lease.pk}/submit/", answer, headers=HTMX)
    assert "it is kept, but does not count" in response.content.decode()
    assert Preference.objects.get(idempotency_key=key).counted is False


def test_skip_needs_a_reason_and_gives_the_place_back(cast, at_work):
    client, lease, _key = at_work
    url = f"/p/shop/label/{lease.pk}/skip/"
    assert client.post(url, {}, headers=HTMX).status_code == 422
    client.post(url, {"reason": "language", "other": "is Finnish"}, headers=HTMX)
    lease.refresh_from_db()
    assert (lease.state, lease.skip_reason) == (AssignmentState.SKIPPED, "language is Finnish")
    cast.comparisons[0].refresh_from_db()
    assert cast.comparisons[0].open_slots == 1


def test_the_heartbeat_renews_and_tells_when_the_lease_is_lost(cast, at_work):
    client, lease, _key = at_work
    url = f"/p/shop/label/{lease.pk}/renew/"
    before = lease.expires_at
    assert client.post(url).status_code == 204
    lease.refresh_from_db()
    assert lease.expires_at > before
    queue.release_lease(assignment=lease)
    assert "Your time for this one has run out" in client.post(url).content.decode()


def test_prefetch_holds_the_next_and_gives_its_page(cast, at_work):
    client, _lease, _key = at_work
    assert client.post("/p/shop/label/prefetch/", headers=HTMX).status_code == 204
    cast.ask("And now?", ["This.", "That."])
    html = client.post("/p/shop/label/prefetch/", headers=HTMX).content.decode()
    assert "And now?" in html
    assert "<html" not in html
    ahead = Assignment.objects.get(kind="prefetched", holds_slot=True)
    assert f'data-lease="{ahead.pk}"' in html


def test_what_the_page_has_painted_is_not_sent_again(cast, at_work):
    client, lease, key = at_work
    cast.ask("And now?", ["This.", "That."])
    client.post("/p/shop/label/prefetch/", headers=HTMX)
    ahead = Assignment.objects.get(kind="prefetched")
    form = {"key": key, "axis0-choice": "1", "painted": str(ahead.pk)}
    html = client.post(f"/p/shop/label/{lease.pk}/submit/", form, headers=HTMX).content.decode()
    assert "data-painted" in html
    assert "Saved. Here is the next." in html
    assert "And now?" not in html
    ahead.refresh_from_db()
    assert ahead.kind == "active"


def test_a_page_that_painted_something_else_gets_what_is_next(cast, at_work):
    client, lease, key = at_work
    cast.ask("And now?", ["This.", "That."])
    form = {"key": key, "axis0-choice": "1", "painted": str(lease.pk)}
    html = client.post(f"/p/shop/label/{lease.pk}/submit/", form, headers=HTMX).content.decode()
    assert "And now?" in html


def test_somebody_elses_lease_is_not_there(cast, at_work, enter):
    _client, lease, key = at_work
    stranger = enter(cast.reviewer)
    for action in ("submit", "skip", "renew"):
        url = f"/p/shop/label/{lease.pk}/{action}/"
        assert stranger.post(url, {"key": key, "axis0-choice": "1"}).status_code == 404


def test_three_reasons_for_nothing_to_do(cast, enter):
    client = enter(cast.labeler)
    assert "All done" in client.get("/p/shop/label/").content.decode()
    cast.ask("Can you help?", PAIR)
    queue.claim_comparison(annotator=annotator_for(user=cast.reviewer, project=cast.project))
    busy = client.get("/p/shop/label/").content.decode()
    assert "Others are at work" in busy
    assert re.search(r'data-countdown="\d+"', busy)
    cast.project.memberships.filter(user=cast.labeler).update(languages=["fi"])
    assert "Nothing for you" in client.get("/p/shop/label/").content.decode()


def test_one_question_per_axis(cast, enter):
    new_scheme(project=cast.project, axes=["helpful", "safe"], by=cast.admin)
    cast.ask("Can you help?", PAIR)
    client = enter(cast.labeler)
    html = client.get("/p/shop/label/").content.decode()
    assert "<legend>helpful</legend>" in html.replace("\n", "")
    lease = Assignment.objects.get()
    answer = {"key": key_in(html), "axis0-choice": "1", "axis1-choice": "cannot_tell"}
    client.post(f"/p/shop/label/{lease.pk}/submit/", answer)
    outcomes = Preference.objects.get().rankings.values_list("axis", "outcome")
    assert sorted(outcomes) == [("helpful", "ranked"), ("safe", "cannot_tell")]


def test_what_the_scheme_forbids_has_no_button(cast, enter):
    new_scheme(project=cast.project, by=cast.admin, allow_tie=False, allow_both_bad=False)
    cast.ask("Can you help?", PAIR)
    html = enter(cast.labeler).get("/p/shop/label/").content.decode()
    assert 'value="tie"' not in html
    assert 'value="both_bad"' not in html
    assert 'value="cannot_tell"' in html


def test_the_guideline_of_the_lease_is_beside_the_work(cast, at_work):
    client, lease, _key = at_work
    Guideline.objects.create(project=cast.project, version=2, texts={"en": "Be *strict*."})
    html = client.get("/p/shop/label/").content.decode()
    assert f"version {lease.guideline.version}" in html
    assert "strict" not in html


def test_the_query_budget_does_not_grow_with_the_queue(cast, enter, django_assert_max_num_queries):
    for number in range(12):
        cast.ask(f"Question {number}?", PAIR)
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    # session, user, membership, annotator, expired leases twice, lease, comparison and its rows,
    # completions, answered today, the last answer, which guideline is read and which is newest,
    # what waits for this person, on the desk and in the navigation
    with django_assert_max_num_queries(21):
        client.get("/p/shop/label/")
