"""Hypothesis plays the queue in any order it can think of; the invariant holds at each step."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Q
from hypothesis import HealthCheck, Phase, settings
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
from annotation.models import Assignment, Batch, Comparison, Preference, Question
from annotation.services import lanes
from annotation.services.batches import change_batch, reopen_comparison, retire_comparison
from annotation.services.questions import answer as answer_question
from annotation.services.questions import ask
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    renew_lease,
    skip_comparison,
    submit_preference,
    sweep_expired_leases,
)
from annotation.services.review import revise_preference, void_preference
from tests.annotation.faults import FAULTS, FOUND_BY_THE_MACHINE
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
PLACE = st.integers(0, 8)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Queue(RuleBasedStateMachine):
    """Three annotators, three comparisons, a clock that only goes forward.

    The project is made once; every play starts from it in a savepoint that is taken back.
    """

    def __init__(self, project, annotators, reviewer):
        super().__init__()
        self.project = project
        self.annotators = annotators
        self.reviewer = reviewer
        self.play = transaction.atomic()
        self.play.__enter__()
        self.now = START
        self.orders = {}
        self.answers = {}
        self.finished = set()

    def teardown(self):
        transaction.set_rollback(True)
        self.play.__exit__(None, None, None)

    @initialize(
        wanted=st.lists(st.integers(1, 3), min_size=3, max_size=3),
        skip_mode=st.sampled_from(["others", "later", "retire"]),
        skips=st.integers(1, 2),
        adaptive=st.lists(st.booleans(), min_size=3, max_size=3),
    )
    def open(self, wanted, skip_mode, skips, adaptive):
        Batch.objects.filter(project=self.project).update(
            skip_mode=skip_mode, skips_to_retire=skips
        )
        comparisons = Comparison.objects.filter(project=self.project).order_by("pk")
        for comparison, number, at_two in zip(comparisons, wanted, adaptive, strict=True):
            comparison.answers_wanted = comparison.open_slots = 2 if at_two else number
            comparison.full_overlap = 3 if at_two else None
            comparison.save(update_fields=["answers_wanted", "open_slots", "full_overlap"])

    def one_of(self, rows, place):
        """The row that a drawn number means; a rule without a row does nothing."""
        rows = list(rows.order_by("pk"))
        return rows[place % len(rows)] if rows else None

    def comparisons(self):
        return Comparison.objects.filter(project=self.project)

    def leases(self):
        return Assignment.objects.filter(project=self.project)

    def assignment(self, place):
        return self.one_of(self.leases(), place)

    def preference(self, place):
        return self.one_of(Preference.objects.filter(project=self.project), place)

    def has_assignments(self):
        return bool(self.orders)

    def has_answers(self):
        return bool(self.answers)

    @rule(seconds=st.sampled_from([10, 130, 400]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(who=st.integers(0, ANNOTATORS - 1), kind=st.sampled_from(["active", "prefetched"]))
    def claim(self, who, kind):
        annotator = self.annotators[who]
        live = Assignment.objects.filter(
            annotator=annotator, kind=kind, holds_slot=True, expires_at__gt=self.now
        ).first()
        aside = {
            one.comparison_id
            for one in self.leases().filter(state="aside")
            if one.annotator_id == annotator.pk
        }
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
        assert lease.comparison_id not in aside
        assert self.orders.setdefault(pair, lease.presented_order) == lease.presented_order

    def require_that_nothing_was_left(self, annotator):
        """No slot was free that this annotator had not used up: the walk sees everything."""
        for comparison in Comparison.objects.filter(
            project=self.project, open_slots__gt=0, retired_at=None
        ):
            mine = comparison.assignments.filter(annotator=annotator)
            held = mine.filter(Q(holds_slot=True) | Q(state="aside")).exists()
            assert held or (comparison.pk, annotator.pk) in self.finished

    @precondition(has_assignments)
    @rule(place=PLACE)
    def renew(self, place):
        if lease := self.assignment(place):
            held = lease.holds_slot
            try:
                assert renew_lease(assignment=lease, now=self.now).expires_at > self.now
                assert held
            except LeaseLost:
                assert not held

    @precondition(has_assignments)
    @rule(place=PLACE)
    def release(self, place):
        if lease := self.assignment(place):
            release_lease(assignment=lease)
            assert not lease.holds_slot

    @rule(who=st.integers(0, ANNOTATORS - 1))
    def claim_and_submit(self, who):
        """What happens most of the time."""
        self.claim(who, "active")
        lease = Assignment.objects.filter(
            annotator=self.annotators[who], kind="active", holds_slot=True
        ).first()
        if lease is not None:
            self.answer(lease)

    @precondition(has_assignments)
    @rule(place=PLACE, who=st.integers(0, ANNOTATORS - 1))
    def submit_late(self, place, who):
        """Time runs out, perhaps somebody else takes the slot, then the answer comes."""
        self.now += timedelta(seconds=400)
        self.sweep()
        self.claim_and_submit(who)
        lost = self.leases().filter(state__in=("expired", "released"))
        if lease := self.one_of(lost, place):
            self.answer(lease)

    @precondition(has_assignments)
    @rule()
    def sweep(self):
        expired = Assignment.objects.filter(holds_slot=True, expires_at__lte=self.now).count()
        assert sweep_expired_leases(now=self.now) == expired

    @precondition(has_assignments)
    @rule(place=PLACE)
    def skip(self, place):
        if lease := self.assignment(place):
            answered = lease.state == "answered"
            try:
                skip_comparison(assignment=lease, reason="No")
                assert not answered
            except Conflict:
                assert answered
            if answered or lease.state == "skipped":
                self.finished.add((lease.comparison_id, lease.annotator_id))

    @precondition(has_assignments)
    @rule(place=PLACE)
    def ask_and_put_aside(self, place):
        if lease := self.assignment(place):
            done = lease.state in ("answered", "skipped")
            try:
                ask(
                    annotator=lease.annotator,
                    comparison=lease.comparison,
                    text="Why?",
                    put_aside=True,
                )
                assert not done
            except Conflict:
                assert done

    @rule(place=PLACE)
    def answer_a_question(self, place):
        """What was put aside for it may come again."""
        waiting = Question.objects.filter(project=self.project, state="open")
        if question := self.one_of(waiting, place):
            answer_question(question=question, text="So.", by=self.reviewer)
            about = {"comparison": question.comparison_id, "annotator": question.annotator_id}
            assert not self.leases().filter(**about, state="aside").exists()

    @precondition(has_assignments)
    @rule(place=PLACE)
    def submit(self, place):
        """In time or late; where all are answered, once more."""
        open_ones = self.leases().exclude(state="answered")
        if lease := self.one_of(open_ones, place) or self.assignment(place):
            self.answer(lease)

    def answer(self, lease):
        """Submit and check what it counts for; then once more with another key: refused."""
        comparison = lease.comparison
        is_open = comparison.open_slots > 0 and comparison.retired_at is None
        free = lease.holds_slot or is_open
        state = lease.state
        key = f"key {lease.pk}"
        try:
            preference = submit_preference(
                assignment=lease, rankings=as_shown(lease), key=key, now=self.now
            )
        except Conflict:
            assert state == "skipped"
            return
        assert self.answers.setdefault(key, preference.pk) == preference.pk
        if state != "answered":
            assert preference.counted == free
        self.finished.add((lease.comparison_id, lease.annotator_id))
        with pytest.raises(Conflict):
            submit_preference(assignment=lease, rankings=as_shown(lease), key=f"another {key}")

    @precondition(has_answers)
    @rule(place=PLACE)
    def void(self, place):
        if preference := self.preference(place):
            gone = preference.voided_at is not None or not preference.current
            try:
                void_preference(preference=preference, by=self.reviewer, reason="Wrong")
                assert not gone
            except Conflict:
                assert gone

    @rule(place=PLACE)
    def retire(self, place):
        comparison = self.one_of(self.comparisons(), place)
        try:
            retire_comparison(comparison=comparison, by=self.reviewer, reason="Bad text")
            assert comparison.retired_at is None
        except Conflict:
            assert comparison.retired_at is not None

    @rule(place=PLACE)
    def ask_again(self, place):
        """What was retired goes on with the slots that it had."""
        if comparison := self.one_of(self.comparisons().exclude(retired_at=None), place):
            opened = reopen_comparison(comparison=comparison, by=self.reviewer)
            assert (opened.retired_at, opened.open_slots) == (None, comparison.open_slots)

    @rule(more=st.integers(1, 2))
    def raise_overlap(self, more):
        batch = Batch.objects.get(project=self.project)
        wanted = (batch.overlap or 1) + more
        if wanted > 6:
            return
        change_batch(batch=batch, changes={"overlap": wanted}, by=self.reviewer)
        alive = self.comparisons().filter(retired_at=None, full_overlap=None)
        assert all(one.answers_wanted >= wanted for one in alive)

    @precondition(has_answers)
    @rule(place=PLACE)
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

    @invariant()
    def slots_add_up(self):
        require_invariant(self.project)


def play(**more):
    project = make_project(lease_seconds=300)
    make_comparisons(project, 3, k=3)
    annotators = [make_annotator(project) for _ in range(ANNOTATORS)]
    reviewer = make_user()
    run_state_machine_as_test(
        lambda: Queue(project, annotators, reviewer),
        settings=settings(
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
            **more,
        ),
    )


@pytest.fixture
def short_memory(monkeypatch):
    """Walks look at one comparison at a time and note every step."""
    monkeypatch.setattr(lanes, "FIRST_LOOK", 1)
    monkeypatch.setattr(lanes, "REMEMBERED", 1)
    monkeypatch.setattr(lanes, "MARGIN_SECONDS", 0.002)


def test_the_invariant_holds_after_every_step_of_any_play(short_memory):
    play(max_examples=40)


@pytest.mark.parametrize("what", FOUND_BY_THE_MACHINE)
def test_the_machine_finds_a_seeded_fault(what, short_memory, monkeypatch):
    FAULTS[what].put_in(monkeypatch.setattr)
    with pytest.raises((AssertionError, Conflict, IntegrityError)):
        play(max_examples=100, phases=[Phase.generate], report_multiple_bugs=False)
