"""Who may open which page: every address of a project, for every role, and for strangers."""

import pytest
from django.urls import get_resolver

from annotation.models import JobKind, ModelVersion, Preference, TrainingJob
from annotation.pages.urls import in_project
from annotation.services import queue
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from tests.pages_cast import make_cast

LABEL = {"labeler", "reviewer", "admin"}
REVIEW = {"reviewer", "admin"}
RESEARCH = {"researcher", "admin"}
ADMIN = {"admin"}
WATCH = {"reviewer", "admin", "researcher"}
ALL = {"labeler", "reviewer", "admin", "researcher"}
READ = {
    "overview": ALL,
    "overview-live": ALL,
    "label": LABEL,
    "batches": REVIEW,
    "batch": REVIEW,
    "jobs": WATCH,
    "job": WATCH,
    "job-live": WATCH,
    "job-metrics": WATCH,
    "versions": WATCH,
    "quality": WATCH,
    "version": WATCH,
    "preferences": ALL,
    "preference": ALL,
    "preference-edit": LABEL,
    "export": RESEARCH,
    "members": ADMIN,
}
WRITE = {
    "rule": ADMIN,
    "auto-promote": ADMIN,
    "label-prefetch": LABEL,
    "label-submit": {"labeler"},
    "label-skip": {"labeler"},
    "label-renew": {"labeler"},
    "batch-change": ADMIN,
    "batch-pause": ADMIN,
    "comparison-retire": REVIEW,
    "comparison-reopen": REVIEW,
    "job-start": ADMIN,
    "job-cancel": ADMIN,
    "version-promote": ADMIN,
    "roll-back": ADMIN,
    "preference-void": REVIEW,
    "export-make": RESEARCH,
    "member-add": ADMIN,
    "member-change": ADMIN,
    "member-remove": ADMIN,
    "guideline": ADMIN,
    "scheme": ADMIN,
    "scheme-preview": ADMIN,
}
"""The labeler of the cast holds the lease, so for others of its role it would be 404 too."""


@pytest.fixture
def world(cast, settings, tmp_path):
    """The cast with a lease, an answer, a job and a version; the addresses' parameters."""
    settings.ARTIFACTS_DIR = tmp_path
    cast.ask("One?", ["Yes.", "No."])
    cast.ask("Two?", ["Yes.", "No."])
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    first = queue.claim_comparison(annotator=annotator)
    queue.submit_preference(assignment=first, rankings=[AxisRanking(outcome="equal")], key="k")
    lease = queue.claim_comparison(annotator=annotator)
    job = TrainingJob.objects.create(project=cast.project, kind=JobKind.REWARD)
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="reward-1", path="models/r1", sha256="0" * 64, job=job
    )
    member = cast.project.memberships.get(user=cast.researcher)
    return cast, {
        "assignment_id": lease.pk,
        "batch_id": lease.comparison.batch_id,
        "comparison_id": lease.comparison_id,
        "job_id": job.pk,
        "version_id": version.pk,
        "preference_id": Preference.objects.get().pk,
        "member_id": member.pk,
        "slot": "reward",
    }


def address(pattern, parameters) -> str:
    names = pattern.pattern.converters
    route = get_resolver().reverse(
        pattern.name, slug="shop", **{name: parameters[name] for name in names}
    )
    return f"/{route}"


def test_the_table_names_every_page_once():
    assert sorted([*READ, *WRITE]) == sorted(pattern.name for pattern in in_project)


@pytest.mark.parametrize("role", sorted(ALL))
@pytest.mark.parametrize("name", sorted(READ))
def test_reading(world, enter, role, name):
    cast, parameters = world
    (pattern,) = [one for one in in_project if one.name == name]
    response = enter(getattr(cast, role)).get(address(pattern, parameters))
    allowed = 404 if name == "preference-edit" and role != "labeler" else 200  # another's answer
    assert response.status_code == (allowed if role in READ[name] else 403)


@pytest.mark.parametrize("role", sorted(ALL))
@pytest.mark.parametrize("name", sorted(WRITE))
def test_writing(world, enter, role, name):
    cast, parameters = world
    (pattern,) = [one for one in in_project if one.name == name]
    client = enter(getattr(cast, role))
    assert client.get(address(pattern, parameters)).status_code == 405
    status = client.post(address(pattern, parameters)).status_code
    if role in WRITE[name]:
        assert status in (200, 204, 302, 422)
    elif name.startswith("label-") and role in LABEL:
        assert status == 404  # another's lease
    else:
        assert status == 403


def test_nobody_outside_sees_anything(world, enter, client):
    cast, parameters = world
    stranger = enter(cast.stranger)
    for pattern in in_project:
        url = address(pattern, parameters)
        send = stranger.get if pattern.name in READ else stranger.post
        assert send(url).status_code == 404, url
        anonymous = client.get(url) if pattern.name in READ else client.post(url)
        assert anonymous.status_code == 302, url
        assert anonymous.headers["Location"].startswith("/sign-in/"), url


def test_another_projects_rows_are_not_there(world, enter):
    """An admin of one project, at the addresses of their own project with another's ids."""
    _cast, parameters = world
    other = make_cast("other")
    client = enter(other.admin)
    for pattern in in_project:
        if not set(pattern.pattern.converters) - {"slot"}:
            continue
        url = address(pattern, parameters).replace("/p/shop/", "/p/other/")
        send = client.get if pattern.name in READ else client.post
        assert send(url).status_code == 404, url


def test_a_superuser_administers_everything(world, enter):
    cast, parameters = world
    cast.stranger.is_superuser = True
    cast.stranger.save()
    client = enter(cast.stranger)
    for name in READ.keys() - {"preference-edit"}:  # which is for whoever gave the answer
        (pattern,) = [one for one in in_project if one.name == name]
        assert client.get(address(pattern, parameters)).status_code == 200, name
