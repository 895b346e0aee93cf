"""Every address of the API, asked for by those whom it does not concern.

The addresses come from the URL map itself: a new one is in the matrix as soon as it is routed, and
a new kind of id in a path fails here until `ids_elsewhere` knows what it means.
"""

import json
import re

import pytest
from django.test import Client

from annotation.api.urls import urlpatterns
from annotation.models import DatasetSnapshot, ModelVersion, Promotion, Role, TrainingJob, User
from annotation.services.projects import add_member
from annotation.services.queue import claim_comparison, submit_preference
from tests.annotation.making import (
    as_shown,
    make_comparisons,
    make_member,
    make_project,
    make_user,
)

pytestmark = pytest.mark.django_db

METHODS = ("get", "post", "put", "patch", "delete")
ROUTES = sorted(
    str(pattern.pattern) for pattern in urlpatterns if "<slug:slug>" in str(pattern.pattern)
)
WITH_IDS = [route for route in ROUTES if re.search(r"<\w+:(?!slug>|slot>)\w+>", route)]
"""A slot is a name that every project has, not an id."""


@pytest.fixture
def mine():
    return make_project("mine")


@pytest.fixture
def elsewhere():
    return make_project("elsewhere")


@pytest.fixture
def ids_elsewhere(elsewhere):
    """One row of every kind in the other project, none of them in `mine`."""
    [comparison] = make_comparisons(elsewhere)
    admin = make_member(elsewhere, "admin")
    annotator = elsewhere.annotators.create(user=admin, kind="person", pseudonym="p")
    lease = claim_comparison(annotator=annotator)
    preference = submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    job = TrainingJob.objects.create(project=elsewhere, kind="reward")
    snapshot = DatasetSnapshot.objects.create(
        project=elsewhere,
        kind="comparisons",
        query={},
        ledger_position={},
        sha256="a" * 64,
        path="snapshots/a.jsonl",
        rows=0,
        counts={},
    )
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="theirs", path="models/theirs", sha256="b", job=job
    )
    Promotion.objects.create(project=elsewhere, slot="reward", version=version, verdict="first")
    return {
        "assignment_id": lease.pk,
        "batch_id": comparison.batch_id,
        "comparison_id": comparison.pk,
        "preference_id": preference.pk,
        "member_id": elsewhere.memberships.get(user=admin).pk,
        "job_id": job.pk,
        "version_id": version.pk,
        "snapshot_id": snapshot.pk,
        "export_id": "a" * 12,
        "file": "manifest.json",
        "slot": "policy",
    }


def address(route, slug, ids):
    values = {"slug": slug, **ids}
    return "/api/" + re.sub(r"<\w+:(\w+)>", lambda found: str(values[found[1]]), route)


def answers(client, url):
    """What each method gets, by method; those that the address does not know left out."""
    seen = {
        method: getattr(client, method)(url, json.dumps({}), content_type="application/json")
        if method != "get"
        else client.get(url)
        for method in METHODS
    }
    return {method: got for method, got in seen.items() if got.status_code != 405}


def signed_in(user):
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("route", ROUTES)
def test_a_project_is_not_there_for_who_is_no_member(route, mine, elsewhere, ids_elsewhere):
    url = address(route, "elsewhere", ids_elsewhere)
    for user in [make_user(), *(make_member(mine, role) for role in Role.values)]:
        seen = answers(signed_in(user), url)
        assert seen
        for method, got in seen.items():
            assert (got.status_code, got.json()["code"]) == (404, "not_found"), (method, url)


@pytest.mark.parametrize("route", ROUTES)
def test_without_signing_in_every_address_is_401(route, elsewhere, ids_elsewhere):
    for got in answers(Client(), address(route, "elsewhere", ids_elsewhere)).values():
        assert (got.status_code, got.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("route", WITH_IDS)
def test_an_id_of_another_project_is_not_there_in_mine(route, mine, ids_elsewhere):
    """404 for who may use the address, 403 for who may not: never a look, never a change."""
    url = address(route, "mine", ids_elsewhere)
    for role in Role.values:
        for method, got in answers(signed_in(make_member(mine, role)), url).items():
            assert got.status_code in (403, 404), (role, method, url, got.content)
            assert got.json()["code"] in ("not_allowed", "not_found")


@pytest.mark.parametrize("route", WITH_IDS)
@pytest.mark.parametrize("role", Role.values)
def test_an_id_of_ones_own_other_project_is_not_there_in_mine(route, role, mine, ids_elsewhere):
    """Who works in both projects, and owns the rows there, asks for them by the wrong name."""
    (both,) = User.objects.filter(annotators__project__slug="elsewhere")
    add_member(project=mine, user=both, role=role, by=None)
    mine.annotators.create(user=both, kind="person", pseudonym="q")
    url = address(route, "mine", ids_elsewhere)
    for method, got in answers(signed_in(both), url).items():
        assert got.status_code in (403, 404), (method, url, got.content)
        assert got.json()["code"] in ("not_allowed", "not_found")


def test_the_matrix_covers_what_it_should():
    assert len(ROUTES) >= 12
    assert len(WITH_IDS) >= 7
