"""The chat as pages: what a writer sees, blind; what leads see; and each step as a plain form."""

import re

import pytest
from django.urls import reverse

from annotation.models import LiveSetup, LiveThread, ModelVersion, Preference
from annotation.services import live
from annotation.services.projects import annotator_for, change_member, new_scheme
from tests.annotation.live_world import make_policy, open_chat, ready_turn, start, write
from tests.annotation.test_live import FIRST

HTMX = {"HX-Request": "true"}


@pytest.fixture
def writer(cast):
    """The labeler's annotator, with an open chat before them."""
    first, second = make_policy(cast.project, "secret"), make_policy(cast.project, "hidden")
    open_chat(cast.project, version_a=first, version_b=second, temperature_a=0.31)
    return annotator_for(user=cast.labeler, project=cast.project)


@pytest.fixture
def client(cast, enter):
    return enter(cast.labeler)


def page(client, thread: LiveThread, **headers) -> str:
    response = client.get(reverse("chat", args=["shop", thread.pk]), headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def fields(html: str) -> dict[str, str]:
    """The hidden fields of the last form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html))


def test_from_the_first_message_to_the_answer_by_plain_forms(writer, client):
    listed = client.get(reverse("chats", args=["shop"])).content.decode()
    sent = {"key": fields(listed)["key"], "message": "Is it <b>in</b> stock?", "language": "en"}
    response = client.post(reverse("chat-start", args=["shop"]), sent)
    thread = LiveThread.objects.get()
    assert response.url == reverse("chat", args=["shop", thread.pk])
    assert client.post(reverse("chat-start", args=["shop"]), sent).url == response.url
    busy = page(client, thread)
    assert "being written" in busy
    assert "&lt;b&gt;in&lt;/b&gt;" in busy
    turn = write(thread.turns.get(), "**Yes**, it is.", "No.")
    ready = page(client, thread)
    assert "<strong>Yes</strong>" in ready
    chosen = {"key": fields(ready)["key"], "axis0-choice": "1"}
    response = client.post(reverse("chat-choose", args=["shop", thread.pk, 1]), chosen)
    assert response.url == reverse("chat", args=["shop", thread.pk])
    assert Preference.objects.get().counted
    turn.refresh_from_db()
    assert turn.continued_with == turn.answers.get(place=1).text
    going_on = page(client, thread)
    said = {"key": fields(going_on)["key"], "message": "How much?"}
    client.post(reverse("chat-say", args=["shop", thread.pk]), said)
    assert thread.turns.count() == 2


def test_nothing_tells_who_writes_or_how_warm_before_the_end_or_after(writer, client):
    thread = start(writer)
    looks = [page(client, thread), page(client, thread, **HTMX)]
    turn = write(thread.turns.get())
    looks += [page(client, thread), page(client, thread, **HTMX)]
    live.choose(turn=turn, answer=FIRST, key="k")
    looks += [page(client, thread), client.get(reverse("chats", args=["shop"])).content.decode()]
    looks.append(
        client.get(
            reverse("preference", args=["shop", Preference.objects.get().pk])
        ).content.decode()
    )
    live.end_thread(thread=thread)
    looks.append(page(client, thread))
    names = list(ModelVersion.objects.values_list("name", flat=True))
    for html in looks:
        for word in (*names, "0.31", "temperature", "version_"):
            assert word not in html


def test_a_failure_is_told_without_its_reason(writer, client):
    thread = start(writer)
    turn = thread.turns.get()
    thread.turns.update(state="failed", error="No directory models/secret-1.")
    html = page(client, thread)
    assert "could not be answered" in html
    assert "models/" not in html
    client.post(reverse("chat-again", args=["shop", thread.pk]))
    turn.refresh_from_db()
    assert turn.state == "waiting"


def test_the_page_asks_again_only_for_what_has_changed(writer, client):
    thread = start(writer)
    seen = re.search(r"\?seen=([\w-]+)", page(client, thread))[1]
    url = f"{reverse('chat', args=['shop', thread.pk])}?seen={seen}"
    assert client.get(url, headers=HTMX).status_code == 204
    write(thread.turns.get())
    response = client.get(url, headers=HTMX)
    assert response.status_code == 200
    assert "Which answer is better?" in response.content.decode()


def test_a_stream_is_not_to_be_had_from_a_server_that_cannot(writer, client):
    thread = start(writer)
    response = client.get(reverse("chat-stream", args=["shop", thread.pk, 1]))
    assert (response.status_code, response.content) == (204, b"")


def test_a_refused_choice_keeps_what_was_written(writer, client):
    turn = ready_turn(writer)
    url = reverse("chat-choose", args=["shop", turn.thread.pk, 1])
    sent = {"key": "k", "axis0-choice": "tie", "note": "so so"}
    response = client.post(url, sent, headers=HTMX)
    assert response.status_code == 422
    html = response.content.decode()
    assert "Say which answer the conversation goes on from" in html
    assert "so so" in html
    assert re.search(r'value="tie"[^>]*checked', html)
    assert client.post(url, {**sent, "on": "2"}, headers=HTMX).status_code == 200
    turn.refresh_from_db()
    assert turn.continued_with == turn.answers.get(place=2).text


def test_an_edit_and_an_end_in_one(writer, client):
    turn = ready_turn(writer)
    url = reverse("chat-choose", args=["shop", turn.thread.pk, 1])
    client.post(
        url, {"key": "k", "axis0-choice": "both_bad", "edited": "Come by.\r\nNow.", "end": "1"}
    )
    turn.refresh_from_db()
    assert turn.continued_with == "Come by.\nNow."
    assert turn.preference.ideal.text == "Come by.\nNow."
    html = page(client, turn.thread)
    assert "in your words" in html
    assert "has ended" in html


def test_a_second_tab_is_shown_how_it_stands(writer, client):
    turn = ready_turn(writer)
    live.choose(turn=turn, answer=FIRST, key="k")
    url = reverse("chat-choose", args=["shop", turn.thread.pk, 1])
    response = client.post(url, {"key": "other", "axis0-choice": "2"}, headers=HTMX)
    assert response.status_code == 422
    assert "had moved on" in response.content.decode()
    assert Preference.objects.count() == 1


def test_what_else_the_scheme_asks_stands_in_the_form(writer, client, cast):
    options = {
        "strength_steps": 2,
        "ratings": [{"name": "correct", "low": 1, "high": 5}],
        "flags": ["unsafe"],
        "reason": "required",
    }
    new_scheme(project=cast.project, by=cast.admin, options=options)
    turn = ready_turn(writer)
    assert "2 clearly better" in page(client, turn.thread)
    sent = {
        "key": "k",
        "axis0-choice": "2+2",
        "rating0-1": "2",
        "rating0-2": "5",
        "flags-1": "unsafe",
        "note": "rude",
    }
    client.post(reverse("chat-choose", args=["shop", turn.thread.pk, 1]), sent)
    preference = Preference.objects.get()
    left, _right = preference.presented_order
    assert preference.rankings.get().strengths == [2]
    assert preference.judgments.get(completion=left).flags == ["unsafe"]


def test_anothers_conversation_is_not_there(writer, cast, enter):
    turn = ready_turn(writer)
    other = enter(cast.reviewer)
    thread = turn.thread.pk
    assert other.get(reverse("chat", args=["shop", thread])).status_code == 404
    assert other.get(reverse("chat-stream", args=["shop", thread, 1])).status_code == 404
    for name, more in (
        ("chat-say", []),
        ("chat-end", []),
        ("chat-again", []),
        ("chat-choose", [1]),
    ):
        assert other.post(reverse(name, args=["shop", thread, *more])).status_code == 404


def test_leads_see_texts_and_models(writer, cast, enter):
    turn = ready_turn(writer)
    live.choose(turn=turn, answer=FIRST, key="k", edited="Better so.")
    lead = enter(cast.reviewer)
    listed = lead.get(reverse("conversations", args=["shop"])).content.decode()
    assert turn.thread.version_a.name in listed
    assert cast.labeler.username not in listed
    html = lead.get(reverse("conversation", args=["shop", turn.thread.pk])).content.decode()
    for word in ("In the shop.", "By post.", "Better so.", turn.thread.version_b.name, "0.31"):
        assert word in html


def test_a_lead_who_writes_is_blind_until_the_end(writer, cast, enter):
    lead = enter(cast.reviewer)
    turn = ready_turn(annotator_for(user=cast.reviewer, project=cast.project))
    live.choose(turn=turn, answer=FIRST, key="k")
    pages = [
        reverse("conversation", args=["shop", turn.thread.pk]),
        reverse("conversations", args=["shop"]),
        reverse("preference", args=["shop", Preference.objects.get().pk]),
    ]
    for one in pages:
        assert turn.thread.version_a.name not in lead.get(one).content.decode()
    live.end_thread(thread=turn.thread)
    for one in pages:
        assert turn.thread.version_a.name in lead.get(one).content.decode()


def test_an_admin_says_who_answers(cast, enter):
    version = make_policy(cast.project)
    client = enter(cast.admin)
    assert "Who answers" in client.get(reverse("conversations", args=["shop"])).content.decode()
    sent = {
        "is_open": "on",
        "version_a": version.pk,
        "temperature_a": "0.5",
        "version_b": "",
        "temperature_b": "1.5",
        "max_new_tokens": "40",
        "max_turns": "3",
        "max_threads_per_day": "4",
    }
    client.post(reverse("live-setup", args=["shop"]), sent)
    setup = LiveSetup.objects.get()
    assert (setup.version_a, setup.version_b, setup.temperature_b) == (version, None, 1.5)
    assert (setup.max_new_tokens, setup.max_turns, setup.max_threads_per_day) == (40, 3, 4)
    cast.project.refresh_from_db()
    assert cast.project.chat_open
    del sent["is_open"]
    client.post(reverse("live-setup", args=["shop"]), {**sent, "temperature_a": "3"})
    cast.project.refresh_from_db()
    assert cast.project.chat_open  # the form was refused whole
    client.post(reverse("live-setup", args=["shop"]), sent)
    cast.project.refresh_from_db()
    assert not cast.project.chat_open


def test_the_tab_is_there_where_the_chat_is_open(cast, enter):
    client = enter(cast.labeler)
    link = f'href="{reverse("chats", args=["shop"])}"'
    overview = reverse("overview", args=["shop"])
    assert link not in client.get(overview).content.decode()
    make_policy(cast.project)
    open_chat(cast.project)
    assert link in client.get(overview).content.decode()


def test_languages_are_the_writers_own(writer, client, cast):
    assert "<option>en</option><option>zh</option>" in client.get(
        reverse("chats", args=["shop"])
    ).content.decode().replace("\n", "")
    member = cast.project.memberships.get(user=cast.labeler)
    change_member(membership=member, by=cast.admin, languages=["zh"])
    html = client.get(reverse("chats", args=["shop"])).content.decode()
    assert '<input type="hidden" name="language" value="zh">' in html


def test_the_lists_have_a_query_budget(writer, cast, enter, client, django_assert_max_num_queries):
    for number in range(12):
        ready_turn(writer, f"Question {number}?")
    with django_assert_max_num_queries(12):
        client.get(reverse("chats", args=["shop"]))
    lead = enter(cast.reviewer)
    with django_assert_max_num_queries(8):
        lead.get(reverse("conversations", args=["shop"]))
