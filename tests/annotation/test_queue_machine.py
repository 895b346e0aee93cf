"""Hypothesis plays the queue in any order it can think of; the invariant holds at each step."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from annotation.errors import Conflict, LeaseLost, NothingToDo
from annotation.models import Assignment, Comparison, Preference
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    renew_lease,
    skip_comparison,
    submit_preference,
    sweep_expired_leases,
)
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

ANNOTATORS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)


class Queue(RuleBasedStateMachine):
    """Three annotators, three comparisons, a clock that only goes forward."""

    # each play in a savepoint of its own, taken back at its end
    @initialize(wanted=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def open(self, wanted):
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.now = START
        self.project = make_project(lease_seconds=300)
        self.reviewer = make_user()
        self.annotators = [make_annotator(self.project) for _ in range(ANNOTATORS)]
        for number in wanted:
            make_comparisons(self.project, k=3, answers_wanted=number)
        self.orders = {}
        self.answers = {}
        self.finished = set()

    def teardown(self):
        if hasattr(self, "atomic"):
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    def assignment(self, place):
        """One of those that exist, or None."""
        rows = list(Assignment.objects.filter(project=self.project).order_by("pk"))
        return rows[place % len(rows)] if rows else None

    def preference(self, place):
        rows = list(Preference.objects.filter(project=self.project).order_by("pk"))
        return rows[place % len(rows)] if rows else None

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(who=st.integers(0, ANNOTATORS - 1), kind=st.sampled_from(["active", "prefetched"]))
    def claim(self, who, kind):
        annotator = self.annotators[who]
        live = Assignment.objects.filter(
            annotator=annotator, kind=kind, holds_slot=True, expires_at__gt=self.now
        ).first()
        try:
            lease = claim_comparison(annotator=annotator, kind=kind, now=self.now)
        except NothingToDo:
            assert live is None
            self.require_that_nothing_was_left(annotator)
            return
        assert live is None or lease == live
        assert lease.holds_slot
        assert lease.kind == kind
        assert lease.expires_at > self.now
        pair = (lease.comparison_id, annotator.pk)
        assert pair not in self.finished
        assert self.orders.setdefault(pair, lease.presented_order) == lease.presented_order

    def require_that_nothing_was_left(self, annotator):
        """No slot was free that this annotator had not used up: the walk sees everything."""
        for comparison in Comparison.objects.filter(project=self.project, open_slots__gt=0):
            held = comparison.assignments.filter(annotator=annotator, holds_slot=True).exists()
            assert held or (comparison.pk, annotator.pk) in self.finished

    @rule(place=st.integers(0, 20))
    def renew(self, place):
        if lease := self.assignment(place):
            held = lease.holds_slot
            try:
                assert renew_lease(assignment=lease, now=self.now).expires_at > self.now
                assert held
            except LeaseLost:
                assert not held

    @rule(place=st.integers(0, 20))
    def release(self, place):
        if lease := self.assignment(place):
            release_lease(assignment=lease)
            assert not lease.holds_slot

    @rule()
    def sweep(self):
        expired = Assignment.objects.filter(holds_slot=True, expires_at__lte=self.now).count()
        assert sweep_expired_leases(now=self.now) == expired

    @rule(place=st.integers(0, 20))
    def skip(self, place):
        if lease := self.assignment(place):
            answered = lease.state == "answered"
            try:
                skip_comparison(assignment=lease, reason="No")
                assert not answered
            except Conflict:
                assert answered
            self.finished.add((lease.comparison_id, lease.annotator_id))

    @rule(place=st.integers(0, 20))
    def submit(self, place):
        """In time or late; again with the same key; again with another."""
        if (lease := self.assignment(place)) is None:
            return
        free = lease.holds_slot or lease.comparison.open_slots > 0
        ended = lease.state in ("answered", "skipped")
        key = f"key {lease.pk}"
        try:
            preference = submit_preference(
                assignment=lease, rankings=as_shown(lease), key=key, now=self.now
            )
        except Conflict:
            assert lease.state == "skipped"
            return
        assert self.answers.setdefault(key, preference.pk) == preference.pk
        if not ended:
            assert preference.counted == free
        self.finished.add((lease.comparison_id, lease.annotator_id))
        with pytest.raises(Conflict):
            submit_preference(assignment=lease, rankings=as_shown(lease), key=f"another {key}")

    @rule(place=st.integers(0, 20))
    def void(self, place):
        if preference := self.preference(place):
            gone = preference.voided_at is not None or not preference.current
            try:
                void_preference(preference=preference, by=self.reviewer, reason="Wrong")
                assert not gone
            except Conflict:
                assert gone

    @rule(place=st.integers(0, 20))
    def revise(self, place):
        if preference := self.preference(place):
            gone = preference.voided_at is not None or not preference.current
            try:
                new = revise_preference(
                    preference=preference,
                    rankings=as_shown(preference.assignment),
                    cause="Misread",
                )
                assert not gone
                assert (new.counted, new.revision) == (preference.counted, preference.revision + 1)
            except Conflict:
                assert gone

    @precondition(lambda self: hasattr(self, "project"))
    @invariant()
    def slots_add_up(self):
        require_invariant(self.project)

    @precondition(lambda self: hasattr(self, "project"))
    @invariant()
    def nothing_is_counted_twice(self):
        for annotator in self.annotators:
            held = Assignment.objects.filter(annotator=annotator, holds_slot=True)
            kinds = [lease.kind for lease in held]
            assert len(kinds) == len(set(kinds))
            current = Preference.objects.filter(annotator=annotator, current=True)
            comparisons = [one.comparison_id for one in current]
            assert len(comparisons) == len(set(comparisons))


def test_the_invariant_holds_after_every_step_of_any_play():
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
