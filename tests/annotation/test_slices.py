"""Agreement in parts and labelers against leads, by tables made by hand."""

from datetime import UTC, date, datetime

import pytest

from annotation.models import Preference
from annotation.services.decisions import decide
from annotation.services.disagreements import look_again
from annotation.services.projects import annotator_for, new_scheme
from annotation.services.quality import annotators_of, read_rows
from annotation.services.rankings import AxisRanking
from annotation.services.slices import against_leads, slices, week_of
from tests.annotation.making import make_annotator, make_member, make_project
from tests.annotation.voting import cast as vote
from tests.annotation.voting import compare, ids_of, make_voter

FIRST, SECOND = [[0], [1]], [[1], [0]]
FRAGMENT = {"HX-Request": "true"}


@pytest.fixture
def project(db):
    return make_project()


def two(project, same, *, day=None, **fields):
    """A comparison of which two people say the same or the opposite."""
    comparison = compare(project, **fields)
    for order in (FIRST, FIRST if same else SECOND):
        vote(comparison, order=order)
    if day is not None:
        moment = datetime(*day, 12, tzinfo=UTC)
        Preference.objects.filter(comparison=comparison).update(created_at=moment)
    return comparison


def percents(project, by):
    return {one.label: (one.percent.value, one.percent.n) for one in slices(read_rows(project), by)}


def test_by_language(project):
    two(project, True, language="en")
    two(project, False, language="en")
    two(project, True, language="zh")
    assert percents(project, "language") == {"en": (0.5, 2), "zh": (1.0, 1)}


def test_by_scheme_version_without_what_two_versions_share(project):
    two(project, True)
    second = new_scheme(project=project, by=None)
    other, mixed = two(project, False), two(project, True)
    other.preferences.update(scheme=second)
    mixed.preferences.filter(pk=mixed.preferences.last().pk).update(scheme=second)
    assert percents(project, "scheme") == {"001": (1.0, 1), "002": (0.0, 1)}


def test_by_week_of_the_last_answer(project):
    two(project, True, day=(2026, 3, 2))  # a Monday
    two(project, False, day=(2026, 3, 8))
    two(project, True, day=(2026, 3, 9))
    assert percents(project, "week") == {"2026-03-02": (0.5, 2), "2026-03-09": (1.0, 1)}
    assert week_of(date(2026, 3, 8)) == date(2026, 3, 2)


def test_a_part_says_why_it_has_no_figure(project):
    two(project, True, language="en")
    (only,) = slices(read_rows(project), "language")
    assert only.alpha.undefined == "undefined because every answer is the same"
    assert only.concordance.undefined


def test_labelers_against_leads_week_by_week(project):
    """The lead says the first twice and the second once; the labeler the first, a tie, the first:
    1, 1/2 and 0. A decision on the third agrees with the labeler."""
    lead = annotator_for(user=make_member(project, "reviewer"), project=project)
    labeler = make_annotator(project)
    rounds = (
        (FIRST, FIRST, (2026, 3, 2)),
        (FIRST, None, (2026, 3, 3)),
        (SECOND, FIRST, (2026, 3, 10)),
    )
    for led, said, day in rounds:
        comparison = compare(project)
        vote(comparison, lead, order=led)
        own = (
            vote(comparison, labeler, order=said)
            if said
            else vote(comparison, labeler, outcome="equal")
        )
        Preference.objects.filter(pk=own.pk).update(created_at=datetime(*day, 12, tzinfo=UTC))
    look_again(comparison.pk)
    decide(
        comparison=comparison,
        by=make_member(project, "admin"),
        seen=0,
        rankings=[AxisRanking(groups=[[pk] for pk in ids_of(comparison)])],
    )
    (one,) = against_leads(project)
    assert one.pseudonym == labeler.pseudonym
    assert one.weeks == {date(2026, 3, 2): (0.75, 2), date(2026, 3, 9): (0.0, 1)}
    assert (one.answers.value, one.answers.n) == (0.5, 3)
    assert (one.decisions.value, one.decisions.n) == (1.0, 1)


def test_another_projects_leads_say_nothing_here(project):
    other = make_project()
    lead = annotator_for(user=make_member(other, "reviewer"), project=other)
    comparison = compare(other)
    vote(comparison, lead, order=FIRST)
    vote(comparison, make_annotator(other), order=FIRST)
    assert against_leads(project) == []


def test_annotators_have_their_reliability_and_their_slopes(project):
    good, lot = [make_voter(project) for _ in range(3)], make_voter(project)
    for number in range(30):
        comparison = compare(project)
        for voter in good:
            vote(comparison, voter, order=FIRST, seconds=10.0 + number)
        vote(comparison, lot, order=FIRST if number % 2 else SECOND, seconds=10.0)
    found = {one.pseudonym: one for one in annotators_of(project)}
    assert found[good[0].pseudonym].dawid_skene.right > 0.95
    assert found[good[0].pseudonym].dawid_skene.units == 30
    assert found[lot.pseudonym].dawid_skene.right == pytest.approx(0.5, abs=0.05)
    assert found[lot.pseudonym].bradley_terry.right < found[good[0].pseudonym].bradley_terry.right
    assert found[good[0].pseudonym].slowing.value == pytest.approx(1.0)  # a second per answer
    assert found[good[0].pseudonym].slowing_of_100.startswith("+100 ")
    assert found[lot.pseudonym].slowing.value == pytest.approx(0.0)
    assert found[lot.pseudonym].tiring.n == 30


def test_the_parts_come_when_asked_for(cast, enter):
    for same, language in ((True, "en"), (False, "zh")):
        two(cast.project, same, language=language, day=(2026, 3, 2))
        two(cast.project, not same, language=language, day=(2026, 3, 9))
    two(cast.project, False, language="en", day=(2026, 3, 9))  # alpha 0, then -1/4: a line
    client = enter(cast.reviewer)
    whole = client.get("/p/shop/quality/", headers=FRAGMENT).content.decode()
    assert "by=language" in whole
    part = client.get("/p/shop/quality/?by=language", headers=FRAGMENT).content.decode()
    assert "<td>zh</td>" in part
    weeks = client.get("/p/shop/quality/?by=week", headers=FRAGMENT).content.decode()
    assert "<svg" in weeks
    assert "2026-03-09" in weeks
    empty = client.get("/p/shop/quality/?by=leads", headers=FRAGMENT).content.decode()
    assert "No lead has judged" in empty
    vote(cast.project.comparisons.first(), annotator_for(user=cast.admin, project=cast.project))
    leads = client.get("/p/shop/quality/?by=leads", headers=FRAGMENT).content.decode()
    assert "voter-" in leads
