"""What comes next in a lane, for whom, and how little is looked at to find out."""

import time
from datetime import date, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation.errors import NothingToDo
from annotation.models import Comparison, WalkPlace
from annotation.services import lanes, walk
from annotation.services.batches import change_batch
from annotation.services.lanes import Lane, Place, place_on_ring, view_of
from annotation.services.ledger import pause_batch
from annotation.services.queue import (
    claim_comparison,
    release_lease,
    skip_comparison,
    submit_preference,
)
from annotation.services.review import void_preference
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


@pytest.fixture
def at_once(monkeypatch):
    """Every walk notes how far it came, and there is no margin but the clock's."""
    monkeypatch.setattr(lanes, "REMEMBERED", 1)
    monkeypatch.setattr(lanes, "MARGIN_SECONDS", 0.002)


def long_ago(project):
    """Everything was opened long before any round began."""
    project.comparisons.update(opened_at=time.time() - 1_000_000)


def answer_next(annotator, kind="active"):
    lease = claim_comparison(annotator=annotator, kind=kind)
    return submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")


def looks_of(work):
    """How many comparisons each query of the walk returned while work ran."""
    seen, look = [], lanes._look

    def counting(*arguments):
        found = look(*arguments)
        seen.append(len(found))
        return found

    lanes._look = counting
    try:
        work()
    finally:
        lanes._look = look
    return seen


SOON, LATER, NEVER = date(2026, 5, 1), date(2026, 5, 2), None
LANES = [
    [(2, LATER, "en", ""), (2, LATER, "en", "law"), (2, LATER, "zh", "")],
    [(2, NEVER, "en", "")],
    [(0, SOON, "zh", "")],
    [(0, LATER, "", "art"), (0, LATER, "zh", "")],
    [(-1, SOON, "en", "a")],
]
"""By level, in the order of the queue."""


def day(due_on):
    return due_on.toordinal() if due_on else 3_652_059


def make_due(project, number=1, *, due_on, batch, **more):
    made = make_comparisons(project, number, batch=batch, **more)
    change_batch(batch=made[0].batch, changes={"due_on": due_on}, by=None)
    return made


@pytest.fixture
def levels(project):
    """Made in no order, with two comparisons each; and what a view says of each."""
    lanes = [lane for level in LANES for lane in level]
    for place in (3, 5, 1, 0, 7, 4, 2, 6):
        priority, due_on, language, skill = lanes[place]
        pool = {"language": language, "skill": skill, "priority": priority}
        make_due(project, 2, batch=f"batch {place}", due_on=due_on, **pool)
    make_comparisons(make_project(), priority=9)
    return [[(one[0], day(one[1]), *one[2:]) for one in level] for level in LANES]


def test_lanes_come_by_priority_then_due_date_then_language_then_skill(project, levels):
    assert view_of(project.pk, levels=9).lanes == [lane for level in levels for lane in level]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_levels_are_read_some_at_a_time(project, levels, number):
    below, seen = lanes.ABOVE_ALL, []
    while lanes_read := view_of(project.pk, below, number).lanes:
        seen.append(lanes_read)
        below = lanes_read[-1].level
    parts = range(0, len(levels), number)
    assert seen == [[lane for one in levels[at : at + number] for lane in one] for at in parts]


def test_a_view_knows_the_paused_batches(project):
    [comparison] = make_comparisons(project)
    pause_batch(batch=comparison.batch, paused=True, by=None)
    assert view_of(project.pk).paused == {comparison.batch_id}
    assert view_of(make_project().pk).lanes == []


def test_what_is_due_first_is_handed_out_first_and_what_has_no_date_last(project, annotator):
    for batch, due_on in (("a", NEVER), ("b", LATER), ("c", date(1999, 1, 1)), ("d", SOON)):
        make_due(project, 2, batch=batch, due_on=due_on)
    make_due(project, batch="urgent", due_on=NEVER, priority=1)
    seen = [answer_next(annotator).comparison.batch.name for _ in range(9)]
    assert seen == ["urgent", "c", "c", "d", "d", "b", "b", "a", "a"]


def test_who_cannot_have_the_first_levels_is_led_to_a_later_one(project, at_once):
    for number in range(12):
        make_due(project, batch=f"{number}", due_on=SOON + timedelta(number), skill=f"{number}")
    member = make_annotator(project, skills=["11", "3"])
    assert [answer_next(member).comparison.skill for _ in range(2)] == ["3", "11"]
    nothing(member)


def test_a_new_due_date_moves_open_and_full_comparisons_and_those_to_come(project, annotator):
    make_due(project, 2, batch="first", due_on=SOON)
    made = make_comparisons(project, 2, batch="second")
    held = claim_comparison(annotator=make_annotator(project))
    batch = change_batch(batch=made[0].batch, changes={"due_on": SOON - timedelta(1)}, by=None)
    assert claim_comparison(annotator=annotator).comparison.batch == batch
    [later] = make_comparisons(project, batch="second")
    everyone = project.comparisons.filter(batch=batch).values_list("due_day", flat=True)
    assert list(everyone) == [SOON.toordinal() - 1] * 3
    assert later.due_day == SOON.toordinal() - 1
    change_batch(batch=held.comparison.batch, changes={"due_on": None}, by=None)
    assert set(held.comparison.batch.comparisons.values_list("due_day", flat=True)) == {day(None)}


def test_who_had_all_of_a_lane_meets_it_again_when_its_due_date_moves(project, annotator, at_once):
    made = make_due(project, 12, batch="first", due_on=SOON, answers_wanted=2)
    long_ago(project)
    for _ in range(12):
        answer_next(annotator)
    nothing(annotator)
    change_batch(batch=made[0].batch, changes={"due_on": LATER}, by=None)
    [new] = make_comparisons(project, batch="first")
    assert claim_comparison(annotator=annotator).comparison == new


def test_lanes_of_one_priority_take_turns(project):
    for language in ("de", "en", "zh"):
        make_comparisons(project, 2, language=language, answers_wanted=50)
    annotators = [make_annotator(project) for _ in range(40)]
    seen = {claim_comparison(annotator=one).comparison.language for one in annotators}
    assert seen == {"de", "en", "zh"}  # all miss one of them 3 times in 10 million


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_every_step_is_a_seek_in_an_index_of_what_is_open(project, annotator, stage):
    make_comparisons(project, 3)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # three rows are read faster whole, or sorted: what matters is that neither is needed
            for way in ("seqscan", "sort", "bitmapscan"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
    with CaptureQueriesContext(connection) as queries:
        view_of(annotator.project_id)
        lanes._look(Lane(0, 1, "", ""), Place(stage, 0.0, 0.0), 1.0, annotator, 4)
    index = "comparison_opened" if stage == 2 else "comparison_open_queue"
    for query, used in zip(queries, ("comparison_open_queue", index), strict=True):
        with connection.cursor() as cursor:
            how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
            cursor.execute(f"{how} {query['sql']}")
            plan = str(cursor.fetchall())
        assert used in plan, plan
        assert "TEMP B-TREE" not in plan
        assert "SCAN annotation" not in plan


def test_who_is_far_ahead_does_not_walk_over_their_answers_again(project, annotator):
    make_comparisons(project, 120, answers_wanted=3)
    long_ago(project)
    for _ in range(100):
        looked = looks_of(lambda: answer_next(annotator))
        # one at home, two looks in the stage that ends where the ring does, two in the next one
        assert sum(looked) <= 1 + 2 * lanes.FIRST_LOOK * (1 + lanes.GROWTH), looked
    assert WalkPlace.objects.get().stage in (0, 1)


def test_who_has_answered_all_looks_at_nothing_but_what_comes_free(project, annotator, at_once):
    make_comparisons(project, 40, answers_wanted=2)
    long_ago(project)
    for _ in range(40):
        answer_next(annotator)
    assert walk.candidates(annotator) == []
    assert WalkPlace.objects.get().stage == 2
    assert looks_of(lambda: walk.candidates(annotator)) == [1, 0]


def nothing(annotator):
    with pytest.raises(NothingToDo):
        claim_comparison(annotator=annotator)


EVENTS = {
    "a lease given back": lambda lease: release_lease(assignment=lease),
    "a skip": lambda lease: skip_comparison(assignment=lease),
    "a void": lambda lease: void_preference(
        preference=submit_preference(assignment=lease, rankings=as_shown(lease), key="k"),
        by=make_user(),
        reason="Wrong",
    ),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_a_slot_that_comes_free_behind_somebody_is_found(project, annotator, at_once, event):
    make_comparisons(project, 20, answers_wanted=2)
    [closed] = make_comparisons(project, priority=1, batch="closed")
    held = claim_comparison(annotator=make_annotator(project))
    project.comparisons.update(priority=0)
    long_ago(project)
    for _ in range(20):
        answer_next(annotator)
    nothing(annotator)
    assert WalkPlace.objects.get().stage == 2
    event(held)
    assert claim_comparison(annotator=annotator).comparison == closed


def test_ones_own_lease_that_was_given_back_is_found_again(project, annotator, at_once):
    make_comparisons(project, 30, answers_wanted=2)
    long_ago(project)
    lease = claim_comparison(annotator=annotator)
    for _ in range(29):
        answer_next(annotator, "prefetched")
    nothing_new = walk.candidates(annotator)
    release_lease(assignment=lease)
    assert nothing_new == []
    assert claim_comparison(annotator=annotator) == lease


def test_what_was_paused_when_somebody_passed_is_found_once_it_goes_on(project, annotator, at_once):
    [first, *_] = make_comparisons(project, 12)
    make_comparisons(project, 20, batch="second", answers_wanted=2)
    long_ago(project)
    pause_batch(batch=first.batch, paused=True, by=None)
    for _ in range(20):
        answer_next(annotator)
    nothing(annotator)
    assert WalkPlace.objects.get().stage == 2
    pause_batch(batch=first.batch, paused=False, by=None)
    assert claim_comparison(annotator=annotator).comparison.batch == first.batch


def test_comparisons_that_come_later_are_found(project, annotator, at_once):
    make_comparisons(project, 12, answers_wanted=2)
    long_ago(project)
    for _ in range(12):
        answer_next(annotator)
    nothing(annotator)
    [later] = make_comparisons(project)
    assert claim_comparison(annotator=annotator).comparison == later


def test_equal_sort_keys_do_not_stop_a_walk(project, annotator):
    make_comparisons(project, 30, answers_wanted=2)
    project.comparisons.update(sort_key=place_on_ring(annotator), opened_at=1.0)
    for _ in range(30):
        answer_next(annotator)
    nothing(annotator)


def test_what_a_slow_transaction_opened_is_found_though_later_ones_were_seen(project, annotator):
    make_comparisons(project, 20, answers_wanted=2)
    long_ago(project)
    for _ in range(20):
        answer_next(annotator)
    make_comparisons(project, 8, answers_wanted=2)
    for _ in range(8):
        answer_next(annotator)
    nothing(annotator)
    assert WalkPlace.objects.get().stage == 2
    [late] = make_comparisons(project)
    Comparison.objects.filter(pk=late.pk).update(opened_at=time.time() - 600)
    assert claim_comparison(annotator=annotator).comparison == late


def opened_at(comparison):
    return Comparison.objects.values_list("opened_at", flat=True).get(pk=comparison.pk)


@pytest.mark.parametrize(
    ("change", "opens"),
    [
        ({"open_slots": 2}, True),
        ({"open_slots": 0}, False),
        ({"retired_at": None}, True),
        ({"priority": 3}, True),
        ({"due_day": 3}, True),
        ({"language": "zh"}, True),
        ({"skill": "law"}, True),
        ({"purpose": "evaluation"}, True),
        ({"sort_key": 0.5}, True),
        ({"answers_wanted": 4}, False),
    ],
)
def test_the_database_notes_when_a_comparison_opens(project, change, opens):
    """Where this fails after a new migration, it made SQLite copy the table: see
    migrations/0028_due_days.py, add_trigger."""
    [comparison] = make_comparisons(project, answers_wanted=3)
    Comparison.objects.update(open_slots=1, retired_at="2026-01-01T00:00Z", opened_at=1.0)
    before = opened_at(comparison)
    Comparison.objects.update(**change)
    assert before == 1.0
    if opens:
        assert time.time() - 60 < opened_at(comparison) < time.time() + 60
    else:
        assert opened_at(comparison) == 1.0
