"""Practice, and reports of wrong questions: contests of gold that look like any other report."""

import pytest

from annotation.errors import BadInput, Conflict
from annotation.models import (
    AuditEntry,
    Comparison,
    GoldCheck,
    GoldItem,
    PracticeAnswer,
    Preference,
    Report,
)
from annotation.services.checkrules import change_checks
from annotation.services.gold import completion_ids, retire_gold, vote_on_gold
from annotation.services.practice import answer_practice, lesson_of, practice_items
from annotation.services.queue import claim_comparison
from annotation.services.reports import Ruling, decide_report, report_question
from tests.annotation.golden import answer, in_order, make_experts, make_items
from tests.annotation.making import make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def experts(project):
    return make_experts(project)


def test_practice_keeps_the_first_answer_and_says_what_the_experts_say(project, experts):
    [item] = make_items(experts, project, 1, "practice", k=3)
    me, ids = make_annotator(project), completion_ids(item.comparison)
    first = answer_practice(item=item, annotator=me, rankings=in_order([ids[0], ids[2], ids[1]]))
    again = answer_practice(item=item, annotator=me, rankings=in_order(ids))
    assert (again.pk, again.verdict) == (first.pk, "broken")
    lesson = lesson_of(first)
    pairs = {(one.better, one.worse): str(verdict) for one, verdict in lesson.constraints}
    assert pairs == {(ids[0], ids[1]): "held", (ids[1], ids[2]): "broken"}
    assert lesson.explanations == ["The first says how."] * 2
    assert not Preference.objects.exists()


def test_practice_is_in_the_annotators_languages_and_live(project, experts):
    make_items(experts, project, 1, "practice", language="zh", batch="zh")
    [fits, retired] = make_items(experts, project, 2, "practice", language="en", batch="en")
    make_items(experts, project, 1, "hidden", language="en", batch="hidden")
    retire_gold(item=retired, by=experts[0], reason="dull", is_wrong=False)
    me = make_annotator(project, languages=["en"])
    assert practice_items(me) == [(fits, None)]
    with pytest.raises(Conflict, match="not live any more"):
        answer_practice(
            item=retired, annotator=me, rankings=in_order(completion_ids(retired.comparison))
        )


def checked(project, right):
    """A fresh annotator's answer to a hidden check."""
    annotator = make_annotator(project)
    while True:
        lease = claim_comparison(annotator=annotator)
        if lease.comparison.purpose == "gold":
            return answer(lease, right=right)
        answer(lease)


def report(preference, words="Both are right."):
    return report_question(
        comparison=preference.comparison, annotator=preference.annotator, words=words
    )


@pytest.fixture
def item(project, experts):
    [made] = make_items(experts, project, 1)
    make_comparisons(project, 40)
    project.checks = change_checks(project=project, changes={"gold_every": 2}, by=None).checks
    return made


def test_a_question_is_reported_once_and_by_whoever_answered_it(project, item):
    given = checked(project, right=False)
    with pytest.raises(BadInput, match="by whoever answered it"):
        report_question(
            comparison=given.comparison, annotator=make_annotator(project), words="Wrong."
        )
    for words in (" ", "x" * 2001):
        with pytest.raises(BadInput, match="1 to 2000"):
            report(given, words)
    report(given)
    with pytest.raises(Conflict, match="reported already"):
        report(given)


def test_a_contest_that_is_right_takes_the_item_out_of_every_accuracy(project, item, experts):
    mine, another = checked(project, right=False), checked(project, right=False)
    first, second = report(mine), report(another)
    decided = decide_report(
        report=first, ruling=Ruling.TAKE_OUT, reply="You are right.", by=experts[0]
    )
    assert (decided.state, decided.reply) == ("accepted", "You are right.")
    second.refresh_from_db()
    assert (second.state, second.reply) == ("accepted", "You are right.")
    assert set(GoldCheck.objects.values_list("counts", flat=True)) == {False}
    fresh = GoldItem.objects.get()
    assert (fresh.state, fresh.retire_reason) == ("retired", "reported: Both are right.")
    with pytest.raises(Conflict, match="is accepted already"):
        decide_report(report=first, ruling=Ruling.DECLINE, reply="No.", by=experts[0])
    assert AuditEntry.objects.filter(action="report.decide").get().actor == experts[0]


def test_experts_may_answer_a_contested_item_anew(project, item, experts):
    given = checked(project, right=False)
    decide_report(
        report=report(given), ruling=Ruling.ANSWER_ANEW, reply="We look again.", by=experts[0]
    )
    fresh = GoldItem.objects.get()
    assert (fresh.state, fresh.constraints, fresh.votes.count()) == ("draft", [], 0)
    assert GoldCheck.objects.get().counts is False
    ids = completion_ids(item.comparison)
    for expert in experts:
        vote_on_gold(item=item, by=expert, rankings=in_order(ids[::-1]))
    check = GoldCheck.objects.get()
    assert (check.counts, check.verdict) == (True, "held")


def test_a_contest_is_declined_with_words(project, item, experts):
    given = checked(project, right=False)
    made = report(given)
    with pytest.raises(BadInput, match="Answer the report in words"):
        decide_report(report=made, ruling=Ruling.DECLINE, reply="", by=experts[0])
    with pytest.raises(BadInput, match="'maybe'"):
        decide_report(report=made, ruling="maybe", reply="Hm.", by=experts[0])
    decided = decide_report(
        report=made, ruling=Ruling.DECLINE, reply="The second lies.", by=experts[0]
    )
    assert decided.state == "declined"
    assert GoldCheck.objects.get().counts is True
    assert GoldItem.objects.get().state == "live"


def test_an_ordinary_question_is_reported_and_answered_in_the_same_way(project, experts):
    make_comparisons(project, answers_wanted=2)
    given = answer(claim_comparison(annotator=make_annotator(project)))
    made = report(given)
    with pytest.raises(BadInput, match="Only a gold question"):
        decide_report(report=made, ruling=Ruling.ANSWER_ANEW, reply="Hm.", by=experts[0])
    decided = decide_report(report=made, ruling=Ruling.TAKE_OUT, reply="True.", by=experts[0])
    assert decided.state == "accepted"
    assert Comparison.objects.get().retired_at is not None


def test_a_practice_item_can_be_contested_by_whoever_practised(project, experts):
    [item] = make_items(experts, project, 1, "practice")
    me = make_annotator(project)
    answer_practice(
        item=item, annotator=me, rankings=in_order(completion_ids(item.comparison)[::-1])
    )
    made = report_question(comparison=item.comparison, annotator=me, words="No.")
    decide_report(report=made, ruling=Ruling.TAKE_OUT, reply="Yes.", by=experts[0])
    assert practice_items(me) == []
    assert Report.objects.get().state == "accepted"
    assert PracticeAnswer.objects.count() == 1
