"""Sensitive batches: who refuses them gets none, nobody gets more in a day than the lead allows."""

from datetime import UTC, datetime, timedelta

import pytest

from annotation.errors import BadInput, NothingToDo
from annotation.models import AuditEntry, Comparison, WalkPlace
from annotation.services import lanes
from annotation.services.batches import change_batch
from annotation.services.checkrules import change_checks
from annotation.services.checks import lease_of_hidden_check
from annotation.services.leases import take
from annotation.services.practice import practice_items
from annotation.services.queue import (
    claim_comparison,
    refuse_sensitive,
    release_lease,
    skip_comparison,
    submit_preference,
)
from annotation.services.sensitive import given_today, set_cap
from tests.annotation.golden import make_experts, make_items
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOMORROW = NOON + timedelta(days=1)


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def annotator(project):
    return make_annotator(project)


def make_sensitive(project, number=1, **more):
    made = make_comparisons(project, number, batch="sensitive", **more)
    change_batch(batch=made[0].batch, changes={"sensitive": True}, by=None)
    return made


def cap(project, per_day):
    return set_cap(project=project, per_day=per_day, by=None)


def refuse(annotator, refuses=True):
    refuse_sensitive(annotator=annotator, refuses=refuses)


def answer(annotator, now=NOON):
    """The batch of the next comparison, which is answered."""
    lease = claim_comparison(annotator=annotator, now=now)
    submit_preference(assignment=lease, rankings=as_shown(lease), key=f"key {lease.pk}", now=now)
    require_invariant(lease.project)
    return lease.comparison.batch.name


def nothing(annotator, now=NOON):
    with pytest.raises(NothingToDo) as caught:
        claim_comparison(annotator=annotator, now=now)
    return caught.value.reason, caught.value.because


def test_who_refuses_gets_the_rest_and_hears_why_no_more(project, annotator):
    make_sensitive(project, 3)
    make_comparisons(project, 2)
    refuse(annotator)
    assert [answer(annotator), answer(annotator)] == ["first", "first"]
    assert nothing(annotator) == ("none_for_you", "refused")
    other = make_annotator(project)
    assert answer(other) == "sensitive"
    refuse(annotator, refuses=False)
    assert answer(annotator) == "sensitive"
    said = AuditEntry.objects.filter(action="annotator.sensitive").order_by("pk")
    assert [one.data["refuses"] for one in said] == [True, False]


def test_the_wish_is_no_reason_where_the_language_is_one(project):
    make_sensitive(project, language="zh")
    annotator = make_annotator(project, languages=["en"])
    refuse(annotator)
    assert nothing(annotator) == ("none_for_you", "")


def test_what_others_hold_of_these_is_nothing_to_wait_for(project, annotator):
    make_sensitive(project)
    claim_comparison(annotator=make_annotator(project), now=NOON)
    assert nothing(annotator) == ("all_leased", "")
    refuse(annotator)
    assert nothing(annotator) == ("none_for_you", "")


def test_refusing_gives_back_what_is_held(project, annotator):
    make_sensitive(project, 2)
    leases = [claim_comparison(annotator=annotator, kind=kind) for kind in ("active", "prefetched")]
    [plain] = make_comparisons(project)
    refuse(annotator)
    require_invariant(project)
    for lease in leases:
        lease.refresh_from_db()
        assert (lease.holds_slot, lease.state) == (False, "released")
    kept = claim_comparison(annotator=annotator)
    assert kept.comparison == plain
    refuse(annotator)
    kept.refresh_from_db()
    assert kept.holds_slot


def test_a_day_brings_as_many_as_the_lead_allows(project, annotator):
    make_sensitive(project, 5, priority=1)
    make_comparisons(project, 2)
    annotator.project = cap(project, 2)
    assert [answer(annotator) for _ in range(4)] == ["sensitive", "sensitive", "first", "first"]
    assert nothing(annotator) == ("none_for_you", "capped")
    assert nothing(annotator, NOON + timedelta(hours=11)) == ("none_for_you", "capped")
    assert [answer(annotator, TOMORROW) for _ in range(2)] == ["sensitive"] * 2
    assert nothing(annotator, TOMORROW) == ("none_for_you", "capped")
    annotator.project = cap(project, None)
    assert answer(annotator, TOMORROW) == "sensitive"
    assert given_today(annotator, TOMORROW) == 3  # counted without a cap, too


def test_what_was_skipped_counts_and_what_comes_again_counts_once_a_day(project, annotator):
    make_sensitive(project, 1)
    lease = claim_comparison(annotator=annotator, now=NOON)
    release_lease(assignment=lease)
    assert claim_comparison(annotator=annotator, now=NOON) == lease
    assert given_today(annotator, NOON) == 1
    release_lease(assignment=lease)
    assert claim_comparison(annotator=annotator, now=TOMORROW) == lease
    skip_comparison(assignment=lease, reason="Upsetting")
    assert given_today(annotator, NOON) == given_today(annotator, TOMORROW) == 1


def test_a_second_tab_does_not_get_around_the_cap(project, annotator):
    make_sensitive(project, 2)
    annotator.project = cap(project, 1)
    first, second = Comparison.objects.select_related("batch").order_by("pk")
    assert take(first, annotator, "active", NOON)
    assert take(second, annotator, "prefetched", NOON) is None
    second.refresh_from_db()
    assert second.open_slots == 1
    require_invariant(project)


def test_what_was_passed_over_is_found_once_it_is_wanted(project, annotator, monkeypatch):
    monkeypatch.setattr(lanes, "REMEMBERED", 1)
    monkeypatch.setattr(lanes, "MARGIN_SECONDS", 0.002)
    make_sensitive(project, 6)
    make_comparisons(project, 6, answers_wanted=2)
    project.comparisons.update(opened_at=1.0)
    refuse(annotator)
    for _ in range(6):
        answer(annotator)
    nothing(annotator)
    assert WalkPlace.objects.get().stage == 2
    refuse(annotator, refuses=False)
    assert answer(annotator) == "sensitive"


def test_what_was_put_off_is_not_for_whoever_refuses_now(project, annotator):
    [one] = make_sensitive(project)
    change_batch(batch=one.batch, changes={"skip_mode": "later"}, by=None)
    skip_comparison(assignment=claim_comparison(annotator=annotator), reason="Later")
    refuse(annotator)
    assert nothing(annotator)[0] == "none_for_you"
    refuse(annotator, refuses=False)
    assert claim_comparison(annotator=annotator).comparison == one


@pytest.mark.parametrize("refuses", [False, True])
def test_sensitive_gold_stands_in_for_sensitive_work_alone(project, refuses):
    experts = make_experts(project)
    [item] = make_items(experts, project, 1, batch="origins")
    make_items(experts, project, 1, use="practice", batch="origins")
    change_batch(batch=item.origin.batch, changes={"sensitive": True}, by=None)
    change_checks(project=project, changes={"gold_every": 2}, by=None)
    make_sensitive(project)
    make_comparisons(project)
    asked = {one.batch.name: one for one in project.comparisons.select_related("batch")}
    for batch, wanted in (("first", False), ("sensitive", not refuses)):
        annotator = make_annotator(project)
        annotator.refuses_sensitive = refuses
        annotator.project.refresh_from_db()
        leases = [lease_of_hidden_check(annotator, asked[batch], "active", NOON) for _ in range(3)]
        assert any(leases) is wanted, batch
        assert bool(practice_items(annotator)) is not refuses


@pytest.mark.parametrize("per_day", [0, -1, 10_001, 2.5, True, "3"])
def test_a_cap_is_a_number_or_none(project, per_day):
    with pytest.raises(BadInput, match=f"1 to 10000 sensitive comparisons.*: {per_day!r}"):
        cap(project, per_day)


def test_the_api_says_and_takes_the_wish_and_the_cap(cast, enter):
    lea, ann = enter(cast.labeler), enter(cast.admin)
    url = "/api/projects/shop/sensitive"
    how = {"content_type": "application/json"}
    assert lea.get(url).json() == {"refuses": False, "per_day": None, "given_today": 0}
    assert ann.post(f"{url}/cap", {"per_day": 1}, **how).json() == {"per_day": 1}
    make_sensitive(cast.project, 2)
    assert lea.post("/api/projects/shop/claim", {}, **how).status_code == 200
    assert lea.get(url).json() == {"refuses": False, "per_day": 1, "given_today": 1}
    capped = lea.post("/api/projects/shop/claim", {"kind": "prefetched"}, **how)
    assert (capped.status_code, capped.json()["because"]) == (404, "capped")
    assert lea.post(url, {"refuses": True}, **how).json()["refuses"] is True
    refused = lea.post("/api/projects/shop/claim", {}, **how).json()
    assert (refused["code"], refused["because"]) == ("nothing_to_do", "refused")
    assert ann.post(f"{url}/cap", {"per_day": 0}, **how).status_code == 400


def test_the_page_offers_both_and_says_why_nothing_comes(cast, enter):
    lea, ann = enter(cast.labeler), enter(cast.admin)
    cast.ask("One?", ["Yes.", "No."])
    assert "Give me none of these" not in lea.get("/p/shop/label/").content.decode()
    change_batch(batch=cast.comparisons[0].batch, changes={"sensitive": True}, by=None)
    saved = ann.post("/p/shop/sensitive/cap/", {"per_day": "4"}, follow=True).content.decode()
    assert "The cap on sensitive comparisons is set." in saved
    assert 'name="per_day" value="4"' in saved
    assert "Today you were given" in lea.get("/p/shop/label/").content.decode()
    refused = lea.post("/p/shop/sensitive/", {"refuses": "on"}, follow=True).content.decode()
    assert "you asked for none of these" in refused
    assert "Give me these again" in refused
    again = lea.post("/p/shop/sensitive/", follow=True).content.decode()
    assert "One?" in again
    assert "Give me none of these" in again
    odd = ann.post("/p/shop/sensitive/cap/", {"per_day": "0"}, follow=True).content.decode()
    assert "greater than or equal to 1" in odd
    cast.project.refresh_from_db()
    assert cast.project.sensitive_per_day == 4
