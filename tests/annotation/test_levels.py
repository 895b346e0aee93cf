"""Many levels cost a claim no more queries than few, and the right lane of them is found."""

import random
import time
from datetime import date, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotation.errors import NothingToDo
from annotation.models import Assignment, Comparison, Preference, WalkPlace
from annotation.services import lanes, walk
from annotation.services.batches import change_batch
from annotation.services.lanes import ABOVE_ALL, place_on_ring, view_of
from annotation.services.levels import first_with_any
from annotation.services.queue import claim_comparison, release_lease, submit_preference
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db
SOON = date(2026, 5, 1)


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


def make_levels(project, number, each=1):
    """A batch a day from SOON on, each with so many comparisons that want a second answer."""
    made = []
    for day in range(number):
        rows = make_comparisons(project, each, batch=f"day {day}", answers_wanted=2)
        change_batch(batch=rows[0].batch, changes={"due_on": SOON + timedelta(day)}, by=None)
        made.append(rows)
    return made


def answer_next(annotator):
    lease = claim_comparison(annotator=annotator)
    submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}")
    return lease.comparison


def queries_of(work):
    with CaptureQueriesContext(connection) as queries:
        found = work()
    return len(queries), found


def had(comparisons, annotator):
    """They answered all of these, as far as a walk can see."""
    Assignment.objects.bulk_create(
        Assignment(
            project=one.project,
            comparison=one,
            annotator=annotator,
            scheme=one.batch.scheme,
            presented_order=[],
            state="answered",
            holds_slot=False,
            leased_at="2026-01-01T00:00Z",
            expires_at="2026-01-01T00:00Z",
        )
        for one in comparisons
    )


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("is_left", [True, False])
def test_many_levels_cost_a_claim_no_more_queries_than_few(monkeypatch, each, is_left):
    """All but the last level was answered, or all of them."""
    monkeypatch.setattr(walk, "LEVELS_READ", (1, 2, 99))
    asked = []
    for number in (5, 12):
        project = make_project()
        annotator = make_annotator(project)
        made = make_levels(project, number, each)
        # met by the first look, and not by one of the next
        project.comparisons.update(sort_key=place_on_ring(annotator))
        had([one for level in made[: -1 if is_left else None] for one in level], annotator)
        queries, found = queries_of(lambda of=annotator: walk.candidates(of))
        assert [one.batch for one in found] == [made[-1][0].batch] * is_left
        asked.append((queries, queries_of(lambda of=annotator: walk.candidates(of))[0]))
    assert asked[0] == asked[1]
    first, again = asked[0]
    assert again <= first <= 24  # the first time notes what was had


TABLE = [
    # what the annotator had of a level's two comparisons, and what is left
    ("answered, answered", False),
    ("answered, full", False),
    ("paused, paused", False),
    ("retired, leased", False),
    ("answered, released", True),
    ("paused, open", True),
    ("open, open", True),
]


def make_so(comparison, what, annotator):
    if what in ("answered", "leased", "released"):
        had([comparison], annotator)
        Assignment.objects.filter(comparison=comparison).update(state=what)
    elif what == "paused":
        [other] = make_comparisons(comparison.project, batch="paused")
        Comparison.objects.filter(pk=comparison.pk).update(batch=other.batch)
        Comparison.objects.filter(pk=other.pk).update(open_slots=0)
    else:
        how = {
            "full": {"open_slots": 0},
            "retired": {"retired_at": "2026-01-01T00:00Z"},
            "open": {"open_slots": 1},
        }
        Comparison.objects.filter(pk=comparison.pk).update(**how[what])


@pytest.mark.parametrize(("states", "has_any"), TABLE)
def test_by_the_table(project, annotator, states, has_any):
    """Two levels of such a state, and one behind them that is open."""
    made = make_levels(project, 3, each=2)
    [paused] = make_comparisons(project, batch="paused")
    Comparison.objects.filter(pk=paused.pk).update(open_slots=0)
    for level in made[:-1]:
        for comparison, what in zip(level, states.split(", "), strict=True):
            make_so(comparison, what, annotator)
    among = [lane for lane in all_lanes(project) if lane.due_day < SOON.toordinal() + 2]
    expected = 0 if has_any else None
    passed_over = frozenset({paused.batch_id})
    for _ in range(2):  # the second time with what the first one noted
        assert first_with_any(among, passed_over, annotator) == expected
    last = all_lanes(project)[-1]
    assert first_with_any([*among, last], passed_over, annotator) == (0 if has_any else len(among))
    assert WalkPlace.objects.count() == (0 if has_any else len(among))


def all_lanes(project):
    return view_of(project.pk, ABOVE_ALL, 99).lanes


def left_in(lane, annotator, passed_over):
    """The definition: anything open there that is not the annotator's."""
    mine = Assignment.objects.filter(annotator=annotator).exclude(state__in=("released", "expired"))
    answered = Preference.objects.filter(annotator=annotator)
    return (
        Comparison.objects.filter(
            project=annotator.project, open_slots__gt=0, retired_at=None, **lane._asdict()
        )
        .exclude(batch__in=passed_over)
        .exclude(pk__in=mine.values("comparison"))
        .exclude(pk__in=answered.values("comparison"))
        .exists()
    )


@pytest.mark.parametrize("seed", range(2))
def test_as_by_definition_whatever_was_answered_paused_and_given_back(
    project, annotator, seed, monkeypatch
):
    lot = random.Random(seed)
    monkeypatch.setattr(lanes, "REMEMBERED", 1)
    monkeypatch.setattr(lanes, "MARGIN_SECONDS", 0.002)
    made = make_levels(project, 4, each=2)
    project.comparisons.update(opened_at=time.time() - 1_000_000)
    others = [make_annotator(project) for _ in range(1)]
    seen = set()
    for _ in range(14):
        who = lot.choice([annotator, annotator, *others])
        try:
            if lot.random() < 0.3:
                release_lease(assignment=claim_comparison(annotator=who))
            else:
                answer_next(who)
        except NothingToDo:
            pass
        batch = lot.choice(made)[0].batch_id
        passed_over = frozenset({batch}) if lot.random() < 0.2 else frozenset()
        among = all_lanes(project)
        wanted = [left_in(lane, annotator, passed_over) for lane in among]
        found = first_with_any(among, passed_over, annotator)
        assert found == (wanted.index(True) if True in wanted else None)
        seen.add(found)
    assert len(seen) > 2


def test_what_comes_free_in_a_level_behind_is_handed_out_before_the_next(project, monkeypatch):
    monkeypatch.setattr(lanes, "MARGIN_SECONDS", 0.002)
    make_levels(project, 4)
    project.comparisons.update(opened_at=time.time() - 1_000_000)
    annotator, other = make_annotator(project), make_annotator(project)
    held = claim_comparison(annotator=other)
    Comparison.objects.filter(pk=held.comparison_id).update(answers_wanted=1, open_slots=0)
    seen = [answer_next(annotator).batch.name for _ in range(2)]
    release_lease(assignment=held)
    seen += [answer_next(annotator).batch.name for _ in range(2)]
    assert seen == ["day 1", "day 2", "day 0", "day 3"]


def test_each_lane_is_a_seek_in_an_index_of_what_is_open(project, annotator):
    make_levels(project, 3)
    among = all_lanes(project)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for way in ("seqscan", "sort", "bitmapscan"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
    with CaptureQueriesContext(connection) as queries:
        first_with_any(among, frozenset(), annotator)
    with connection.cursor() as cursor:
        how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        cursor.execute(f"{how} {queries[0]['sql']}")
        plan = str(cursor.fetchall())
    place = "walk_place_once" if connection.vendor == "postgresql" else "SEARCH place USING INDEX"
    for step in ("comparison_open_queue", "comparison_opened", place):
        assert step in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "SCAN annotation" not in plan, plan
    assert "Seq Scan" not in plan, plan
