"""The guideline beside the task, by keys: open and close, turn the sheet, what changed is read."""

import pytest

from annotation.models import GuidelineReading
from annotation.services.guidelines import acknowledge
from annotation.services.projects import annotator_for, current_guideline, new_guideline

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def write(cast, english, chinese):
    texts = {"en": english, "zh-hans": chinese}
    return new_guideline(project=cast.project, texts=texts, by=cast.admin)


def test_what_changed_is_read_and_put_away_with_a_key(visitor, cast):
    write(cast, "Be kind.", "要有礼貌。")
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    acknowledge(annotator=annotator, guideline=current_guideline(cast.project))
    write(cast, "Be very kind.", "要很有礼貌。")
    cast.ask("First?", ["Yes.", "No."])
    visitor.enter(cast.labeler)
    visitor.wait_for("#guideline-news ins:has-text('very')")
    cast.ask("Second?", ["Yes.", "No."])
    visitor.keys("k")
    visitor.wait_for("#guideline-news:has-text('you have read version 3')")
    assert GuidelineReading.objects.latest("pk").guideline == current_guideline(cast.project)
    visitor.keys("1", "1")
    visitor.wait_for(".turn:has-text('Second?')")
    assert visitor.do(lambda page: page.locator("#guideline-known").count()) == 0


def test_the_other_language_and_the_whole_guideline_are_a_key_away(visitor, cast):
    write(cast, "Be kind.", "要有礼貌。")
    cast.ask("First?", ["Yes.", "No."])
    visitor.enter(cast.labeler)
    visitor.wait_for(".guideline :text('Be kind.')")
    assert not visitor.do(lambda page: page.is_visible(".guideline :text('要有礼貌。')"))
    visitor.keys("o")
    visitor.wait_for(".guideline :text('要有礼貌。')")
    assert not visitor.do(lambda page: page.is_visible(".guideline :text('Be kind.')"))
    visitor.keys("o", "g")
    visitor.do(lambda page: page.wait_for_selector(".guideline .sheet", state="hidden"))
    visitor.keys("g")
    visitor.wait_for(".guideline :text('Be kind.')")


def test_letters_in_a_note_turn_no_sheets(visitor, cast):
    write(cast, "Be kind.", "要有礼貌。")
    cast.ask("First?", ["Yes.", "No."])
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.keys("n")
    visitor.do(lambda page: page.keyboard.type("ok, good"))
    assert visitor.do(lambda page: page.input_value("textarea[name=note]")) == "ok, good"
    assert not GuidelineReading.objects.exists()
    assert visitor.do(lambda page: page.is_visible(".guideline :text('Be kind.')"))


def test_the_preview_follows_the_form(visitor, cast):
    write(cast, "Be kind.", "要有礼貌。")
    visitor.enter(cast.reviewer, "/p/shop/guideline/")
    visitor.do(lambda page: page.fill("[name=text-en]", "Be **very** kind."))
    visitor.wait_for("#guideline-preview strong:has-text('very')")
    visitor.wait_for("#guideline-preview ins:has-text('very')")
    visitor.do(lambda page: page.click("text=Save as a new version"))
    visitor.wait_for(".messages:has-text('Guideline 3 is in force.')")
