"""Voiding all answers of one annotator in a range: what it takes, and that it can be cut off."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotation.errors import BadInput, Conflict, NothingToDo
from annotation.models import (
    Annotator,
    AuditEntry,
    Comparison,
    ModelVersion,
    Preference,
    RangeVoid,
    TrainingJob,
)
from annotation.services import voiding
from annotation.services.lineage import trained_on
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.review import revise_preference, void_preference
from annotation.services.snapshots import freeze
from annotation.services.voiding import carry_on, carry_on_all, order_range_void, preview
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_member,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def project(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    return make_project("desk")


@pytest.fixture
def reviewer():
    return make_user()


@pytest.fixture
def spammer(project):
    return make_annotator(project)


def answer_all(annotator):
    """Answer whatever there is, an answer an hour from DAY on."""
    given = []
    try:
        while True:
            lease = claim_comparison(annotator=annotator)
            given.append(
                submit_preference(assignment=lease, rankings=as_shown(lease), key=f"k{lease.pk}")
            )
    except NothingToDo:
        pass
    for hour, one in enumerate(given):
        Preference.objects.filter(pk=one.pk).update(created_at=DAY + timedelta(hours=hour))
    return given


def order(annotator, by, since=DAY, hours=24, reason="Clicked through"):
    return order_range_void(
        annotator=annotator,
        since=since,
        until=since + timedelta(hours=hours),
        reason=reason,
        by=by,
    )


def voided():
    return set(Preference.objects.exclude(voided_at=None).values_list("pk", flat=True))


def test_answers_of_the_range_become_void_and_no_others(project, spammer, reviewer):
    made = make_comparisons(project, 4, answers_wanted=2)
    other = answer_all(make_annotator(project))
    given = answer_all(spammer)
    done = order(spammer, reviewer, since=DAY + timedelta(hours=1), hours=2)
    assert voided() == {given[1].pk, given[2].pk}
    assert (done.num_voided, done.num_reopened) == (2, 2)
    assert done.finished_at is not None
    require_invariant(project)
    for one in made:
        one.refresh_from_db()
    assert sorted(one.open_slots for one in made) == [0, 0, 1, 1]
    assert Preference.objects.filter(counted=True).count() == len(other) + 2
    with pytest.raises(NothingToDo):
        claim_comparison(annotator=spammer)
    assert len(answer_all(make_annotator(project))) == 2


def test_each_answer_and_the_whole_are_written_down(project, spammer, reviewer):
    make_comparisons(project, 2)
    given = answer_all(spammer)
    done = order(spammer, reviewer)
    entries = AuditEntry.objects.filter(actor=reviewer).order_by("pk")
    assert [(one.action, one.target) for one in entries] == [
        ("range_void.order", f"rangevoid:{done.pk}"),
        *(("preference.void", f"preference:{one.pk}") for one in sorted(given, key=lambda p: p.pk)),
        ("range_void.done", f"rangevoid:{done.pk}"),
    ]
    assert entries.last().data == {"voided": 2, "reopened": 2}
    assert {one.void_reason for one in Preference.objects.all()} == {"Clicked through"}


def test_an_order_that_was_cut_off_goes_on_where_it_stopped(
    project, spammer, reviewer, monkeypatch
):
    make_comparisons(project, 5)
    answer_all(spammer)
    monkeypatch.setattr(voiding, "AT_ONCE", 2)
    done, calls = void_preference, []

    def then_the_power_fails(**asked):
        calls.append(asked)
        if len(calls) == 2:
            raise RuntimeError("power")
        return done(**asked)

    monkeypatch.setattr(voiding, "void_preference", then_the_power_fails)
    with pytest.raises(RuntimeError):
        order(spammer, reviewer)
    require_invariant(project)
    cut_off = RangeVoid.objects.get()
    assert (cut_off.num_voided, len(voided()), cut_off.finished_at) == (1, 1, None)
    assert carry_on_all() == 4
    assert carry_on_all() == 0
    cut_off.refresh_from_db()
    assert (cut_off.num_voided, len(voided())) == (5, 5)
    assert cut_off.finished_at is not None
    assert AuditEntry.objects.filter(action="range_void.done").count() == 1
    require_invariant(project)


def test_a_large_order_is_left_to_the_workers(project, spammer, reviewer, monkeypatch):
    monkeypatch.setattr(voiding, "AT_ONCE", 2)
    make_comparisons(project, 3)
    answer_all(spammer)
    begun = order(spammer, reviewer)
    assert (begun.num_voided, begun.finished_at) == (2, None)
    carry_on_all()
    begun.refresh_from_db()
    assert begun.num_voided == 3
    assert begun.finished_at is not None


def test_an_answer_that_somebody_else_has_just_voided_is_no_trouble(
    project, spammer, reviewer, monkeypatch
):
    make_comparisons(project, 2)
    given = answer_all(spammer)
    void_preference(preference=given[0], by=reviewer, reason="First")

    def too_late(**asked):
        raise Conflict("void already")

    assert order(spammer, reviewer).num_voided == 1
    monkeypatch.setattr(voiding, "void_preference", too_late)
    make_comparisons(project, 1)
    answer_all(spammer)
    assert order(spammer, reviewer).num_voided == 0


def test_what_was_revised_later_was_given_later(project, spammer, reviewer):
    make_comparisons(project, 1)
    [first] = answer_all(spammer)
    revised = revise_preference(
        preference=first, rankings=as_shown(first.assignment), cause="Misread"
    )
    assert order(spammer, reviewer).num_voided == 0
    now = revised.created_at
    assert order(spammer, reviewer, since=now, hours=1).num_voided == 1
    assert voided() == {revised.pk}


@pytest.mark.parametrize(("hours", "reason"), [(0, "Spam"), (-1, "Spam"), (1, " ")])
def test_an_empty_range_or_no_reason_is_refused(project, spammer, reviewer, hours, reason):
    with pytest.raises(BadInput):
        order(spammer, reviewer, hours=hours, reason=reason)
    assert not RangeVoid.objects.exists()


def trained_version(project):
    """A reward version trained on a snapshot of the project's votes as they are now."""
    snapshot = freeze(project=project, kind="comparisons", by=None)
    job = TrainingJob.objects.create(project=project, kind="reward", snapshot=snapshot)
    return ModelVersion.objects.create(
        kind="reward", stage="reward", name="reward-1", path="m", sha256="a", job=job,
        snapshot=snapshot,
    )  # fmt: skip


def test_the_preview_counts_and_names_the_versions_trained_on_them(project, spammer):
    make_comparisons(project, 3)
    answer_all(spammer)
    version = trained_version(project)
    seen = preview(spammer, DAY, DAY + timedelta(hours=2))
    assert (seen.answers, seen.reopened, seen.trained) == (2, 2, [version])
    none = preview(spammer, DAY + timedelta(days=1), DAY + timedelta(days=2))
    assert (none.answers, none.snapshots, none.trained) == (0, [], [])
    assert not voided()


def test_versions_of_any_number_of_votes_are_found(project, spammer, monkeypatch):
    monkeypatch.setattr("annotation.services.lineage.VOTES_ASKED", 2)
    make_comparisons(project, 5)
    answer_all(spammer)
    version = trained_version(project)
    votes = Preference.objects.filter(annotator=spammer)
    assert trained_on(votes) == ([version.snapshot], [version])
    assert trained_on(votes.none()) == ([], [])


def test_votes_are_read_no_further_once_every_snapshot_is_known(project, spammer, monkeypatch):
    monkeypatch.setattr("annotation.services.lineage.VOTES_ASKED", 2)
    make_comparisons(project, 9)
    project.prompts.update(split="train")
    answer_all(spammer)
    trained_version(project)
    votes = Preference.objects.filter(annotator=spammer).order_by("pk")
    numbers = []
    for most in (2, 4, 9):
        with CaptureQueriesContext(connection) as asked:
            trained_on(
                Preference.objects.filter(pk__in=list(votes[:most].values_list("pk", flat=True)))
            )
        numbers.append(len(asked))
    assert numbers[1:] == [numbers[0] + 2] * 2  # which look whether any is left


def test_the_preview_reads_the_annotators_answers_and_no_others(project, spammer):
    make_comparisons(project, 3)
    answer_all(spammer)
    trained_version(project)
    crowd = Annotator.objects.bulk_create(
        Annotator(project=project, kind="outside", pseudonym=f"a{n}", external_id=f"a{n}")
        for n in range(1000)
    )
    comparison = Comparison.objects.first()
    Preference.objects.bulk_create(
        Preference(project=project, comparison=comparison, annotator=one, scheme_id=scheme)
        for scheme in [comparison.batch.scheme_id]
        for one in crowd
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as asked:
        preview(spammer, DAY, DAY + timedelta(hours=2))
        carry_on(RangeVoid(annotator=spammer, project=project, since=DAY, until=DAY), most=1)
    plans = []
    for query in asked.captured_queries:
        sql = query["sql"]
        if 'created_at" >=' in sql and sql.startswith("SELECT"):
            explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
            with connection.cursor() as cursor:
                cursor.execute(f"{explain} {sql}")
                plans.append(str(cursor.fetchall()))
    assert len(plans) >= 4
    assert all("preference_of_day" in plan for plan in plans), plans


def test_through_the_api(project, spammer):
    make_comparisons(project, 2)
    answer_all(spammer)
    client = Client()
    client.force_login(make_member(project, "reviewer"))
    asked = {
        "annotator": spammer.pseudonym,
        "since": DAY.isoformat(),
        "until": (DAY + timedelta(days=1)).isoformat(),
    }

    def post(path, **body):
        return client.post(path, json.dumps(body), content_type="application/json")

    path = "/api/projects/desk/range-voids/"
    assert post(f"{path}preview", **asked).json() == {"answers": 2, "reopened": 2, "trained": []}
    assert post(path, **asked).status_code == 400
    done = post(path, **asked, reason="Spam")
    assert (done.status_code, done.json()["num_voided"]) == (201, 2)
    assert post(path, **{**asked, "annotator": "nobody"}, reason="Spam").status_code == 404
    assert [one["id"] for one in client.get(path).json()["results"]] == [done.json()["id"]]


def test_on_the_page_one_looks_first(cast, enter):
    cast.ask("One?", ["Yes.", "No."])
    lab = make_annotator(cast.project)
    answer_all(lab)
    client, page = enter(cast.reviewer), "/p/shop/void-range/"
    asked = {"annotator": lab.pseudonym, "since": "2026-02-01T00:00", "until": "2026-04-01T00:00"}
    html = client.get(page, asked).content.decode()
    assert "Void 1 answer? It stays in the ledger" in html
    assert not voided()
    backwards = {**asked, "until": "2026-01-01T00:00"}
    assert "A range begins before it ends" in client.get(page, backwards).content.decode()
    told = client.post(f"{page}order/", {**asked, "reason": ""}, follow=True).content.decode()
    assert "Reason: " in told
    told = client.post(f"{page}order/", {**asked, "reason": "Spam"}, follow=True).content.decode()
    assert "Voided answers: 1." in told
    assert len(voided()) == 1


def test_another_projects_annotator_is_no_choice(cast, enter, project, spammer):
    asked = {
        "annotator": spammer.pseudonym,
        "since": "2026-02-01T00:00",
        "until": "2026-04-01T00:00",
    }
    html = enter(cast.reviewer).get("/p/shop/void-range/", asked).content.decode()
    assert "Select a valid choice" in html
