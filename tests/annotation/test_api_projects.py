"""Projects and members over the API."""

import json

import pytest
from django.test import Client

from annotation.models import AuditEntry, Membership, Project
from annotation.services import projects
from tests.annotation.making import make_member, make_project, make_user

pytestmark = pytest.mark.django_db


def signed_in(user):
    client = Client()
    client.force_login(user)
    return client


def send(client, method, path, body=None):
    return getattr(client, method)(
        f"/api/{path}", json.dumps(body or {}), content_type="application/json"
    )


@pytest.fixture
def project():
    return make_project("helpdesk")


@pytest.fixture
def admin(project):
    return signed_in(make_member(project, "admin"))


def test_a_user_sees_their_own_projects_alone(project, admin):
    make_project("elsewhere")
    listed = admin.get("/api/projects/").json()["results"]
    assert [one["slug"] for one in listed] == ["helpdesk"]
    assert admin.get("/api/projects/helpdesk/").json()["name"] == "Helpdesk"
    assert admin.get("/api/projects/elsewhere/").status_code == 404


def test_an_admin_makes_a_project_and_is_its_admin(admin):
    made = send(admin, "post", "projects/", {"name": "Poems", "slug": "poems"})
    assert made.status_code == 201
    project = Project.objects.get(slug="poems")
    assert (project.schemes.count(), project.guidelines.count()) == (1, 1)
    assert project.memberships.get().role == "admin"
    assert project.retrain_rule.enabled
    actions = AuditEntry.objects.filter(project=project).values_list("action", flat=True)
    assert {"project.create", "member.add"} <= set(actions)


def test_who_is_no_admin_anywhere_makes_no_project(project):
    labeler = signed_in(make_member(project))
    refused = send(labeler, "post", "projects/", {"name": "Poems", "slug": "poems"})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert not Project.objects.filter(slug="poems").exists()


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("helpdesk", "There is a project 'helpdesk' already."),
        ("a b", "'a b'"),
        ("../up", "'../up'"),
    ],
)
def test_a_bad_or_taken_short_name_is_refused(admin, slug, words):
    refused = send(admin, "post", "projects/", {"name": "New", "slug": slug})
    assert refused.status_code == 400
    assert words in refused.json()["detail"]


def test_an_admin_adds_changes_and_removes_a_member(project, admin):
    user = make_user("wen")
    path = "projects/helpdesk/members/"
    added = send(
        admin, "post", path, {"username": "wen", "role": "labeler", "languages": ["zh", " zh "]}
    ).json()
    assert (added["username"], added["languages"]) == ("wen", ["zh"])
    changed = send(
        admin, "patch", f"{path}{added['id']}/", {"role": "reviewer", "skills": ["law"]}
    ).json()
    assert (changed["role"], changed["skills"], changed["languages"]) == (
        "reviewer",
        ["law"],
        ["zh"],
    )
    assert send(admin, "post", path, {"username": "wen", "role": "admin"}).status_code == 409
    assert admin.delete(f"/api/{path}{added['id']}/").status_code == 204
    assert not Membership.objects.filter(user=user).exists()
    actions = list(AuditEntry.objects.filter(target=f"user:{user.pk}").values_list("action"))
    assert [one for (one,) in actions] == [
        "member.add",
        "member.role",
        "member.pool",
        "member.remove",
    ]


def test_a_project_keeps_an_admin(project, admin):
    membership = project.memberships.get()
    path = f"projects/helpdesk/members/{membership.pk}/"
    assert send(admin, "patch", path, {"role": "labeler"}).status_code == 409
    assert admin.delete(f"/api/{path}").status_code == 409
    assert project.memberships.get().role == "admin"


def test_a_change_of_a_member_that_fails_in_part_changes_nothing(project, admin, monkeypatch):
    member = Membership.objects.get(user=make_member(project))
    entries = AuditEntry.objects.count()
    monkeypatch.setattr(projects, "MAX_NAME", 2)
    path = f"projects/helpdesk/members/{member.pk}/"
    refused = send(admin, "patch", path, {"role": "reviewer", "languages": ["zh", "eng"]})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_input")
    member.refresh_from_db()
    assert (member.role, member.languages) == ("labeler", [])
    assert AuditEntry.objects.count() == entries


def test_an_unknown_user_or_role_is_refused_with_the_value(project, admin):
    path = "projects/helpdesk/members/"
    refused = send(admin, "post", path, {"username": "nobody", "role": "labeler"})
    assert refused.json() == {"code": "bad_input", "detail": "There is no user 'nobody'."}
    refused = send(admin, "post", path, {"username": "nobody", "role": "king"})
    assert 'role: "king" is not a valid choice.' in refused.json()["detail"]
