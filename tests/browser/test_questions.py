"""A question to the lead by keys, and an item that is put aside."""

import pytest

from annotation.models import Assignment, AssignmentState, Question
from annotation.services import questions

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_question_is_asked_by_keys_and_its_answer_read(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.keys("1", "q")
    visitor.wait_for("#question:popover-open")
    visitor.do(lambda page: page.keyboard.type("May it be long? 2 ok"))
    visitor.keys("Control+Enter")
    visitor.wait_for("#asked:has-text('Your question is with the lead.')")
    assert not visitor.do(lambda page: page.is_visible("#question"))
    assert visitor.do(lambda page: page.locator("input:checked").get_attribute("value")) == "1"
    question = Question.objects.get()
    assert question.text == "May it be long? 2 ok"
    questions.answer(question=question, text="Yes.", by=cast.reviewer)
    visitor.keys("1")
    visitor.wait_for("#desk")
    visitor.keys("i")
    visitor.do(lambda page: page.click("text=May it be long?"))
    visitor.do(lambda page: page.click("text=I have read it"))
    visitor.wait_for("h1:has-text('My questions')")
    assert Question.objects.get().state == "closed"


def test_what_is_put_aside_gives_way_to_the_next(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    cast.ask("Second?", ["Yes.", "No."])
    visitor.keys("q")
    visitor.do(lambda page: page.click("#question button[value=aside]"))
    assert not Question.objects.exists()  # without words nothing is sent
    visitor.do(lambda page: page.fill("#question form:not(.aside) [name=text]", "May it?"))
    visitor.keys("Control+Shift+Enter")
    visitor.wait_for(".turn:has-text('Second?')")
    visitor.wait_for("#says:has-text('Asked and put aside.')")
    aside = Assignment.objects.get(comparison=Question.objects.get().comparison)
    assert aside.state == AssignmentState.ASIDE
