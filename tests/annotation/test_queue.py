"""Leases and answers, one rule at a time."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput, Conflict, LeaseLost, NothingToDo
from annotation.models import (
    Assignment,
    AssignmentState,
    AuditEntry,
    Batch,
    Comparison,
    Preference,
)
from annotation.services import queue, walk
from annotation.services.leases import draw_order
from annotation.services.ledger import pause_batch
from annotation.services.projects import new_guideline
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    renew_lease,
    skip_comparison,
    submit_preference,
    sweep_expired_leases,
)
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from tests.annotation.making import (
    as_shown,
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
def annotator(project):
    return make_annotator(project)


@pytest.fixture
def now():
    return timezone.now()


def answer(assignment, key="", **more):
    said = {"rankings": as_shown(assignment), **more}
    return submit_preference(assignment=assignment, key=key or str(assignment.pk), **said)


def nothing(annotator, **more):
    with pytest.raises(NothingToDo) as caught:
        claim_comparison(annotator=annotator, **more)
    return caught.value


def test_a_claim_leases_one_slot(project, annotator, now):
    [comparison] = make_comparisons(project, answers_wanted=2)
    lease = claim_comparison(annotator=annotator, now=now)
    comparison.refresh_from_db()
    assert lease.comparison == comparison
    assert comparison.open_slots == 1
    assert lease.expires_at == now + timedelta(seconds=project.lease_seconds)
    assert sorted(lease.presented_order) == sorted(
        comparison.completions.values_list("pk", flat=True)
    )
    require_invariant(project)


def test_a_second_claim_gives_the_same_live_lease(project, annotator):
    make_comparisons(project, 3)
    assert claim_comparison(annotator=annotator) == claim_comparison(annotator=annotator)
    assert Assignment.objects.count() == 1


def test_two_annotators_never_share_the_last_slot(project, annotator):
    make_comparisons(project)
    claim_comparison(annotator=annotator)
    other = nothing(make_annotator(project))
    assert other.reason == "all_leased"
    assert 1 <= other.retry_after_seconds <= 60


def test_a_prefetched_lease_becomes_active_by_the_claim(project, annotator, now):
    make_comparisons(project, 2)
    active = claim_comparison(annotator=annotator, now=now)
    ahead = claim_comparison(annotator=annotator, kind="prefetched", now=now)
    assert ahead.comparison_id != active.comparison_id
    assert ahead.expires_at == now + timedelta(seconds=120)
    assert claim_comparison(annotator=annotator, kind="prefetched", now=now) == ahead
    answer(active)
    lease = claim_comparison(annotator=annotator, now=now)
    assert (lease.pk, lease.kind) == (ahead.pk, "active")
    assert lease.expires_at == now + timedelta(seconds=project.lease_seconds)
    require_invariant(project)


def test_an_expired_lease_holds_its_slot_until_somebody_claims(project, annotator, now):
    [comparison] = make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    later = now + timedelta(seconds=project.lease_seconds)
    comparison.refresh_from_db()
    assert comparison.open_slots == 0
    other = claim_comparison(annotator=make_annotator(project), now=later)
    assert other.comparison_id == lease.comparison_id
    lease.refresh_from_db()
    assert (lease.state, lease.holds_slot) == (AssignmentState.EXPIRED, False)
    require_invariant(project)


def test_the_sweep_releases_expired_leases_and_no_others(project, annotator, now):
    make_comparisons(project, 2)
    live = claim_comparison(annotator=annotator, now=now)
    short = claim_comparison(annotator=make_annotator(project), kind="prefetched", now=now)
    later = now + timedelta(seconds=200)
    assert sweep_expired_leases(now=later) == 1
    assert sweep_expired_leases(now=later) == 0
    live.refresh_from_db()
    short.refresh_from_db()
    assert (live.holds_slot, short.holds_slot) == (True, False)
    require_invariant(project)


def test_who_comes_back_after_expiry_gets_the_same_row_and_order(project, annotator, now):
    make_comparisons(project, k=5)
    lease = claim_comparison(annotator=annotator, now=now)
    newer = new_guideline(project=project, texts={"en": "Read the second rule twice."}, by=None)
    again = claim_comparison(annotator=annotator, now=now + timedelta(days=1))
    assert (again.pk, again.presented_order) == (lease.pk, lease.presented_order)
    assert again.guideline == newer
    require_invariant(project)


def test_renewing_moves_the_expiry_even_of_an_expired_lease_nobody_took(project, annotator, now):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    later = now + timedelta(hours=2)
    assert renew_lease(assignment=lease, now=later).expires_at > later


def test_renewing_a_swept_lease_says_that_it_is_lost(project, annotator, now):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    sweep_expired_leases(now=now + timedelta(hours=2))
    with pytest.raises(LeaseLost, match=f"Assignment {lease.pk} "):
        renew_lease(assignment=lease, now=now)


def test_a_released_lease_opens_its_slot_once(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    release_lease(assignment=lease)
    release_lease(assignment=lease)
    require_invariant(project)
    assert claim_comparison(annotator=annotator).pk == lease.pk


def test_a_skipped_comparison_goes_to_others_and_never_back(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    skip_comparison(assignment=lease, reason="I don't read this language")
    skip_comparison(assignment=lease, reason="again")
    assert lease.skip_reason == "I don't read this language"
    assert nothing(annotator).reason == "none_for_you"
    assert claim_comparison(annotator=make_annotator(project)).comparison_id == lease.comparison_id
    require_invariant(project)
    with pytest.raises(Conflict, match="skipped already"):
        answer(lease)


def test_an_answer_can_not_be_skipped_away(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    answer(lease)
    with pytest.raises(Conflict, match="answered already"):
        skip_comparison(assignment=lease)
    assert lease.state == AssignmentState.ANSWERED


def test_an_answer_takes_the_slot_of_its_lease(project, annotator, now):
    [comparison] = make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    preference = answer(lease, note="Clear.", now=now + timedelta(seconds=42))
    assert (preference.counted, preference.seconds, preference.note) == (True, 42.0, "Clear.")
    assert preference.rankings.get().groups == [[one] for one in lease.presented_order]
    assert preference.guideline == lease.guideline
    comparison.refresh_from_db()
    assert comparison.open_slots == 0
    require_invariant(project)
    assert nothing(annotator).reason == "done"


def test_the_same_key_returns_the_first_answer(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    assert answer(lease, "k", note="so") == answer(lease, "k", note="so")
    assert Preference.objects.count() == 1


def test_what_was_changed_before_it_was_sent_again_does_not_pass_for_stored(project, annotator):
    """The first sending arrived, its response did not, and the annotator thought again."""
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    a, b = lease.presented_order
    first = answer(lease, "k", rankings=[AxisRanking(groups=[[a], [b]])])
    for changed in (
        {"rankings": [AxisRanking(groups=[[b], [a]])]},
        {"rankings": [AxisRanking(outcome="equal")]},
        {"rankings": [AxisRanking(groups=[[a], [b]])], "note": "another note"},
    ):
        with pytest.raises(Conflict, match="'k' belongs to another answer"):
            answer(lease, "k", **changed)
    assert answer(lease, "k", rankings=[AxisRanking(groups=[[a], [b]])]) == first
    assert Preference.objects.get().rankings.get().groups == [[a], [b]]


def test_a_second_answer_with_another_key_is_a_conflict(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    answer(lease, "k")
    with pytest.raises(Conflict, match="answered already"):
        answer(lease, "l")


def test_a_key_of_another_assignment_is_refused(project, annotator):
    make_comparisons(project, 2)
    answer(claim_comparison(annotator=annotator), "k")
    with pytest.raises(Conflict, match="Key 'k' belongs to another answer"):
        answer(claim_comparison(annotator=annotator), "k")
    require_invariant(project)


@pytest.mark.parametrize("key", ["", "k" * 81])
def test_a_key_has_1_to_80_characters(project, annotator, key):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    with pytest.raises(BadInput, match=f"not {len(key)}"):
        submit_preference(assignment=lease, rankings=as_shown(lease), key=key)


def test_a_late_answer_counts_while_a_slot_is_free(project, annotator, now):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    sweep_expired_leases(now=now + timedelta(hours=1))
    assert answer(lease).counted
    require_invariant(project)


def test_a_late_answer_without_a_free_slot_is_kept_as_surplus(project, annotator, now):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    answer(claim_comparison(annotator=make_annotator(project), now=now + timedelta(hours=1)))
    assert not answer(lease).counted
    assert Preference.objects.count() == 2
    require_invariant(project)


def test_a_late_answer_to_a_retired_comparison_is_kept_as_surplus(project, annotator, now):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator, now=now)
    sweep_expired_leases(now=now + timedelta(hours=1))
    Comparison.objects.update(retired_at=now)
    assert not answer(lease).counted
    require_invariant(project)


def test_voiding_a_counted_answer_opens_its_slot_for_others(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    void_preference(preference=answer(lease), by=make_user(), reason="Clicked through")
    require_invariant(project)
    assert nothing(annotator).reason == "none_for_you"
    assert claim_comparison(annotator=make_annotator(project)).comparison_id == lease.comparison_id


def test_a_revision_takes_over_the_count(project, annotator):
    make_comparisons(project)
    lease = claim_comparison(annotator=annotator)
    first = answer(lease)
    second = revise_preference(preference=first, rankings=as_shown(lease), cause="Misread")
    first.refresh_from_db()
    assert (first.current, first.counted, second.counted) == (False, False, True)
    require_invariant(project)


def test_higher_priority_goes_first(project, annotator):
    make_comparisons(project, 5)
    [urgent] = make_comparisons(project, batch="urgent", priority=3)
    assert claim_comparison(annotator=annotator).comparison == urgent


def test_a_paused_batch_is_not_handed_out(project, annotator):
    [comparison] = make_comparisons(project, priority=9)
    [other] = make_comparisons(project, batch="second")
    pause_batch(batch=comparison.batch, paused=True, by=None)
    assert claim_comparison(annotator=annotator).comparison == other


def test_members_get_their_languages_and_skills_alone(project):
    [english] = make_comparisons(project, language="en")
    [chinese] = make_comparisons(project, language="zh-hant")
    [medical] = make_comparisons(project, language="en", batch="medical", skill="medicine")
    reader = make_annotator(project, languages=["zh"])
    assert claim_comparison(annotator=reader).comparison == chinese
    doctor = make_annotator(project, languages=["en"], skills=["medicine"])
    got = {
        claim_comparison(annotator=doctor).comparison,
        claim_comparison(annotator=doctor, kind="prefetched").comparison,
    }
    assert got == {english, medical}
    assert nothing(make_annotator(project, languages=["fr"])).reason == "none_for_you"


def test_evaluation_comparisons_come_from_the_same_queue(project, annotator):
    [comparison] = make_comparisons(project, purpose="evaluation")
    assert claim_comparison(annotator=annotator).comparison == comparison


@pytest.mark.parametrize("purpose", ["gold", "qualification", "repeat", "live"])
def test_other_purposes_are_not_handed_out_in_turn(project, annotator, purpose):
    make_comparisons(project, purpose=purpose)
    assert nothing(annotator).reason == "done"


def test_retired_comparisons_are_not_handed_out(project, annotator, now):
    make_comparisons(project)
    Comparison.objects.update(retired_at=now)
    assert nothing(annotator).reason == "done"


def test_a_comparison_that_is_retired_between_look_and_claim_is_left(
    project, annotator, now, monkeypatch
):
    make_comparisons(project)
    look = walk.candidates

    def then_retired(*of):
        found = look(*of)
        Comparison.objects.update(retired_at=now)
        return found

    monkeypatch.setattr(walk, "candidates", then_retired)
    assert nothing(annotator).reason == "done"
    assert not Assignment.objects.exists()
    require_invariant(project)


def test_the_walk_wraps_round_the_ring(project, annotator):
    made = make_comparisons(project, 12)
    for place, comparison in enumerate(made):
        Comparison.objects.filter(pk=comparison.pk).update(sort_key=place / 12)
    seen = []
    for _ in made:
        lease = claim_comparison(annotator=annotator)
        answer(lease)
        seen.append(made.index(lease.comparison))
    start = seen[0]
    assert seen == [(start + step) % 12 for step in range(12)]


def test_annotators_start_at_different_places(project):
    make_comparisons(project, 30, answers_wanted=10)
    first = {claim_comparison(annotator=make_annotator(project)).comparison_id for _ in range(10)}
    assert len(first) >= 4


def test_the_first_annotator_sees_either_completion_first_as_often(project):
    made = make_comparisons(project, 40)
    orders = [draw_order(comparison) for comparison in made]
    assert orders == [draw_order(comparison) for comparison in made]
    first = [order == sorted(order) for order in orders]
    assert 8 <= sum(first) <= 32  # a fair coin leaves this 1 time in 10,000


@pytest.mark.parametrize("k", [2, 3, 5])
def test_places_are_balanced_over_the_annotators_of_a_comparison(project, k, now):
    make_comparisons(project, k=k, answers_wanted=11)
    orders = []
    for number in range(11):
        lease = claim_comparison(annotator=make_annotator(project), now=now)
        orders.append(lease.presented_order)
        if number % 3 == 0:
            release_lease(assignment=lease)  # an order that was drawn counts all the same
        for place in range(k):
            seen = [order[place] for order in orders]
            counts = [seen.count(completion) for completion in orders[0]]
            assert max(counts) - min(counts) <= 1


def test_a_claim_needs_few_queries_however_much_is_open(
    project, annotator, django_assert_max_num_queries
):
    make_comparisons(project, 60)
    with django_assert_max_num_queries(22):
        claim_comparison(annotator=annotator)


def test_a_second_tab_that_takes_the_last_comparison_shares_its_lease(
    project, annotator, monkeypatch
):
    """Both tabs look for a lease, then one takes the last comparison before the other looks."""
    make_comparisons(project, 1)
    look = walk.candidates

    def while_the_other_tab_claims(*of):
        monkeypatch.setattr(walk, "candidates", look)
        queue.claim_comparison(annotator=annotator)
        return look(*of)

    monkeypatch.setattr(walk, "candidates", while_the_other_tab_claims)
    lease = queue.claim_comparison(annotator=annotator)
    assert lease == project.assignments.get()


def in_batch(project, **settings):
    """Two comparisons of a batch with these settings."""
    made = make_comparisons(project, 2, answers_wanted=2)
    Batch.objects.update(**settings)
    return made


def test_what_is_put_off_comes_again_when_nothing_else_is_left(project, annotator, now):
    in_batch(project, skip_mode="later")
    first = claim_comparison(annotator=annotator, now=now)
    skip_comparison(assignment=first, reason="Too long")
    second = claim_comparison(annotator=annotator, now=now + timedelta(seconds=9))
    assert second.comparison_id != first.comparison_id
    skip_comparison(assignment=second, reason="Too long as well")
    again = claim_comparison(annotator=annotator, now=now + timedelta(seconds=20))
    assert (again.pk, again.presented_order) == (first.pk, first.presented_order)
    assert (again.state, again.skip_reason) == ("leased", "")
    assert answer(again).counted
    answer(claim_comparison(annotator=annotator, now=now))
    require_invariant(project)
    assert nothing(annotator).reason == "none_for_you"


def test_what_is_put_off_and_out_with_others_may_come_free(project, annotator, now):
    in_batch(project, skip_mode="later")
    for _ in range(2):
        skip_comparison(assignment=claim_comparison(annotator=annotator, now=now))
    for _ in range(4):
        claim_comparison(annotator=make_annotator(project), now=now)
    assert nothing(annotator, now=now).reason == "all_leased"


def test_what_is_put_off_in_a_paused_batch_or_a_language_lost_is_not_for_me(project, annotator):
    in_batch(project, skip_mode="later")
    for _ in range(2):
        skip_comparison(assignment=claim_comparison(annotator=annotator))
    Batch.objects.update(paused=True)
    assert nothing(annotator).reason == "none_for_you"
    Batch.objects.update(paused=False)
    Comparison.objects.update(language="fi")
    annotator.user.memberships.update(languages=["en"])
    assert nothing(annotator).reason == "none_for_you"


def test_a_skip_retires_at_once_where_the_batch_says_so(project, annotator):
    in_batch(project, skip_mode="retire")
    lease = claim_comparison(annotator=annotator)
    other = claim_comparison(annotator=make_annotator(project))
    skip_comparison(assignment=lease, reason="Broken")
    assert Comparison.objects.get(pk=lease.comparison_id).retired_at is not None
    require_invariant(project)
    assert answer(other).counted  # a lease that is out stays good
    entry = AuditEntry.objects.get(action="comparison.retire")
    assert (entry.actor, entry.data) == (annotator.user, {"reason": "skipped by 1"})


def test_a_comparison_is_retired_once_enough_different_people_skipped_it(project):
    make_comparisons(project, answers_wanted=2)
    Batch.objects.update(skip_mode="retire", skips_to_retire=2)
    first, second = (claim_comparison(annotator=make_annotator(project)) for _ in range(2))
    for _ in range(2):
        skip_comparison(assignment=first, reason="Broken")
    assert Comparison.objects.get().retired_at is None
    skip_comparison(assignment=second, reason="Broken")
    assert Comparison.objects.get().retired_at is not None
    require_invariant(project)
