"""Which comparisons go to review: by the bar, as answers come, change and go."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput
from annotation.importers.stores import preference_store, source_for
from annotation.models import Batch, Comparison, Project, Review, ReviewState
from annotation.services.disagreements import look_again, next_for, open_reviews, set_bar
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
)
from tests.annotation.voting import cast, compare, ids_of, make_voter

pytestmark = pytest.mark.django_db

FIRST, SECOND = [[0], [1]], [[1], [0]]


@pytest.fixture
def project():
    return make_project()


def voted(project, *orders, **fields):
    """A comparison with these answers, looked at."""
    comparison = compare(project, **fields)
    for order in orders:
        cast(comparison, order=order)
    look_again(comparison.pk)
    return comparison


def answer(annotator, place):
    """Claim, and put the completion of this stored place first; the preference."""
    lease = claim_comparison(annotator=annotator)
    ids = ids_of(lease.comparison)
    best = ids[place]
    groups = [[best], [one for one in ids if one != best]]
    return submit_preference(
        assignment=lease, rankings=[AxisRanking(groups=groups)], key=f"{annotator.pk}"
    )


def test_two_who_differ_send_it_to_review_and_two_who_agree_do_not(project):
    apart = voted(project, FIRST, SECOND)
    voted(project, FIRST, FIRST)
    voted(project, FIRST)
    assert [one.comparison_id for one in open_reviews(project)] == [apart.pk]
    assert apart.review.accord == {"overall": 0.0}
    assert Review.objects.count() == 2  # of one answer nothing can be said
    Comparison.objects.update(retired_at=timezone.now())
    assert not open_reviews(project).exists()


def test_it_opens_with_the_answer_and_closes_when_that_is_void(project):
    make_comparisons(project, answers_wanted=2)
    one, two = make_annotator(project), make_annotator(project)
    answer(one, 0)
    assert not Review.objects.exists()
    second = answer(two, 1)
    assert open_reviews(project).get().num_answers == 2
    void_preference(preference=second, by=make_user(), reason="spam")
    review = Review.objects.get()
    assert (review.state, review.num_answers) == (ReviewState.ABOVE, 1)


def test_a_revision_is_looked_at_too(project):
    make_comparisons(project, answers_wanted=2)
    first = answer(make_annotator(project), 0)
    answer(make_annotator(project), 1)
    assert open_reviews(project).exists()
    groups = [[pk] for pk in reversed(ids_of(first.comparison))]
    revise_preference(preference=first, rankings=[AxisRanking(groups=groups)], cause="misread")
    assert not open_reviews(project).exists()


def test_one_answer_of_one_costs_no_look(project, monkeypatch):
    make_comparisons(project)
    monkeypatch.setattr("annotation.services.queue.look_again", lambda pk: pytest.fail("looked"))
    answer(make_annotator(project), 0)


def test_the_one_answer_that_is_wanted_is_held_against_a_surplus_one_too(project):
    early, late, again = (make_annotator(project) for _ in range(3))
    [comparison] = make_comparisons(project)
    ids = ids_of(comparison)
    up, down = ([AxisRanking(groups=[[one] for one in order])] for order in (ids, ids[::-1]))
    hours = [timezone.now() - timedelta(hours=number) for number in (2, 1)]
    lost, kept = (
        claim_comparison(annotator=who, now=now)
        for who, now in zip((early, late), hours, strict=True)
    )
    counted = submit_preference(assignment=kept, rankings=up, key="in time")
    assert not submit_preference(assignment=lost, rankings=up, key="too late").counted
    void_preference(preference=counted, by=make_user(), reason="a slip")
    submit_preference(assignment=claim_comparison(annotator=again), rankings=down, key="anew")
    assert [one.comparison_id for one in open_reviews(project)] == [comparison.pk]


def test_the_axis_that_agrees_least_decides():
    project = make_project(axes=("helpful", "safe"))
    (comparison,) = make_comparisons(project, answers_wanted=2)
    for helpful, safe in ((0, 0), (0, 1)):
        lease = claim_comparison(annotator=make_annotator(project))
        ids = ids_of(comparison)
        submit_preference(
            assignment=lease,
            key=str(lease.pk),
            rankings=[
                AxisRanking(axis=axis, groups=[[ids[place]], [ids[1 - place]]])
                for axis, place in (("helpful", helpful), ("safe", safe))
            ],
        )
    review = open_reviews(project).get()
    assert review.accord == {"helpful": 1.0, "safe": 0.0}
    assert review.lowest == 0


def test_votes_of_other_kinds_than_train_are_not_asked(project):
    comparison = compare(project)
    cast(comparison, order=FIRST)
    cast(comparison, make_voter(project, "simulated"), order=SECOND)
    look_again(comparison.pk)
    assert not Review.objects.exists()
    kinds = {"inputs": {"reward": {"annotators": ["person", "simulated"]}}}
    Project.objects.filter(pk=project.pk).update(job_defaults=kinds)
    look_again(comparison.pk)
    assert open_reviews(project).exists()


@pytest.mark.parametrize("purpose", ["gold", "qualification", "repeat"])
def test_what_has_its_truth_already_is_not_reviewed(project, purpose):
    voted(project, FIRST, SECOND, purpose=purpose)
    assert not Review.objects.exists()


def test_a_batch_has_a_bar_of_its_own_and_reviews_follow_it(project):
    two_to_one = voted(project, FIRST, FIRST, SECOND)  # 1/3
    other = voted(project, FIRST, FIRST, SECOND, purpose="live")
    assert open_reviews(project).count() == 2
    set_bar(project=project, batch=other.batch, below=0.3, by=None)
    assert [one.comparison_id for one in open_reviews(project)] == [two_to_one.pk]
    set_bar(project=project, below=0.0, by=None)
    assert not open_reviews(project).exists()
    set_bar(project=project, batch=other.batch, below=1.0, by=None)
    assert [one.comparison_id for one in open_reviews(project)] == [other.pk]
    set_bar(project=project, batch=other.batch, below=None, by=None)
    assert not open_reviews(project).exists()
    with pytest.raises(BadInput, match="from 0 to 1: 2"):
        set_bar(project=project, below=2, by=None)
    with pytest.raises(BadInput, match="not nothing"):
        set_bar(project=project, below=None, by=None)


def test_who_was_asked_elsewhere_goes_to_review_only_if_a_lead_says_so(project):
    source = source_for(project=project, name="elsewhere")
    row = {
        "id": "1",
        "prompt": [{"role": "user", "content": "Which?"}],
        "completions": [{"id": "a", "text": "This."}, {"id": "b", "text": "That."}],
        "votes": [
            {"axis": "overall", "ranking": [["a"], ["b"]], "annotator": "x", "kind": "person"},
            {"axis": "overall", "ranking": [["b"], ["a"]], "annotator": "y", "kind": "person"},
        ],
    }
    preference_store(project=project, source=source, format="comparisons")(row)
    assert Review.objects.get().lowest == 0
    assert not open_reviews(project).exists()
    set_bar(project=project, batch=Batch.objects.get(source=source), below=0.5, by=None)
    assert open_reviews(project).exists()


def test_the_next_is_the_one_that_waits_for_no_answer_then_the_one_most_apart(project):
    reviewer = make_annotator(project)
    (waits,) = make_comparisons(project, answers_wanted=3)
    for order in (FIRST, SECOND):
        cast(waits, order=order)
    look_again(waits.pk)
    done = [voted(project, FIRST, FIRST, SECOND), voted(project, FIRST, SECOND)]
    for comparison in done:
        comparison.open_slots = 0
        comparison.save()
    own = compare(project)
    cast(own, reviewer, order=FIRST)
    cast(own, order=SECOND)
    own.open_slots = 0
    own.save()
    look_again(own.pk)
    seen = []
    while review := next_for(reviewer):
        seen.append(review.comparison_id)
        Review.objects.filter(pk=review.pk).update(state=ReviewState.DECIDED)
    assert seen == [done[1].pk, done[0].pk, waits.pk]


def test_another_projects_reviews_are_never_next(project):
    voted(make_project(), FIRST, SECOND)
    assert next_for(make_annotator(project)) is None
