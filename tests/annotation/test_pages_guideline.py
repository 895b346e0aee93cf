"""The guideline's pages: written by leads, read by everybody, compared version by version; and the
panel beside the task with what changed since it was last read."""

import re

import pytest

from annotation.models import Assignment, Guideline, GuidelineReading, Preference
from annotation.services.guidelines import acknowledge, add_entry
from annotation.services.projects import annotator_for, current_guideline, new_guideline

HTMX = {"HX-Request": "true"}
NEWS, FIRST = "The guideline has changed", "Read the guideline first"


def write(cast, **texts):
    texts = {language.replace("_", "-"): text for language, text in texts.items()}
    return new_guideline(project=cast.project, texts=texts, by=cast.admin)


def html_of(response) -> str:
    return response.content.decode()


def diff_in(html: str) -> str:
    """The diffs of a page as [-removed-] and {+added+}."""
    shown = "".join(re.findall(r'<div class="diff"[^>]*>(.*?)</div>', html, re.DOTALL))
    shown = re.sub(r'<span class="visually-hidden".*?</span>', "", shown)
    for tag, marks in {"ins": ("{+", "+}"), "del": ("[-", "-]")}.items():
        shown = shown.replace(f"<{tag}>", marks[0]).replace(f"</{tag}>", marks[1])
    return shown


@pytest.mark.parametrize("who", ["reviewer", "admin"])
def test_a_lead_writes_the_next_version_in_both_languages(cast, enter, who):
    client = enter(getattr(cast, who))
    html = html_of(client.get("/p/shop/guideline/"))
    assert re.search(r'name="base" value="1"', html)
    form = {"base": "1", "text-en": "Be kind.", "text-zh-hans": "要有礼貌。"}
    assert client.post("/p/shop/guideline/save/", form).status_code == 302
    made = Guideline.objects.get(version=2)
    assert made.texts == {"en": "Be kind.", "zh-hans": "要有礼貌。"}
    assert made.created_by == getattr(cast, who)


def test_a_third_language_can_be_added_and_stays_in_the_form(cast, enter):
    client = enter(cast.admin)
    form = {"base": "1", "text-en": "Be kind.", "other_language": "DE", "other_text": "Freundlich."}
    client.post("/p/shop/guideline/save/", form)
    assert current_guideline(cast.project).texts == {"en": "Be kind.", "de": "Freundlich."}
    assert 'name="text-de"' in html_of(client.get("/p/shop/guideline/"))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"base": "1"}, "A guideline can&#x27;t be empty."),
        ({"base": "1", "text-en": "Mine.", "other_language": "de!", "other_text": "x"}, "de!"),
        ({"base": "0", "text-en": "Mine."}, "was made meanwhile"),
    ],
)
def test_what_cannot_be_saved_stays_in_the_form(cast, enter, form, words):
    response = enter(cast.admin).post("/p/shop/guideline/save/", form)
    assert response.status_code == 422
    assert words in html_of(response)
    assert form.get("text-en", "") in html_of(response)
    assert Guideline.objects.count() == 1


def test_the_preview_shows_how_it_reads_and_what_changes_and_keeps_nothing(cast, enter):
    write(cast, en="Be **kind**.")
    client = enter(cast.reviewer)
    form = {"text-en": "Be very **kind**. <script>alert(1)</script>"}
    html = html_of(client.post("/p/shop/guideline/preview/", form, headers=HTMX))
    assert "Be very <strong>kind</strong>" in html
    assert "<script" not in html
    assert diff_in(html) == ("Be{+ very+} **kind**.{+ &lt;script&gt;alert(1)&lt;/script&gt;+}")
    assert Guideline.objects.count() == 2
    wrong = html_of(client.post("/p/shop/guideline/preview/", {}, headers=HTMX))
    assert "can&#x27;t be empty" in wrong


def test_any_two_versions_are_compared_in_every_language(cast, enter):
    write(cast, en="Be kind.", zh_hans="要有礼貌。")
    write(cast, en="Be very kind.", zh_hans="要有礼貌。")
    write(cast, en="Be short.", zh_hans="要有帮助。")
    client = enter(cast.labeler)
    newest = html_of(client.get("/p/shop/guideline/history/"))
    assert diff_in(newest) == "Be [-very kind-]{+short+}.要有[-礼貌-]{+帮助+}。"
    html = html_of(client.get("/p/shop/guideline/history/?from=2&to=3"))
    assert diff_in(html) == "Be{+ very+} kind."
    assert "Nothing changed." in html
    assert client.get("/p/shop/guideline/history/?from=x&to=99").status_code == 200


def test_leads_see_who_wrote_and_how_many_read_it_and_labelers_do_not(cast, enter):
    write(cast, en="Be kind.")
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    acknowledge(annotator=annotator, guideline=current_guideline(cast.project))
    names = f"<td>{cast.admin.username}</td>"
    html = html_of(enter(cast.reviewer).get("/p/shop/guideline/history/"))
    assert names in html
    assert '<td class="number">1</td>' in html
    assert names not in html_of(enter(cast.labeler).get("/p/shop/guideline/history/"))


def test_leads_see_who_has_not_confirmed_the_newest_version(cast, enter):
    lea = annotator_for(user=cast.labeler, project=cast.project)
    annotator_for(user=cast.reviewer, project=cast.project)  # who leads, and is not waited for
    acknowledge(annotator=lea, guideline=current_guideline(cast.project))
    words, client = "labeler has not confirmed", enter(cast.reviewer)
    assert words not in html_of(client.get("/p/shop/guideline/history/"))
    write(cast, en="Be kind.")
    html = html_of(client.get("/p/shop/guideline/history/"))
    assert f"1 {words}" in html
    assert lea.pseudonym in html
    assert lea.pseudonym not in html_of(enter(cast.labeler).get("/p/shop/guideline/history/"))
    acknowledge(annotator=lea, guideline=current_guideline(cast.project))
    assert words not in html_of(client.get("/p/shop/guideline/history/"))


def test_a_labeler_reads_their_language_first_and_the_other_is_folded(cast, enter):
    write(cast, en="Be kind.", zh_hans="要有礼貌。")
    cast.ask("Can you help?", ["Yes.", "No."])
    client = enter(cast.labeler)
    for language, own, other in (("en", "en", "zh-hans"), ("zh-hans", "zh-hans", "en")):
        client.post("/language/", {"language": language})
        html = html_of(client.get("/p/shop/label/"))
        sheets = re.findall(r'<details class="sheet"[^>]*?(open)?>\s*<summary.*?lang="(.+?)"', html)
        assert sheets == [("open", own), ("", other)]


def test_the_first_reading_is_asked_for_and_noted(cast, enter):
    cast.ask("Can you help?", ["Yes.", "No."])
    client = enter(cast.labeler)
    assert FIRST in html_of(client.get("/p/shop/label/"))
    newest = current_guideline(cast.project)
    noted = html_of(client.post(f"/p/shop/guideline/{newest.pk}/read/", headers=HTMX))
    assert "you have read version 1" in noted
    assert FIRST not in html_of(client.get("/p/shop/label/"))
    reading = GuidelineReading.objects.get()
    assert (reading.annotator.user, reading.guideline) == (cast.labeler, newest)


def test_what_changed_since_is_shown_until_it_is_read_and_the_lease_keeps_its_version(cast, enter):
    """One labeler, one comparison in hand, two more versions, then the next comparison."""
    write(cast, en="Be kind.")
    cast.ask("Can you help?", ["Yes.", "No."])
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    client.post(f"/p/shop/guideline/{current_guideline(cast.project).pk}/read/")
    write(cast, en="Be very kind.")
    write(cast, en="Be very kind and short.")

    html = html_of(client.get("/p/shop/label/"))
    assert NEWS not in html  # the lease follows version 2, which was read
    assert "was given to you under version 2" in html
    assert "Version 4 holds from the next one on" in html

    lease = Assignment.objects.get()
    cast.ask("And now?", ["Yes.", "No."])
    key = re.search(r'name="key" value="([0-9a-f]{32})"', html)[1]
    answer = {"key": key, "axis0-choice": "1"}
    html = html_of(client.post(f"/p/shop/label/{lease.pk}/submit/", answer, headers=HTMX))
    assert Preference.objects.get().guideline.version == 2
    assert NEWS in html
    assert "From version 2, which you read last, to version 4:" in html
    assert diff_in(html) == "Be {+very +}kind{+ and short+}."
    assert "was given to you under" not in html

    client.post(f"/p/shop/guideline/{current_guideline(cast.project).pk}/read/")
    assert NEWS not in html_of(client.get("/p/shop/label/"))


def test_an_entry_of_the_faq_is_news_too(cast, enter):
    write(cast, en="Be kind.")
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    acknowledge(annotator=annotator, guideline=current_guideline(cast.project))
    words = {"en": {"question": "May it be *long*?", "answer": "Only where that **helps**."}}
    add_entry(project=cast.project, texts=words, by=cast.admin)
    cast.ask("Can you help?", ["Yes.", "No."])
    html = html_of(enter(cast.labeler).get("/p/shop/label/"))
    assert "{+\n\n### May it be *long*?\n\nOnly where that **helps**.+}" in diff_in(html)
    assert "<summary>May it be *long*?</summary>" in html
    assert "Only where that <strong>helps</strong>." in html


def test_a_change_in_a_language_one_does_not_read_is_no_news(cast, enter):
    write(cast, en="Be kind.", zh_hans="要有礼貌。")
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    acknowledge(annotator=annotator, guideline=current_guideline(cast.project))
    write(cast, en="Be kind.", zh_hans="要有帮助。")
    cast.ask("Can you help?", ["Yes.", "No."])
    client = enter(cast.labeler)
    assert NEWS not in html_of(client.get("/p/shop/label/"))
    client.post("/language/", {"language": "zh-hans"})
    assert diff_in(html_of(client.get("/p/shop/label/"))) == "要有[-礼貌-]{+帮助+}。"


def test_an_entry_is_reworded_and_withdrawn_by_a_lead(cast, enter):
    words = {"en": {"question": "May it be long?", "answer": "No."}}
    guideline, entry = add_entry(project=cast.project, texts=words, by=cast.admin)
    client, url = enter(cast.reviewer), f"/p/shop/guideline/{guideline.pk}/faq/{entry}/"
    assert 'value="May it be long?"' in html_of(client.get("/p/shop/guideline/"))
    form = {
        "question-en": "May it be long?", "answer-en": "Yes.",
        "question-zh-hans": "可以长吗？", "answer-zh-hans": "可以。",
    }  # fmt: skip
    client.post(url, form)
    newest = current_guideline(cast.project)
    assert newest.faq_in("en") == [{"question": "May it be long?", "answer": "Yes."}]
    assert newest.faq_in("zh-hans") == [{"question": "可以长吗？", "answer": "可以。"}]
    half = client.post(url, {"question-en": "Half?"}, follow=True)
    assert "answer in en needs" in html_of(half)
    client.post(url, {"withdraw": "1"})
    assert current_guideline(cast.project).faq == []
    assert client.post(url, form).status_code == 404
