"""Questions to the leads: every step of their state, what is refused, and items put aside."""

import time

import pytest

from annotation.errors import BadInput, Conflict, LeaseLost, NotAllowed, NothingToDo
from annotation.models import Assignment, AssignmentState, AuditEntry, Comparison, Question
from annotation.services import questions
from annotation.services.projects import current_guideline
from annotation.services.queue import (
    claim_comparison,
    renew_lease,
    skip_comparison,
    submit_preference,
)
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db
WORDS = {"en": {"question": "May it be long?", "answer": "Yes."}}


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def lease(project):
    make_comparisons(project)
    return claim_comparison(annotator=make_annotator(project))


def ask(lease, text="May it be long?", **more) -> Question:
    return questions.ask(annotator=lease.annotator, comparison=lease.comparison, text=text, **more)


STEPS = {
    "answer": lambda one: questions.answer(question=one, text="Yes.", by=make_user()),
    "close": lambda one: questions.close(question=one, by=make_user()),
    "publish": lambda one: questions.publish(question=one, texts=WORDS, by=make_user()),
}


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([], "open"),
        (["answer"], "answered"),
        (["close"], "closed"),
        (["answer", "close"], "closed"),
        (["answer", "publish"], "answered"),
        (["answer", "close", "publish"], "closed"),
        (["close", "close"], "closed"),
        (["answer", "answer"], "Question 1 was settled before: Answered"),
        (["close", "answer"], "Question 1 was settled before: Closed"),
        (["answer", "close", "answer"], "Question 1 was settled before: Closed"),
        (["publish"], "Question 1 has no answer yet"),
        (["close", "publish"], "Question 1 has no answer yet"),
        (["answer", "publish", "publish"], "Question 1 stands in guideline 2 already"),
    ],
)
def test_every_way_through_the_states(lease, steps, outcome):
    question = ask(lease)
    stale = Question.objects.get(pk=question.pk)  # as another tab has it
    outcome = outcome.replace("Question 1", f"Question {question.pk}")
    for step in steps[:-1]:
        STEPS[step](question)
    if " " in outcome:
        with pytest.raises(Conflict, match=outcome):
            STEPS[steps[-1]](stale)
        return
    for step in steps[-1:]:
        STEPS[step](stale)
    question.refresh_from_db()
    assert question.state == outcome
    entries = AuditEntry.objects.filter(target=f"question:{question.pk}")
    assert entries.count() == 1 + len(dict.fromkeys(steps))


def test_an_answer_says_who_and_when_and_the_log_too(lease):
    question = ask(lease, "  May it be long?\r\nReally? ")
    assert question.text == "May it be long?\nReally?"
    lead = make_user()
    questions.answer(question=question, text=" Yes. ", by=lead)
    assert (question.answer, question.answered_by) == ("Yes.", lead)
    assert question.answered_at is not None
    asked, answered = AuditEntry.objects.filter(target=f"question:{question.pk}").order_by("pk")
    assert (asked.action, asked.actor) == ("question.ask", lease.annotator.user)
    assert (answered.action, answered.actor) == ("question.answer", lead)


@pytest.mark.parametrize("text", ["", "  ", "x" * 2001])
def test_a_question_has_some_words_and_not_too_many(lease, text):
    with pytest.raises(BadInput, match=f"1 to 2000 characters, not {len(text.strip())}"):
        ask(lease, text)


def test_one_asks_about_what_one_was_given(project, lease):
    with pytest.raises(NotAllowed, match="never given to you"):
        questions.ask(
            annotator=make_annotator(project), comparison=lease.comparison, text="And this?"
        )


def test_the_same_words_again_are_one_question(lease):
    first = ask(lease)
    assert ask(lease) == first
    assert ask(lease, "And short?") != first
    questions.answer(question=first, text="Yes.", by=make_user())
    assert ask(lease) != first


def test_a_flood_is_stopped(lease, monkeypatch):
    monkeypatch.setattr(questions, "MAX_OPEN", 2)
    first = ask(lease, "One?")
    ask(lease, "Two?")
    with pytest.raises(Conflict, match="2 of your questions are open"):
        ask(lease, "Three?")
    questions.close(question=first, by=lease.annotator.user)
    ask(lease, "Three?")


def test_a_question_alone_keeps_the_lease(lease):
    ask(lease)
    lease.refresh_from_db()
    assert (lease.state, lease.holds_slot) == (AssignmentState.LEASED, True)
    require_invariant(lease.project)


def test_an_item_put_aside_goes_to_others_and_comes_back_after_the_answer(project):
    [comparison] = make_comparisons(project, answers_wanted=2)
    asker, other = make_annotator(project), make_annotator(project)
    lease = claim_comparison(annotator=asker)
    order = lease.presented_order
    question = ask(lease, put_aside=True)
    require_invariant(project)
    assert Assignment.objects.get().state == AssignmentState.ASIDE
    with pytest.raises(LeaseLost):
        renew_lease(assignment=lease)
    with pytest.raises(NothingToDo):
        claim_comparison(annotator=asker)
    theirs = claim_comparison(annotator=other)
    submit_preference(assignment=theirs, rankings=as_shown(theirs), key="theirs")
    questions.answer(question=question, text="Yes.", by=make_user())
    again = claim_comparison(annotator=asker)
    assert (again.pk, again.presented_order) == (lease.pk, order)
    submit_preference(assignment=again, rankings=as_shown(again), key="mine")
    comparison.refresh_from_db()
    assert comparison.open_slots == 0
    require_invariant(project)


def test_it_comes_back_though_the_walk_has_passed_it(project):
    """The queue remembers how far somebody came, and looks behind for what was opened since."""
    make_comparisons(project, 12, answers_wanted=3)
    asker = make_annotator(project)
    lease = claim_comparison(annotator=asker)
    question = ask(lease, put_aside=True)
    Comparison.objects.update(opened_at=time.time() - 7200)
    for number in range(11):
        after = claim_comparison(annotator=asker)
        assert after.comparison_id != lease.comparison_id
        submit_preference(assignment=after, rankings=as_shown(after), key=str(number))
    with pytest.raises(NothingToDo):
        claim_comparison(annotator=asker)
    questions.answer(question=question, text="Yes.", by=make_user())
    assert claim_comparison(annotator=asker).pk == lease.pk
    require_invariant(project)


def test_it_stays_aside_until_no_question_about_it_is_open(lease):
    first, second = ask(lease, "One?"), ask(lease, "Two?", put_aside=True)
    questions.answer(question=first, text="Yes.", by=make_user())
    lease.refresh_from_db()
    assert lease.state == AssignmentState.ASIDE
    questions.close(question=second, by=lease.annotator.user)
    lease.refresh_from_db()
    assert lease.state == AssignmentState.RELEASED


def test_a_lost_lease_can_be_put_aside_and_a_late_answer_still_comes(lease):
    Assignment.objects.update(holds_slot=False, state=AssignmentState.EXPIRED)
    lease.comparison.open_slots = 1
    lease.comparison.save()
    ask(lease, put_aside=True)
    lease.refresh_from_db()
    assert lease.state == AssignmentState.ASIDE
    late = submit_preference(assignment=lease, rankings=as_shown(lease), key="late")
    assert late.counted
    require_invariant(lease.project)


@pytest.mark.parametrize("end", ["answered", "skipped"])
def test_what_is_answered_or_skipped_is_not_put_aside_but_can_be_asked_about(lease, end):
    if end == "answered":
        submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    else:
        skip_comparison(assignment=lease, reason="hard")
    with pytest.raises(Conflict, match="answered or skipped already"):
        ask(lease, put_aside=True)
    assert not Question.objects.exists()
    question = ask(lease)
    questions.answer(question=question, text="Yes.", by=make_user())
    lease.refresh_from_db()
    assert lease.state == end
    require_invariant(lease.project)


def test_publishing_makes_a_version_that_the_question_names(project, lease):
    question = ask(lease)
    questions.answer(question=question, text="Yes.", by=make_user())
    questions.publish(question=question, texts=WORDS, by=make_user())
    newest = current_guideline(project)
    assert (newest.version, newest.faq_in("en")) == (2, [WORDS["en"]])
    assert question.published_in == newest
    other = ask(lease, "And short?")
    questions.answer(question=other, text="No.", by=make_user())
    with pytest.raises(BadInput, match="in one language"):
        questions.publish(question=other, texts={}, by=make_user())
    other.refresh_from_db()
    assert other.published_in is None
