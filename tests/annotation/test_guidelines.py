"""Guideline versions: texts per language, entries below them, who has read which."""

import importlib
from types import SimpleNamespace

import pytest

from annotation.errors import BadInput, Conflict
from annotation.models import AuditEntry, Guideline, GuidelineReading
from annotation.services.guidelines import acknowledge, add_entry, change_entry, last_read
from annotation.services.projects import checked_texts, current_guideline, new_guideline
from tests.annotation.making import make_annotator, make_project

pytestmark = pytest.mark.django_db
LONG = {"en": {"question": "May it be long?", "answer": "Only where that helps."}}
TIES = {"zh-hans": {"question": "什么时候选平局？", "answer": "一样好的时候。"}}


@pytest.fixture
def project():
    return make_project()


def test_a_project_begins_with_both_languages(project):
    assert sorted(current_guideline(project).texts) == ["en", "zh-hans"]


@pytest.mark.parametrize(
    ("texts", "reader", "shown"),
    [
        ({"en": "E", "zh-hans": "Z"}, "zh-hans", "Z"),
        ({"en": "E", "zh-hans": "Z"}, "en", "E"),
        ({"en": "E", "zh": "Z"}, "zh-hans", "Z"),
        ({"zh-hans": "Z", "de": "D"}, "en", "D"),
        ({"zh-hans": "Z"}, "en", "Z"),
    ],
)
def test_a_reader_gets_their_language_or_the_nearest(texts, reader, shown):
    assert Guideline(texts=texts).text_in(reader) == shown


def test_every_edit_is_a_version_and_the_older_ones_stay(project):
    first = current_guideline(project)
    second = new_guideline(project=project, texts={"en": "Be kind.\r\n", "de": " "}, by=None)
    assert (second.version, second.texts) == (2, {"en": "Be kind.\n"})
    assert Guideline.objects.get(pk=first.pk).texts == first.texts
    assert current_guideline(project) == second


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "can't be empty"),
        ({"en": " "}, "can't be empty"),
        ({"English!": "Be kind."}, "a tag such as en or zh-hans: 'English!'"),
        ({"en": "x" * 40_001}, "at most 40000 characters, not 40001"),
        ({"en": "a\x00b"}, "NUL"),
    ],
)
def test_what_is_no_guideline_is_refused(texts, words):
    with pytest.raises(BadInput, match=words):
        checked_texts(texts)


def test_two_leads_do_not_overwrite_each_other(project):
    new_guideline(project=project, texts={"en": "Mine."}, by=None, base=1)
    with pytest.raises(Conflict, match="Guideline 2 was made meanwhile; yours was begun from 1"):
        new_guideline(project=project, texts={"en": "Mine too."}, by=None, base=1)
    assert current_guideline(project).texts == {"en": "Mine."}


def test_an_entry_makes_a_version_and_an_edit_of_the_text_keeps_it(project):
    made, first = add_entry(project=project, texts=LONG, by=None)
    assert made.version == 2
    assert made.texts == project.guidelines.get(version=1).texts
    edited = new_guideline(project=project, texts={"en": "Be kind."}, by=None)
    assert edited.faq == [{"id": first, "texts": LONG}]
    _, second = add_entry(project=project, texts=TIES, by=None)
    assert second != first
    newest = current_guideline(project)
    assert [words["question"] for words in newest.faq_in("en")] == [
        "May it be long?",
        "什么时候选平局？",  # better in another language than not at all
    ]
    assert newest.whole("en").endswith("### 什么时候选平局？\n\n一样好的时候。")


def test_an_entry_is_reworded_and_withdrawn(project):
    _, first = add_entry(project=project, texts=LONG, by=None)
    _, second = add_entry(project=project, texts=TIES, by=None)
    change_entry(project=project, entry=first, texts=LONG | TIES, by=None)
    assert [entry["id"] for entry in current_guideline(project).faq] == [first, second]
    assert current_guideline(project).faq[0]["texts"] == LONG | TIES
    gone = change_entry(project=project, entry=first, texts={}, by=None)
    assert [entry["id"] for entry in gone.faq] == [second]
    with pytest.raises(Conflict, match=f"Guideline 5 has no entry {first}"):
        change_entry(project=project, entry=first, texts=LONG, by=None)
    _, third = add_entry(project=project, texts=LONG, by=None)
    assert third not in (first, second)  # an id names one entry for ever
    assert AuditEntry.objects.filter(action="guideline.new").count() == 6


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, "in one language at least"),
        ({"en": {"question": " ", "answer": ""}}, "in one language at least"),
        ({"en": {"question": "Why?", "answer": " "}}, "answer in en needs 1 to 4000"),
        ({"en": {"question": "x" * 501, "answer": "No."}}, "1 to 500 characters, not 501"),
        ({"?": {"question": "Why?", "answer": "No."}}, "a tag such as"),
    ],
)
def test_half_an_entry_is_refused(project, texts, words):
    with pytest.raises(BadInput, match=words):
        add_entry(project=project, texts=texts, by=None)
    assert project.guidelines.count() == 1


def test_reading_twice_is_reading_once_and_the_newest_counts(project):
    annotator, other = make_annotator(project), make_annotator(project)
    assert last_read(annotator) is None
    first = current_guideline(project)
    second = new_guideline(project=project, texts={"en": "Be kind."}, by=None)
    for guideline in (second, first, second):
        acknowledge(annotator=annotator, guideline=guideline)
    assert GuidelineReading.objects.count() == 2
    assert last_read(annotator) == second
    assert last_read(other) is None


def test_another_projects_guideline_is_not_read(project):
    strange = current_guideline(make_project())
    with pytest.raises(BadInput, match="another project"):
        acknowledge(annotator=make_annotator(project), guideline=strange)


@pytest.mark.parametrize(
    ("text", "language"), [("Be **kind**.", "en"), ("要**有礼貌**。", "zh-hans"), ("---", "en")]
)
def test_guidelines_of_before_get_their_language(text, language):
    migration = importlib.import_module("annotation.migrations.0009_guideline_languages")
    saved = []
    row = SimpleNamespace(text=text, save=lambda update_fields: saved.append(update_fields))
    table = SimpleNamespace(objects=SimpleNamespace(all=lambda: [row]))
    migration.to_texts(SimpleNamespace(get_model=lambda *_name: table), None)
    assert row.texts == {language: text}
    assert saved == [["texts"]]
