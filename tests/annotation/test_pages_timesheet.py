"""The timesheet's page and its CSV: whose days one sees, and under which name."""

import pytest

from annotation.models import Assignment, Preference, WorkDay
from annotation.services.projects import annotator_for

TODAY = "2026-03-02"
URL = "/p/shop/timesheet.csv?first=2026-03-01&last=2026-03-02"
HEAD = "day,annotator,name,answers,skips,active_seconds,time_zone"


@pytest.fixture
def days(cast):
    """The labeler's and the reviewer's pseudonyms, each with a day."""
    people = [
        annotator_for(user=one, project=cast.project) for one in (cast.labeler, cast.reviewer)
    ]
    for annotator, seconds in zip(people, (61.4, 3600.0), strict=True):
        WorkDay.objects.create(annotator=annotator, day=TODAY, active_seconds=seconds, skips=2)
    return [one.pseudonym for one in people]


def rows(response) -> list[str]:
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    return response.content.decode().split("\r\n")[:-1]


def test_a_labeler_sees_their_own_days_alone(cast, enter, days):
    found = rows(enter(cast.labeler).get(URL))
    assert found == [HEAD, f"{TODAY},{days[0]},,0,2,61,UTC"]


def test_a_reviewer_sees_everybodys_by_pseudonym_and_an_admin_by_name_too(cast, enter, days):
    expected = sorted(
        [f"{TODAY},{days[0]},{{}},0,2,61,UTC", f"{TODAY},{days[1]},{{}},0,2,3600,UTC"]
    )
    names = {days[0]: cast.labeler.username, days[1]: cast.reviewer.username}
    assert sorted(rows(enter(cast.reviewer).get(URL))[1:]) == [one.format("") for one in expected]
    named = [one.format(names[one.split(",")[1]]) for one in expected]
    assert sorted(rows(enter(cast.admin).get(URL))[1:]) == named


def test_the_page_says_hours_sums_and_the_time_zone(cast, enter, days):
    url = URL.replace("timesheet.csv", "timesheet/")
    html = enter(cast.reviewer).get(url).content.decode()
    assert "1:00" in html
    assert "1:01" in html  # an hour and a minute in all
    assert "midnight to midnight, UTC" in html
    assert cast.labeler.username not in html


def test_a_name_is_no_formula(cast, enter, days):
    cast.labeler.username = "+cmd"
    cast.labeler.save()
    assert any(",'+cmd," in row for row in rows(enter(cast.admin).get(URL)))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("first=yesterday", "A day is written like 2026-01-31: yesterday"),
        ("first=2026-03-02&last=2026-03-01", "2026-03-02 to 2026-03-01"),
        ("first=2020-01-01&last=2026-03-01", "366 days at most"),
        ("last=0001-01-01", "of these centuries, please: 0001-01-01"),
        ("first=2026-01-01&last=9999-12-31", "of these centuries, please: 9999-12-31"),
        ("first=0001-01-01&last=2026-01-31", "366 days at most"),
    ],
)
def test_days_that_make_no_sense_are_a_sentence(cast, enter, query, sentence):
    response = enter(cast.labeler).get(f"/p/shop/timesheet/?{query}")
    assert response.status_code == 400
    assert sentence in response.content.decode()


def test_an_answer_keeps_its_active_seconds_within_the_clock(cast, enter):
    cast.ask("One?", ["Yes.", "No."])
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    lease = Assignment.objects.get()
    form = {"key": "k", "axis0-choice": "1", "active_seconds": "999999"}
    client.post(f"/p/shop/label/{lease.pk}/submit/", form)
    preference = Preference.objects.get()
    assert 0 < preference.active_seconds <= preference.seconds
    assert WorkDay.objects.get().active_seconds == preference.active_seconds


@pytest.mark.parametrize("measured", ["", "soon", "1e999", "nan", "-4"])
def test_a_measure_that_is_none_does_no_harm(cast, enter, measured):
    cast.ask("One?", ["Yes.", "No."])
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    lease = Assignment.objects.get()
    url = f"/p/shop/label/{lease.pk}/renew/"
    assert client.post(url, {"active_seconds": measured}).status_code == 204
