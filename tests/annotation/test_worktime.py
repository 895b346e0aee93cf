"""Time at work: the page's measure is never believed beyond the clock; days add up."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from annotation.models import Preference, WorkDay
from annotation.services import queue, worktime
from annotation.services.worktime import note_activity, timesheet
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def project():
    return make_project("desk")


@pytest.fixture
def annotator(project):
    return make_annotator(project)


@pytest.fixture
def lease(project, annotator):
    """Taken at noon."""
    make_comparisons(project, 3)
    return queue.claim_comparison(annotator=annotator, now=NOON)


@pytest.mark.parametrize(
    ("reports", "believed"),
    [
        ([(30, 20.0)], 20.0),
        ([(30, 400.0)], 30.0),
        ([(30, 20.0), (60, 45.0)], 45.0),
        ([(30, 20.0), (60, 500.0)], 50.0),  # 20, then no more than the 30 s that passed
        ([(30, 20.0), (60, 5.0)], 20.0),  # a page that was loaded anew knows less
        ([(30, -5.0)], 0.0),
        ([(30, float("nan"))], 0.0),
        ([(30, float("inf"))], 30.0),
        ([(30, 20.0), (30, 20.0)], 20.0),  # the same report twice
    ],
)
def test_what_is_believed_of_what_a_page_measured(annotator, lease, reports, believed):
    for at, measured in reports:
        note_activity(assignment=lease, active_seconds=measured, now=after(at))
    lease.refresh_from_db()
    assert lease.active_seconds == believed
    assert sum(WorkDay.objects.values_list("active_seconds", flat=True)) == believed


def test_two_leases_at_once_share_one_clock(annotator, lease):
    ahead = queue.claim_comparison(annotator=annotator, kind="prefetched", now=NOON)
    note_activity(assignment=lease, active_seconds=60, now=after(60))
    note_activity(assignment=ahead, active_seconds=60, now=after(70))
    assert WorkDay.objects.get().active_seconds == 70


def test_a_report_that_comes_while_another_is_taken_in_is_the_same_time(
    annotator, lease, monkeypatch
):
    ahead = queue.claim_comparison(annotator=annotator, kind="prefetched", now=NOON)
    day_of = worktime.day_of

    def day_after_the_other_tab_reported(*about):
        monkeypatch.setattr(worktime, "day_of", day_of)
        note_activity(assignment=ahead, active_seconds=60, now=after(60))
        return day_of(*about)

    monkeypatch.setattr(worktime, "day_of", day_after_the_other_tab_reported)
    note_activity(assignment=lease, active_seconds=60, now=after(60))
    assert WorkDay.objects.get().active_seconds == 60


def test_an_answered_lease_takes_no_more(lease):
    note_activity(assignment=lease, active_seconds=10, now=after(10))
    queue.submit_preference(assignment=lease, rankings=as_shown(lease), key="k", now=after(20))
    assert note_activity(assignment=lease, active_seconds=30, now=after(40)) == 10


def test_time_belongs_to_the_day_it_is_reported_on(annotator, lease):
    note_activity(assignment=lease, active_seconds=60, now=after(60))
    note_activity(assignment=lease, active_seconds=100, now=after(86_400))
    days = dict(WorkDay.objects.values_list("day", "active_seconds"))
    assert days == {date(2026, 3, 2): 60, date(2026, 3, 3): 40}


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [("UTC", 12 * 3600), ("Asia/Shanghai", 4 * 3600), ("America/New_York", 17 * 3600)],
)
def test_time_before_midnight_belongs_to_the_day_before(annotator, lease, zone, midnight):
    """By the day of the installation, as all days of the timesheet are."""
    with timezone.override(zone):
        note_activity(assignment=lease, active_seconds=100, now=after(midnight - 20))
        note_activity(assignment=lease, active_seconds=150, now=after(midnight + 40))
    days = dict(WorkDay.objects.values_list("day", "active_seconds"))
    new = (after(midnight).astimezone(ZoneInfo(zone))).date()
    assert days == {new - timedelta(days=1): 110, new: 40}
    lease.refresh_from_db()
    assert lease.active_seconds == 150


def test_a_report_at_midnight_belongs_to_the_day_that_ends(annotator, lease):
    note_activity(assignment=lease, active_seconds=30, now=after(12 * 3600))
    assert WorkDay.objects.get().day == date(2026, 3, 2)


def test_two_tabs_on_both_sides_of_midnight_share_one_clock(annotator, lease, monkeypatch):
    ahead = queue.claim_comparison(annotator=annotator, kind="prefetched", now=NOON)
    note_activity(assignment=lease, active_seconds=10, now=after(12 * 3600 - 60))
    by_day = worktime._by_day

    def by_day_after_the_other_tab_reported(*about):
        monkeypatch.setattr(worktime, "_by_day", by_day)
        note_activity(assignment=ahead, active_seconds=80, now=after(12 * 3600 + 20))
        return by_day(*about)

    monkeypatch.setattr(worktime, "_by_day", by_day_after_the_other_tab_reported)
    note_activity(assignment=lease, active_seconds=69, now=after(12 * 3600 - 1))
    assert dict(WorkDay.objects.values_list("day", "active_seconds")) == {
        date(2026, 3, 2): 10 + 60,
        date(2026, 3, 3): 20,
    }


def test_the_days_of_a_project(project, annotator, lease):
    other = make_annotator(project)
    queue.submit_preference(assignment=lease, rankings=as_shown(lease), key="k1", now=after(20))
    Preference.objects.update(created_at=after(20))
    theirs = queue.claim_comparison(annotator=other)
    queue.skip_comparison(assignment=theirs, reason="language")
    queue.skip_comparison(assignment=theirs, reason="language")  # which is skipping once
    today = WorkDay.objects.get(annotator=other).day
    days = timesheet(project, date(2026, 3, 1), today)
    assert [(one.day, one.annotator, one.answers, one.skips) for one in days] == [
        (today, other, 0, 1),
        (date(2026, 3, 2), annotator, 1, 0),
    ]
    assert timesheet(project, date(2026, 3, 3), date(2026, 3, 4)) == []
    assert [one.annotator for one in timesheet(project, date(2026, 3, 1), today, [other])] == [
        other
    ]
    assert timesheet(make_project("elsewhere"), date(2026, 3, 1), today) == []


def test_a_change_of_an_answer_is_no_second_answer(project, annotator, lease):
    first = queue.submit_preference(assignment=lease, rankings=as_shown(lease), key="k1")
    Preference.objects.filter(pk=first.pk).update(current=False, counted=False)
    Preference.objects.create(
        project=project, comparison=first.comparison, annotator=annotator, scheme=first.scheme,
        revision=2,
    )  # fmt: skip
    today = first.created_at.date()
    assert [one.answers for one in timesheet(project, today, today)] == [1]
