"""Gold under real threads: leases, scores and standings come out as if one after the other."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from django.db import connection, connections
from django.db.models import Count
from django.utils import timezone

from annotation import gold
from annotation.models import (
    Annotator,
    AnnotatorStanding,
    Assignment,
    AuditEntry,
    GoldCheck,
    GoldItem,
    Preference,
)
from annotation.services import standing
from annotation.services.checkrules import change_checks
from annotation.services.gold import completion_ids, make_gold, vote_on_gold
from annotation.services.queue import claim_comparison
from annotation.services.review import void_preference
from tests.annotation.golden import answer, in_order, make_experts, make_items
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)
from tests.annotation.test_queue_concurrency import THREADS, at_once, claimed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def experts(project):
    return make_experts(project)


def rule(project, **changes):
    change_checks(project=project, changes=changes, by=None)


def fresh(annotator):
    return Annotator.objects.select_related("project").get(pk=annotator.pk)


def test_eight_annotators_share_the_same_items_and_every_slot_adds_up(project, experts):
    make_items(experts, project, 3)
    make_comparisons(project, 48)
    rule(project, gold_every=2)
    annotators = [make_annotator(project) for _ in range(THREADS)]

    def work(number):
        for _ in range(8):
            if lease := claimed(fresh(annotators[number])):
                answer(lease)

    at_once(work)
    require_invariant(project)
    gold = Preference.objects.filter(comparison__purpose="gold")
    assert GoldCheck.objects.count() == gold.count() == gold.filter(counted=True).count() > 0
    shown = GoldItem.objects.annotate(leases=Count("comparison__assignments"))
    assert all(item.num_shown == item.leases for item in shown)


def test_eight_tabs_that_are_due_get_one_check(project, experts):
    make_items(experts, project, 5)
    make_comparisons(project, 20)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    Annotator.objects.filter(pk=annotator.pk).update(until_check=1)
    leases = at_once(lambda number: claimed(fresh(annotator)))
    assert len({lease.pk for lease in leases}) == 1
    require_invariant(project)


def test_the_last_two_answers_of_a_qualification_at_once_decide_it_once(project, experts):
    make_items(experts, project, 2, "qualification")
    make_comparisons(project, 4)
    rule(project, qualification_items=2)
    annotator = make_annotator(project)
    pair = [
        claim_comparison(annotator=fresh(annotator), kind=kind) for kind in ("active", "prefetched")
    ]

    def work(number):
        if number < 2:
            answer(Assignment.objects.get(pk=pair[number].pk))

    at_once(work)
    assert fresh(annotator).qualification == "passed"
    assert AuditEntry.objects.filter(action="annotator.pass").count() == 1
    require_invariant(project)


def test_two_checks_at_once_warn_once(project, experts):
    make_items(experts, project, 8)
    make_comparisons(project, 40)
    rule(project, gold_every=2, bar_percent=100, bar_window=5)
    annotator = make_annotator(project)
    while GoldCheck.objects.count() < 4:
        lease = claim_comparison(annotator=fresh(annotator))
        answer(lease, right=lease.comparison.purpose != "gold")
    Annotator.objects.filter(pk=annotator.pk).update(until_check=1)
    first = claim_comparison(annotator=fresh(annotator))
    Annotator.objects.filter(pk=annotator.pk).update(until_check=1)
    second = claim_comparison(annotator=fresh(annotator), kind="prefetched")
    assert {one.comparison.purpose for one in (first, second)} == {"gold"}

    def work(number):
        if number < 2:
            answer(Assignment.objects.get(pk=(first, second)[number].pk), right=False)

    at_once(work)
    assert GoldCheck.objects.count() == 6
    assert fresh(annotator).standing == "warned"
    assert AuditEntry.objects.filter(action="annotator.warn").count() == 1
    require_invariant(project)


def test_experts_who_answer_at_once_are_all_heard(project):
    experts = [expert for _ in range(THREADS // 2) for expert in make_experts(project)]
    [origin] = make_comparisons(project)
    item, ids = make_gold(comparison=origin, use="hidden", by=experts[0]), completion_ids(origin)
    at_once(lambda number: vote_on_gold(item=item, by=experts[number], rankings=in_order(ids)))
    item.refresh_from_db()
    assert (item.state, item.votes.count(), len(item.constraints)) == ("live", THREADS, 1)


def test_a_void_while_an_expert_votes_stays_out_of_the_accuracy(project, experts, monkeypatch):
    [item] = make_items(experts, project, 1)
    make_comparisons(project, 1)
    rule(project, gold_every=2)
    annotator = make_annotator(project)
    Annotator.objects.filter(pk=annotator.pk).update(until_check=1)
    given = answer(claim_comparison(annotator=fresh(annotator)))
    threads, waiting = ThreadPoolExecutor(1), []

    def void():
        try:
            void_preference(preference=given, by=experts[0], reason="a slip")
        finally:
            connections.close_all()

    def verdict(constraints, said):
        """The expert's vote has read the answer, which is being voided now."""
        waiting.append(threads.submit(void))
        wait(waiting, timeout=1)
        return gold.verdict_of(constraints, said)

    monkeypatch.setattr("annotation.services.gold.verdict_of", verdict)
    vote_on_gold(item=item, by=experts[1], rankings=in_order(completion_ids(item.comparison)))
    waiting[0].result(timeout=30)
    assert not GoldCheck.objects.get().counts


def test_a_bar_turned_off_while_a_wrong_item_lifts_warnings_waits_its_turn(
    project, experts, monkeypatch
):
    [item] = make_items(experts, project, 1)
    make_comparisons(project, 2)
    rule(project, gold_every=2, bar_percent=100, bar_window=5)
    warned = [make_annotator(project) for _ in range(2)]
    for annotator in warned:
        Annotator.objects.filter(pk=annotator.pk).update(until_check=1)
        answer(claim_comparison(annotator=fresh(annotator)))
    for annotator in reversed(warned):  # PostgreSQL writes rows anew: the second lies first now
        Annotator.objects.filter(pk=annotator.pk).update(
            standing=AnnotatorStanding.WARNED, standing_from=timezone.now()
        )
    threads, waiting, plain = ThreadPoolExecutor(1), [], standing._locked

    def turn_off():
        """With the whole table read as it lies, which is one of the plans that there are."""
        try:
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET enable_indexscan = off")
                    cursor.execute("SET enable_bitmapscan = off")
            rule(project, bar_percent=0)
        finally:
            connections.close_all()

    def locked(pk):
        """The first of the two is held; the bar is turned off now."""
        found = plain(pk)
        if not waiting:
            waiting.append(threads.submit(turn_off))
            _wait_until_somebody_waits()
        return found

    monkeypatch.setattr(standing, "_locked", locked)
    standing.recover_without(item)
    waiting[0].result(timeout=30)
    assert {fresh(one).standing for one in warned} == {AnnotatorStanding.GOOD}


def _wait_until_somebody_waits():
    """For a lock, on PostgreSQL; with SQLite's one writer that is so at once."""
    while connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
