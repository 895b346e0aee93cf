"""Adaptive overlap in the queue: a third answer where two differ, and the invariant throughout."""

import pytest

from annotation.errors import BadInput, NothingToDo
from annotation.models import Comparison
from annotation.overlap import is_always_full
from annotation.services.batches import change_batch
from annotation.services.questions import ask
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    skip_comparison,
    submit_preference,
    sweep_expired_leases,
)
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def comparison(project):
    return made_at_two(project)


def made_at_two(project):
    """A comparison of an adaptive batch, not of the share that always gets all answers."""
    [first] = make_comparisons(project, batch="adaptive")
    change_batch(batch=first.batch, changes={"overlap": 3, "adaptive": True}, by=None)
    Comparison.objects.filter(pk=first.pk).update(retired_at=first.created_at)
    while is_always_full((made := make_comparisons(project, batch="adaptive")[0]).content_hash):
        Comparison.objects.filter(pk=made.pk).update(retired_at=made.created_at)
    return made


def prefers(lease, place):
    """The answer that puts the completion with this place in the stored order first."""
    ids = sorted(lease.presented_order)
    return [AxisRanking(groups=[[ids[place]], [ids[1 - place]]])]


def answer(project, place):
    lease = claim_comparison(annotator=make_annotator(project))
    preference = submit_preference(
        assignment=lease, rankings=prefers(lease, place), key=f"key {lease.pk}"
    )
    require_invariant(project)
    return preference


def state(comparison):
    comparison.refresh_from_db()
    return comparison.answers_wanted, comparison.open_slots


def nothing_left(project):
    with pytest.raises(NothingToDo) as caught:
        claim_comparison(annotator=make_annotator(project))
    return caught.value.reason


def test_two_who_agree_are_enough(project, comparison):
    assert state(comparison) == (2, 2)
    answer(project, 0)
    answer(project, 0)
    assert state(comparison) == (2, 0)
    assert nothing_left(project) == "done"


def test_where_two_differ_a_third_is_asked(project, comparison):
    answer(project, 0)
    answer(project, 1)
    assert state(comparison) == (3, 1)
    answer(project, 0)
    assert state(comparison) == (3, 0)
    assert nothing_left(project) == "done"


def test_voiding_one_who_differed_takes_the_third_back(project, comparison):
    answer(project, 0)
    wrong = answer(project, 1)
    void_preference(preference=wrong, by=make_user(), reason="Spam")
    require_invariant(project)
    assert state(comparison) == (2, 1)
    answer(project, 0)
    assert state(comparison) == (2, 0)


def test_voiding_one_of_three_is_decided_by_the_two_that_stand(project, comparison):
    first, _second, _third = answer(project, 0), answer(project, 1), answer(project, 1)
    void_preference(preference=first, by=make_user(), reason="Spam")
    require_invariant(project)
    assert state(comparison) == (2, 0)


def test_a_third_that_is_in_hand_keeps_its_slot(project, comparison):
    answer(project, 0)
    wrong = answer(project, 1)
    lease = claim_comparison(annotator=make_annotator(project))
    void_preference(preference=wrong, by=make_user(), reason="Spam")
    require_invariant(project)
    assert state(comparison) == (2, 0)
    kept = submit_preference(assignment=lease, rankings=prefers(lease, 0), key="third")
    assert kept.counted
    assert state(comparison) == (2, 0)


ENDS = {
    "released": lambda lease: release_lease(assignment=lease),
    "skipped": lambda lease: skip_comparison(assignment=lease, reason="No"),
    "put aside": lambda lease: ask(
        annotator=lease.annotator, comparison=lease.comparison, text="Why?", put_aside=True
    ),
    "expired": lambda lease: sweep_expired_leases(now=lease.expires_at),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("by", ["void", "revision", "nothing"])
def test_a_third_that_is_given_back_opens_again_only_if_the_two_still_differ(
    project, comparison, end, by
):
    answer(project, 0)
    other = answer(project, 1)
    lease = claim_comparison(annotator=make_annotator(project))
    if by == "void":
        void_preference(preference=other, by=make_user(), reason="Spam")
    elif by == "revision":
        agreeing = prefers(other.assignment, 0)
        revise_preference(preference=other, rankings=agreeing, cause="Misread")
    end(lease)
    require_invariant(project)
    assert state(comparison) == {"void": (2, 1), "revision": (2, 0), "nothing": (3, 1)}[by]


def test_a_revision_that_agrees_takes_the_third_back_and_one_that_differs_asks(project, comparison):
    first = answer(project, 0)
    answer(project, 1)
    assert state(comparison) == (3, 1)
    revised = revise_preference(
        preference=first, rankings=prefers(first.assignment, 1), cause="Misread"
    )
    require_invariant(project)
    assert state(comparison) == (2, 0)
    revise_preference(preference=revised, rankings=prefers(first.assignment, 0), cause="After all")
    require_invariant(project)
    assert state(comparison) == (3, 1)


def test_comparisons_of_the_share_get_all_answers(project, comparison):
    comparison.content_hash = "0" * 64
    made = Comparison.objects.filter(batch=comparison.batch)
    made.filter(pk=comparison.pk).update(content_hash="0" * 64, full_overlap=None)
    made.filter(pk=comparison.pk).update(answers_wanted=3, open_slots=3)
    change_batch(batch=comparison.batch, changes={"adaptive": True, "overlap": 3}, by=None)
    assert state(comparison) == (3, 3)
    answer(project, 0)
    answer(project, 0)
    assert state(comparison) == (3, 1)


def test_about_a_tenth_of_new_comparisons_want_all_answers(project, comparison):
    made = make_comparisons(project, 60, batch="adaptive")
    full = {one.pk for one in made if one.answers_wanted == 3}
    assert full == {one.pk for one in made if is_always_full(one.content_hash)}
    assert {one.full_overlap for one in made if one.pk not in full} == {3}


def test_what_is_in_work_when_it_begins_gets_all_answers(project):
    made = make_comparisons(project, 40)
    change_batch(batch=made[0].batch, changes={"overlap": 3}, by=None)
    begun = claim_comparison(annotator=make_annotator(project)).comparison_id
    change_batch(batch=made[0].batch, changes={"adaptive": True}, by=None)
    for one in made:
        one.refresh_from_db()
        stays = one.pk == begun or is_always_full(one.content_hash)
        assert (one.answers_wanted, one.full_overlap) == ((3, None) if stays else (2, 3))
    require_invariant(project)


def test_when_it_ends_all_get_their_answers(project, comparison):
    answer(project, 0)
    answer(project, 0)
    change_batch(batch=comparison.batch, changes={"adaptive": False}, by=None)
    require_invariant(project)
    assert state(comparison) == (3, 1)
    assert comparison.full_overlap is None


def test_raising_the_overlap_leaves_two_at_two(project, comparison):
    other = made_at_two(project)
    change_batch(batch=other.batch, changes={"priority": 0}, by=None)
    for place in (0, 1):
        answered = answer(project, place)
        if place == 0:
            Comparison.objects.exclude(pk=answered.comparison_id).update(priority=-1)
    change_batch(batch=other.batch, changes={"overlap": 5}, by=None)
    require_invariant(project)
    differed = Comparison.objects.get(pk=answered.comparison_id)
    assert (differed.answers_wanted, differed.open_slots, differed.full_overlap) == (5, 3, 5)
    agreed = other if differed == comparison else comparison
    assert state(agreed) == (2, 2)
    assert agreed.full_overlap == 5


def test_adaptive_overlap_needs_more_than_two(project):
    [one] = make_comparisons(project)
    for overlap in (1, 2):
        with pytest.raises(BadInput, match=f"want more than that: {overlap}"):
            change_batch(batch=one.batch, changes={"overlap": overlap, "adaptive": True}, by=None)
    one.batch.refresh_from_db()
    assert (one.batch.overlap, one.batch.adaptive) == (None, False)
