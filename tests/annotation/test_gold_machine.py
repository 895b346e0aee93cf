"""Hypothesis plays gold in any order it can think of: slots add up, and every score is the one that
the experts' answers of the moment give."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from annotation.errors import Conflict, NothingToDo
from annotation.models import Annotator, Assignment, GoldCheck, GoldItem, Preference
from annotation.services.gold import completion_ids, retire_gold, start_over, vote_on_gold
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    skip_comparison,
    sweep_expired_leases,
)
from annotation.services.review import revise_preference, void_preference
from tests.annotation.golden import answer, in_order, make_experts, make_items
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 1, tzinfo=UTC)
PLACE, WHO = st.integers(0, 8), st.integers(0, 1)


class Gold(RuleBasedStateMachine):
    """Two annotators, two experts, three items among fifteen comparisons; every play is undone."""

    def __init__(self, project, annotators, experts):
        super().__init__()
        self.project, self.annotators, self.experts = project, annotators, experts
        self.play = transaction.atomic()
        self.play.__enter__()
        self.now = START
        self.wrong = set()

    def teardown(self):
        transaction.set_rollback(True)
        self.play.__exit__(None, None, None)

    def one_of(self, rows, place):
        rows = list(rows.order_by("pk"))
        return rows[place % len(rows)] if rows else None

    def claimed(self, who):
        annotator = Annotator.objects.select_related("project").get(pk=self.annotators[who].pk)
        try:
            return claim_comparison(annotator=annotator, now=self.now)
        except NothingToDo:
            return None

    @rule(who=WHO, right=st.booleans(), times=st.integers(1, 4))
    def work(self, who, right, times):
        for _ in range(times):
            if lease := self.claimed(who):
                answer(lease, right=right, now=self.now)

    @rule(who=WHO, skips=st.booleans())
    def give_back(self, who, skips):
        if lease := self.claimed(who):
            if skips:
                skip_comparison(assignment=lease, reason="hard")
            else:
                release_lease(assignment=lease)

    @rule(who=WHO, place=PLACE)
    def be_late(self, who, place):
        """A lease runs out, is swept, and is answered after all."""
        lease = self.claimed(who)
        self.now += timedelta(hours=1)
        sweep_expired_leases(now=self.now)
        lost = Assignment.objects.filter(project=self.project, state="expired")
        if lease and (late := self.one_of(lost, place)):
            answer(late, now=self.now)

    @rule(place=PLACE, voids=st.booleans())
    def change(self, place, voids):
        """An answer to gold is revised or voided."""
        gold = Preference.objects.valid().filter(comparison__purpose="gold")
        if found := self.one_of(gold, place):
            if voids:
                void_preference(preference=found, by=self.experts[0], reason="asleep")
            else:
                ids = completion_ids(found.comparison)
                revise_preference(preference=found, rankings=in_order(ids), cause="slipped")

    @rule(place=PLACE, who=WHO, upright=st.booleans())
    def vote(self, place, who, upright):
        item = self.one_of(GoldItem.objects.filter(project=self.project), place)
        ids = completion_ids(item.comparison)
        ranking = in_order(ids if upright else ids[::-1])
        try:
            vote_on_gold(item=item, by=self.experts[who], rankings=ranking)
        except Conflict:
            assert item.state == "retired"

    @rule(place=PLACE, how=st.sampled_from(["anew", "wrong", "dull"]))
    def take_out(self, place, how):
        item = self.one_of(GoldItem.objects.filter(project=self.project), place)
        try:
            if how == "anew":
                start_over(item=item, by=self.experts[0], reason=how)
            else:
                is_wrong = how == "wrong"
                retire_gold(item=item, by=self.experts[0], reason=how, is_wrong=is_wrong)
                self.wrong |= {item.pk} if is_wrong else set()
        except Conflict:
            assert item.state == "retired"

    @invariant()
    def slots_add_up(self):
        require_invariant(self.project)

    @invariant()
    def scores_are_what_the_experts_say(self):
        """By hand: an item is two completions, so an answer holds it or is its reverse."""
        for check in GoldCheck.objects.select_related("item", "preference"):
            counts = bool(check.item.constraints) and check.preference.voided_at is None
            assert check.counts == (counts and check.item_id not in self.wrong)
            assert check.preference.current
            if check.item.constraints:
                [constraint] = check.item.constraints
                [best], [worst] = check.preference.rankings.get().groups
                held = [best, worst] == [constraint["better"], constraint["worse"]]
                assert check.verdict == ("held" if held else "broken")


def test_scores_and_slots_hold_after_every_step_of_any_play():
    project = make_project(lease_seconds=300, checks={"gold_every": 2})
    experts = make_experts(project)
    make_items(experts, project, 3)
    make_comparisons(project, 15, answers_wanted=2)
    annotators = [make_annotator(project) for _ in range(2)]
    run_state_machine_as_test(
        lambda: Gold(project, annotators, experts),
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
