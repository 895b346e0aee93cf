"""What reviewers decide: a row beside the votes, the first wins, a later one takes its place."""

import threading

import pytest
from django.db import IntegrityError, connection, transaction

from annotation.errors import BadInput, BadRanking, Conflict, NotAllowed
from annotation.models import AuditEntry, Decision, Preference, Review, ReviewState
from annotation.services.decisions import decide, scheme_of, void_decision
from annotation.services.disagreements import look_again
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from tests.annotation.making import make_comparisons, make_member, make_project
from tests.annotation.voting import cast, compare, ids_of

pytestmark = pytest.mark.django_db

FIRST, SECOND = [[0], [1]], [[1], [0]]


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def apart(project):
    """A comparison of which two people say opposite things."""
    return differ(project)


def differ(project):
    comparison = compare(project)
    for order in (FIRST, SECOND):
        cast(comparison, order=order)
    look_again(comparison.pk)
    return comparison


def reviewer_of(project):
    return make_member(project, "reviewer")


def put_first(comparison, place):
    ids = ids_of(comparison)
    return [AxisRanking(groups=[[ids[place]], [ids[1 - place]]])]


def test_a_decision_is_a_row_of_its_own_and_no_vote(project, apart):
    by = reviewer_of(project)
    decision = decide(
        comparison=apart, by=by, seen=0, rankings=put_first(apart, 1), reason=" it is true "
    )
    assert decision.rankings == [
        {
            "axis": "overall",
            "outcome": "ranked",
            "groups": [[pk] for pk in reversed(ids_of(apart))],
            "strengths": [],
            "acceptable": None,
        }
    ]
    assert (decision.reason, decision.number, decision.current) == ("it is true", 1, True)
    assert decision.by == annotator_for(user=by, project=project)
    assert sorted(decision.presented_order) == sorted(ids_of(apart))
    assert Preference.objects.count() == 2
    assert Review.objects.get().state == ReviewState.DECIDED
    assert AuditEntry.objects.filter(action="decision.make", actor=by).exists()


def test_the_second_of_two_is_told_and_may_put_another_in_its_place(project, apart):
    one, two = reviewer_of(project), reviewer_of(project)
    first = decide(comparison=apart, by=one, seen=0, rankings=put_first(apart, 0))
    with pytest.raises(Conflict, match="decided meanwhile"):
        decide(comparison=apart, by=two, seen=0, rankings=put_first(apart, 1))
    second = decide(comparison=apart, by=two, seen=1, rankings=put_first(apart, 1))
    first.refresh_from_db()
    assert (first.current, second.current, second.number) == (False, True, 2)
    assert first.voided_at is None


@pytest.mark.django_db(transaction=True)
def test_of_two_at_the_same_moment_one_wins():
    project = make_project()
    apart = differ(project)
    people = [reviewer_of(project) for _ in range(4)]
    start, came = threading.Barrier(len(people), timeout=60), []

    def work(by):
        start.wait()
        try:
            came.append(decide(comparison=apart, by=by, seen=0, rankings=put_first(apart, 0)))
        except Conflict:
            came.append(None)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(by,)) for by in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(came) == len(people)
    assert sum(one is not None for one in came) == 1
    assert Decision.objects.get().current


def test_the_database_holds_one_current_decision(project, apart):
    decision = decide(
        comparison=apart, by=reviewer_of(project), seen=0, rankings=put_first(apart, 0)
    )
    decision.pk, decision.number = None, 2
    with pytest.raises(IntegrityError), transaction.atomic():
        decision.save(force_insert=True)


def test_void_opens_the_review_again_and_the_next_number_goes_on(project, apart):
    by = reviewer_of(project)
    first = decide(comparison=apart, by=by, seen=0, rankings=put_first(apart, 0))
    voided = void_decision(decision=first, by=by, reason="wrong guideline")
    assert (voided.current, voided.void_reason) == (False, "wrong guideline")
    assert Review.objects.get().state == ReviewState.OPEN
    with pytest.raises(Conflict, match="void or superseded already"):
        void_decision(decision=first, by=by, reason="again")
    with pytest.raises(Conflict, match="meanwhile"):
        decide(comparison=apart, by=by, seen=0, rankings=put_first(apart, 0))
    assert decide(comparison=apart, by=by, seen=1, rankings=put_first(apart, 0)).number == 2
    with pytest.raises(BadInput, match="A void needs a reason"):
        void_decision(decision=Decision.objects.get(current=True), by=by, reason=" ")


def test_what_cannot_be_decided_says_why(project, apart):
    by = reviewer_of(project)
    with pytest.raises(BadInput, match="needs a reason"):
        decide(comparison=apart, by=by, seen=0, undecidable=True)
    with pytest.raises(BadInput, match="has no ranking"):
        decide(
            comparison=apart,
            by=by,
            seen=0,
            undecidable=True,
            reason="?",
            rankings=put_first(apart, 0),
        )
    decision = decide(comparison=apart, by=by, seen=0, undecidable=True, reason="no way to know")
    assert (decision.rankings, decision.undecidable) == ([], True)
    assert Review.objects.get().state == ReviewState.DECIDED


def test_who_answered_it_does_not_decide_it(project):
    by = reviewer_of(project)
    comparison = compare(project)
    cast(comparison, annotator_for(user=by, project=project), order=FIRST)
    cast(comparison, order=SECOND)
    look_again(comparison.pk)
    with pytest.raises(NotAllowed, match="You answered this comparison yourself"):
        decide(comparison=comparison, by=by, seen=0, rankings=put_first(comparison, 0))


def test_without_two_answers_there_is_nothing_to_decide(project):
    comparison = compare(project)
    cast(comparison)
    with pytest.raises(Conflict, match="no two answers"):
        decide(
            comparison=comparison,
            by=reviewer_of(project),
            seen=0,
            rankings=put_first(comparison, 0),
        )


def test_a_decision_fits_the_scheme_as_an_answer_does(project, apart):
    by = reviewer_of(project)
    with pytest.raises(BadRanking, match="was not shown"):
        decide(comparison=apart, by=by, seen=0, rankings=[AxisRanking(groups=[[0], [1]])])
    with pytest.raises(BadRanking, match="lacks 'overall'"):
        decide(comparison=apart, by=by, seen=0)
    with pytest.raises(BadRanking, match="does not allow 'cannot_tell'"):
        decide(comparison=apart, by=by, seen=0, rankings=[AxisRanking(outcome="cannot_tell")])


def test_ratings_and_ideal_answers_are_no_part_of_a_decision(project):
    (comparison,) = make_comparisons(project)
    scheme = comparison.batch.scheme
    scheme.options = {
        "strength_steps": 4,
        "ratings": [{"name": "true"}],
        "flags": ["unsafe"],
        "ideal": True,
        "reason": "required",
    }
    assert scheme_of(comparison).options == {"strength_steps": 4}
    assert scheme_of(comparison).pk is None


def test_answers_that_come_after_it_are_counted(project, apart):
    by = reviewer_of(project)
    decide(comparison=apart, by=by, seen=0, rankings=put_first(apart, 0))
    assert Review.objects.get().answers_since == 0
    cast(apart, order=FIRST)
    look_again(apart.pk)
    review = Review.objects.get()
    assert (review.state, review.answers_since, review.num_answers) == ("decided", 1, 3)
    decide(comparison=apart, by=by, seen=1, rankings=put_first(apart, 0))
    assert Review.objects.get().answers_since == 0
