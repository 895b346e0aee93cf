"""Voids and revisions: what is written, and what is refused."""

import pytest

from annotation.errors import BadInput, BadRanking, Conflict
from annotation.models import AuditEntry, Preference
from annotation.services.projects import outside_annotator
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
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


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def preference(project):
    make_comparisons(project)
    lease = claim_comparison(annotator=make_annotator(project))
    return submit_preference(assignment=lease, rankings=as_shown(lease), key="k", note="Clear.")


def imported(project):
    [comparison] = make_comparisons(project, answers_wanted=0)
    return Preference.objects.create(
        project=project,
        comparison=comparison,
        annotator=outside_annotator(project=project, external_id="worker 3"),
        scheme=comparison.batch.scheme,
        source=comparison.batch.source,
        external_id="row 1",
    )


def test_a_void_says_who_why_and_is_in_the_log(preference):
    reviewer = make_user()
    voided = void_preference(preference=preference, by=reviewer, reason=" Clicked through ")
    assert voided.voided_at is not None
    assert (voided.voided_by, voided.void_reason) == (reviewer, "Clicked through")
    assert not Preference.objects.valid().exists()
    entry = AuditEntry.objects.get(action="preference.void")
    assert (entry.target, entry.actor) == (f"preference:{preference.pk}", reviewer)
    assert entry.data == {"reason": "Clicked through", "counted": True}
    require_invariant(preference.project)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_a_void_needs_a_short_reason(preference, reason):
    with pytest.raises(BadInput, match=f"not {len(reason.strip())}"):
        void_preference(preference=preference, by=make_user(), reason=reason)


def test_a_void_answer_is_neither_voided_nor_revised_again(preference):
    stale = Preference.objects.get(pk=preference.pk)
    void_preference(preference=preference, by=make_user(), reason="Wrong")
    with pytest.raises(Conflict, match="void already"):
        void_preference(preference=stale, by=make_user(), reason="Wrong")
    with pytest.raises(Conflict, match="void already"):
        revise_preference(preference=stale, rankings=[], cause="Misread")
    require_invariant(preference.project)


def test_an_imported_answer_is_voided_without_touching_slots(project):
    answer = imported(project)
    void_preference(preference=answer, by=make_user(), reason="Spam")
    answer.comparison.refresh_from_db()
    assert answer.comparison.open_slots == 0
    require_invariant(project)


def test_an_imported_answer_is_not_revised(project):
    answer = imported(project)
    with pytest.raises(Conflict, match="was imported"):
        revise_preference(preference=answer, rankings=[], cause="Misread")


def test_a_revision_keeps_the_older_row_and_says_why(preference):
    Preference.objects.filter(pk=preference.pk).update(seconds=9.0, active_seconds=7.0)
    rankings = [AxisRanking(outcome="both_bad")]
    new = revise_preference(preference=preference, rankings=rankings, cause="Misread")
    assert (new.revision, new.cause, new.note) == (2, "Misread", "Clear.")
    assert (new.seconds, new.active_seconds) == (9.0, 7.0)
    assert new.rankings.get().outcome == "both_bad"
    preference.refresh_from_db()
    assert not preference.current
    assert preference.rankings.get().outcome == "ranked"
    entry = AuditEntry.objects.get(action="preference.revise")
    assert entry.data["replaces"] == f"preference:{preference.pk}"


def test_a_replaced_answer_stays_as_it_is(preference):
    revise_preference(
        preference=preference, rankings=[AxisRanking(outcome="both_bad")], cause="Misread"
    )
    with pytest.raises(Conflict, match="replaced by a revision"):
        void_preference(preference=preference, by=make_user(), reason="Wrong")


def test_a_revision_that_does_not_fit_changes_nothing(preference):
    with pytest.raises(BadRanking, match="completion 0 was not shown"):
        revise_preference(
            preference=preference, rankings=[AxisRanking(groups=[[0]])], cause="Misread"
        )
    preference.refresh_from_db()
    assert preference.current
    assert preference.counted
