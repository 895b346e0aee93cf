"""The queue under real threads, each with its own connection, on the real database of the run."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Barrier, Event
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from annotation.errors import NothingToDo
from annotation.models import Assignment, Comparison, Preference
from annotation.services.batches import change_batch
from annotation.services.queue import (
    claim_comparison,
    skip_comparison,
    submit_preference,
    sweep_expired_leases,
)
from annotation.services.review import void_preference
from annotation.services.worktime import count_skip, note_activity
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 8


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """What work(0..7) return, started together; the first error is raised."""
    start = Barrier(THREADS)

    def run(number: int) -> Any:
        start.wait(timeout=30)
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(run, n) for n in range(THREADS)]]


def claimed(annotator, **more) -> Assignment | None:
    try:
        return claim_comparison(annotator=annotator, **more)
    except NothingToDo:
        return None


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotators(project):
    return [make_annotator(project) for _ in range(THREADS)]


def test_eight_annotators_answer_forty_comparisons_exactly_twice_each(project, annotators):
    make_comparisons(project, 40, answers_wanted=2)

    def work(number):
        answered = 0
        while lease := claimed(annotators[number]):
            submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")
            answered += 1
        return answered

    assert sum(at_once(work)) == 80
    assert Preference.objects.filter(counted=True).count() == Preference.objects.count() == 80
    assert set(Comparison.objects.values_list("open_slots", flat=True)) == {0}
    require_invariant(project)


def test_eight_at_once_take_all_of_a_batch_before_one_of_the_next_due_is_touched(
    project, annotators
):
    for due_on in (date(2026, 5, 3), None, date(2026, 5, 1), date(2026, 5, 2)):
        [*_, last] = make_comparisons(project, 15, batch=str(due_on))
        change_batch(batch=last.batch, changes={"due_on": due_on}, by=None)

    def work(number):
        while lease := claimed(annotators[number]):
            submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")

    at_once(work)
    # an id is drawn once a slot is taken, and that after all before it were gone
    order = Assignment.objects.order_by("pk").values_list("comparison__batch__name", flat=True)
    names = ("2026-05-01", "2026-05-02", "2026-05-03", "None")
    assert list(order) == [name for name in names for _ in range(15)]


def test_the_same_key_sent_eight_times_at_once_is_one_answer(project, annotators):
    make_comparisons(project, answers_wanted=2)
    lease = claim_comparison(annotator=annotators[0])

    def work(number):
        own = Assignment.objects.get(pk=lease.pk)
        return submit_preference(assignment=own, rankings=as_shown(own), key="the key").pk

    assert len(set(at_once(work))) == 1
    assert Preference.objects.count() == 1
    require_invariant(project)


def test_the_last_slot_goes_to_one_of_eight(project, annotators):
    make_comparisons(project)
    leases = at_once(lambda number: claimed(annotators[number]))
    assert sum(lease is not None for lease in leases) == 1
    require_invariant(project)


def test_places_are_balanced_over_eight_who_claim_at_once(project, annotators):
    make_comparisons(project, k=4, answers_wanted=THREADS)
    leases = at_once(lambda number: claimed(annotators[number]))
    for place in range(4):
        seen = [lease.presented_order[place] for lease in leases]
        assert sorted(map(seen.count, set(seen))) == [2, 2, 2, 2]


def test_eight_tabs_of_one_annotator_share_a_lease(project, annotators):
    make_comparisons(project, 20)
    leases = at_once(lambda number: claimed(annotators[0]))
    assert len({lease.pk for lease in leases}) == 1
    require_invariant(project)


def test_eight_prefetches_and_claims_of_one_annotator_are_two_leases(project, annotators):
    make_comparisons(project, 20)
    kinds = ["active", "prefetched"] * (THREADS // 2)
    at_once(lambda number: claimed(annotators[0], kind=kinds[number]))
    held = Assignment.objects.filter(holds_slot=True).values_list("kind", flat=True)
    assert len(held) == len(set(held))
    require_invariant(project)


def test_expired_leases_are_released_once_though_all_sweep_and_claim(project, annotators):
    made = make_comparisons(project, 10)
    now = timezone.now()
    for _ in made:
        claim_comparison(annotator=make_annotator(project), now=now)
    later = now + timedelta(hours=1)

    def work(number):
        if number % 2:
            return sweep_expired_leases(now=later)
        claimed(annotators[number], now=later)
        return 0

    at_once(work)
    assert Assignment.objects.filter(state="expired").count() == 10
    assert Assignment.objects.filter(holds_slot=True).count() == THREADS // 2
    require_invariant(project)


def test_voids_late_answers_and_claims_at_once_keep_the_invariant(project, annotators):
    make_comparisons(project, 6, answers_wanted=2)
    now = timezone.now()
    reviewer = make_user()
    leases = [claim_comparison(annotator=one, now=now) for one in annotators[:4]]
    answers = [
        submit_preference(assignment=lease, rankings=as_shown(lease), key=f"first {lease.pk}")
        for lease in leases[:2]
    ]
    later = now + timedelta(hours=1)
    sweep_expired_leases(now=later)

    def work(number):
        if number < 2:
            void_preference(preference=answers[number], by=reviewer, reason="Wrong")
        elif number < 4:
            late = leases[number]
            submit_preference(assignment=late, rankings=as_shown(late), key=f"late {late.pk}")
        else:
            while lease := claimed(annotators[number], now=later):
                submit_preference(assignment=lease, rankings=as_shown(lease), key=f"{lease.pk}")

    at_once(work)
    require_invariant(project)
    assert Preference.objects.filter(voided_at__isnull=False).count() == 2


def test_a_skip_and_the_heartbeat_of_the_same_page_do_not_wait_for_each_other(
    project, annotators, monkeypatch
):
    """Both write the lease and the day: in one order, or PostgreSQL ends one of them."""
    make_comparisons(project)
    lease = claim_comparison(annotator=annotators[0])
    Assignment.objects.update(leased_at=timezone.now() - timedelta(minutes=1))
    note_activity(assignment=lease, active_seconds=1)  # the day's row is there
    is_given_back = Event()

    def counted_late(**day):
        is_given_back.set()
        time.sleep(1)
        count_skip(**day)

    monkeypatch.setattr("annotation.services.queue.count_skip", counted_late)

    def work(number):
        mine = Assignment.objects.get(pk=lease.pk)
        if number == 0:
            skip_comparison(assignment=mine, reason="not mine")
        elif number == 1 and is_given_back.wait(timeout=30):
            note_activity(assignment=mine, active_seconds=30)

    at_once(work)
    assert (lease.annotator.work_days.get().skips, Comparison.objects.get().open_slots) == (1, 1)
