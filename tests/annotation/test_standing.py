"""The bar and the qualification: every transition, by sequences made by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput, Conflict, NothingToDo
from annotation.models import Annotator, Assignment, AuditEntry, GoldCheck, Role
from annotation.services.checkrules import change_checks
from annotation.services.gold import retire_gold
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison
from annotation.services.review import void_preference
from annotation.services.standing import (
    WARNING_DELAY,
    accuracies,
    grant_try,
    lift_stop,
    pass_by_hand,
    recover_without,
)
from tests.annotation.golden import answer, make_experts, make_items
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_member,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def experts(project):
    return make_experts(project)


def rule(project, **changes):
    project.refresh_from_db()
    project.checks = change_checks(project=project, changes=changes, by=None).checks


def fresh(annotator):
    return Annotator.objects.select_related("project").get(pk=annotator.pk)


class Labeler:
    """Answers everything; the next checks as told, an hour after each other."""

    def __init__(self, project):
        self.annotator = make_annotator(project)
        self.now = START

    def check(self, right, *, pause=timedelta(hours=1)):
        """Work until a check comes, and answer it; the standing afterwards."""
        self.now += pause
        while True:
            lease = claim_comparison(annotator=fresh(self.annotator), now=self.now)
            if lease.comparison.purpose == "gold":
                self.last = answer(lease, right=right, now=self.now)
                return fresh(self.annotator).standing
            answer(lease, now=self.now)

    def checks(self, verdicts):
        """+ as the experts say, - against them."""
        return [self.check(one == "+") for one in verdicts]

    def refusal(self):
        with pytest.raises(NothingToDo) as caught:
            claim_comparison(annotator=fresh(self.annotator), now=self.now)
        return caught.value.reason

    def acts(self):
        """What the audit log says was done about the annotator."""
        target = f"annotator:{self.annotator.pk}"
        found = AuditEntry.objects.filter(target=target).order_by("pk")
        return list(found.values_list("action", flat=True))


@pytest.fixture
def labeler(project, experts):
    """Bar 80 % of the last five, stopped after two more."""
    make_items(experts, project, 14)
    make_comparisons(project, 40)
    rule(project, gold_every=2, bar_percent=80, bar_window=5, bar_more=2)
    return Labeler(project)


def test_good_warned_stopped(labeler):
    assert labeler.checks("+++-") == ["good"] * 4  # fewer than five decide nothing
    assert labeler.checks("-") == ["warned"]  # +++-- is 3 of 5
    assert labeler.checks("+") == ["warned"]  # ++--+, one more
    assert labeler.checks("-") == ["stopped"]  # +--+-, two more
    assert labeler.refusal() == "stopped"
    assert labeler.acts() == ["annotator.warn", "annotator.stop"]


def test_warned_and_good_again(labeler, project):
    rule(project, bar_more=4)
    labeler.checks("+++--")
    assert labeler.checks("++++") == ["warned", "warned", "warned", "good"]  # -++++ is 4 of 5
    assert fresh(labeler.annotator).standing_from is None
    assert labeler.acts() == ["annotator.warn", "annotator.recover"]


def test_at_the_bar_is_not_below_it(labeler):
    assert labeler.checks("++++-++++-") == ["good"] * 10


def test_checks_before_the_warning_can_be_read_do_not_stop(labeler):
    labeler.checks("+++--")
    warned = labeler.now
    assert fresh(labeler.annotator).standing_from == warned + WARNING_DELAY
    soon = timedelta(minutes=10)
    assert [labeler.check(False, pause=soon) for _ in range(2)] == ["warned", "warned"]
    assert labeler.checks("--") == ["warned", "stopped"]


def test_a_stop_gives_back_what_is_held_and_nothing_is_handed_out(labeler, project):
    labeler.checks("+++--+")
    ahead = None
    while fresh(labeler.annotator).standing != "stopped":
        labeler.now += timedelta(hours=1)
        mine = fresh(labeler.annotator)
        lease = claim_comparison(annotator=mine, now=labeler.now)
        ahead = claim_comparison(annotator=mine, kind="prefetched", now=labeler.now)
        answer(lease, right=lease.comparison.purpose != "gold", now=labeler.now)
    ahead.refresh_from_db()
    assert (ahead.state, ahead.holds_slot) == ("released", False)
    assert not Assignment.objects.filter(annotator=labeler.annotator, holds_slot=True).exists()
    assert labeler.refusal() == "stopped"
    require_invariant(project)


def test_a_lead_lifts_a_stop_and_the_window_begins_anew(labeler, experts):
    labeler.checks("+++--+-")
    with pytest.raises(BadInput, match="reason of 1 to 200"):
        lift_stop(annotator=labeler.annotator, by=experts[0], reason="")
    labeler.now = timezone.now()  # the lift is stamped by the clock
    lifted = lift_stop(annotator=labeler.annotator, by=experts[0], reason="We talked.")
    assert lifted.standing == "good"
    with pytest.raises(Conflict, match="is good, not stopped"):
        lift_stop(annotator=labeler.annotator, by=experts[0], reason="Again.")
    assert labeler.checks("----") == ["good"] * 4
    assert labeler.checks("-") == ["warned"]
    assert labeler.acts() == [
        "annotator.warn",
        "annotator.stop",
        "annotator.lift",
        "annotator.warn",
    ]


def test_an_item_found_wrong_takes_a_warning_back_but_no_stop(labeler, experts):
    labeler.checks("+++--")
    wrong = labeler.last.comparison.gold
    retire_gold(item=wrong, by=experts[0], reason="contested", is_wrong=True)
    recover_without(wrong)
    assert fresh(labeler.annotator).standing == "good"
    assert accuracies([labeler.annotator.pk]) == {
        labeler.annotator.pk: ["held", "held", "held", "broken"]
    }
    assert labeler.checks("-") == ["warned"]  # +++-- without the one that was wrong
    labeler.checks("--")
    wrong = labeler.last.comparison.gold
    retire_gold(item=wrong, by=experts[0], reason="contested", is_wrong=True)
    recover_without(wrong)
    assert fresh(labeler.annotator).standing == "stopped"


def test_a_void_answer_is_no_check(labeler, experts):
    labeler.checks("+++-")
    void_preference(preference=labeler.last, by=experts[0], reason="asleep")
    assert labeler.checks("-") == ["good"]  # the fourth that counts
    assert labeler.checks("+") == ["good"]  # +++-+


def test_without_a_bar_nobody_is_warned_and_turning_it_off_takes_warnings_away(labeler, project):
    labeler.checks("+++--")
    rule(project, bar_percent=0)
    assert fresh(labeler.annotator).standing == "good"
    assert labeler.checks("-----") == ["good"] * 5


def test_the_bar_looks_at_each_annotator_alone(labeler, project):
    other = Labeler(project)
    labeler.checks("+++--")
    assert other.checks("+++++") == ["good"] * 5
    assert fresh(labeler.annotator).standing == "warned"


# --- qualification ---


@pytest.fixture
def newcomer(project, experts):
    """Three items, two of them right, from a pool of seven; then real work."""
    make_items(experts, project, 7, "qualification")
    make_comparisons(project, 20)
    rule(
        project,
        qualification_items=3,
        qualification_percent=66,
        qualification_skill="trained",
    )
    return make_annotator(project)


def attempt(annotator, verdicts):
    for one in verdicts:
        lease = claim_comparison(annotator=fresh(annotator))
        assert lease.comparison.purpose == "qualification"
        answer(lease, right=one == "+")
    return fresh(annotator).qualification


def reason_of(annotator, **more):
    with pytest.raises(NothingToDo) as caught:
        claim_comparison(annotator=fresh(annotator), **more)
    return caught.value.reason


def test_whoever_passes_gets_real_work_and_the_skill(newcomer, project):
    assert attempt(newcomer, "+-") == "open"
    assert attempt(newcomer, "+") == "passed"
    assert claim_comparison(annotator=fresh(newcomer)).comparison.purpose == "production"
    assert project.memberships.get(user=newcomer.user).skills == ["trained"]
    assert set(GoldCheck.objects.values_list("attempt", flat=True)) == {1}
    require_invariant(project)


def test_whoever_fails_is_told_so_and_may_be_given_another_try(newcomer, project, experts):
    assert attempt(newcomer, "+--") == "failed"
    assert reason_of(newcomer) == "not_qualified"
    granted = grant_try(annotator=newcomer, by=experts[0])
    assert (granted.qualification, granted.qualification_try) == ("open", 2)
    assert attempt(newcomer, "---") == "failed"
    with pytest.raises(Conflict, match="takes 3 items, and 1 are new"):
        grant_try(annotator=newcomer, by=experts[0])
    assert pass_by_hand(annotator=newcomer, by=experts[0]).qualification == "passed"
    assert claim_comparison(annotator=fresh(newcomer)).comparison.purpose == "production"
    with pytest.raises(Conflict, match="is qualified already"):
        pass_by_hand(annotator=newcomer, by=experts[0])
    target = f"annotator:{newcomer.pk}"
    assert list(
        AuditEntry.objects.filter(target=target).order_by("pk").values_list("action", flat=True)
    ) == ["annotator.fail", "annotator.try", "annotator.fail", "annotator.pass"]


def test_a_try_is_never_longer_than_its_items(newcomer):
    attempt(newcomer, "++")
    claim_comparison(annotator=fresh(newcomer))
    assert reason_of(newcomer, kind="prefetched") == "qualification_out"


def test_no_item_left_is_a_message_of_its_own(project, experts):
    make_items(experts, project, 2, "qualification", language="zh")
    make_comparisons(project, 5)
    rule(project, qualification_items=2)
    assert reason_of(make_annotator(project, languages=["en"])) == "qualification_out"


def test_members_of_before_and_experts_notice_nothing(project, experts):
    old = make_annotator(project)
    make_items(experts, project, 2, "qualification")
    make_comparisons(project, 5)
    rule(project, qualification_items=2)
    assert claim_comparison(annotator=fresh(old)).comparison.purpose == "production"
    lead = annotator_for(user=make_member(project, Role.REVIEWER), project=project)
    assert claim_comparison(annotator=fresh(lead)).comparison.purpose == "production"


def test_a_failed_try_cannot_be_granted_to_whoever_has_not_failed(newcomer, experts):
    with pytest.raises(Conflict, match="has not failed"):
        grant_try(annotator=newcomer, by=experts[0])


def test_qualification_answers_are_no_hidden_checks(newcomer):
    attempt(newcomer, "---")
    assert accuracies([newcomer.pk]) == {}
