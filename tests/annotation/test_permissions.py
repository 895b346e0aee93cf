"""Who may do what in a project."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import Http404

from annotation.errors import NotAllowed
from annotation.models import Membership
from annotation.permissions import LABEL, RESEARCH, REVIEW, may_found, member, projects_of
from tests.annotation.making import make_member, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project("helpdesk")


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("labeler", {"label"}),
        ("reviewer", {"label", "review"}),
        ("admin", {"label", "review", "research"}),
        ("researcher", {"research"}),
    ],
)
def test_each_role_may_do_its_part_and_no_more(project, role, may):
    user = make_member(project, role)
    acts = {"label": LABEL, "review": REVIEW, "research": RESEARCH}
    for act, roles in acts.items():
        if act in may:
            assert member(user, "helpdesk", *roles).role == role
        else:
            with pytest.raises(NotAllowed, match=f"you are a {role}"):
                member(user, "helpdesk", *roles)


def test_a_stranger_sees_no_project_whether_it_exists_or_not(project):
    stranger = make_user()
    messages = []
    for slug in ("helpdesk", "nowhere"):
        with pytest.raises(Http404) as caught:
            member(stranger, slug, "admin")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_nobody_and_the_inactive_are_strangers(project):
    gone = make_member(project, "admin")
    gone.is_active = False
    for user in (gone, AnonymousUser(), make_user(is_superuser=True, is_active=False)):
        with pytest.raises(Http404):
            member(user, "helpdesk")


def test_a_superuser_is_an_admin_everywhere_and_a_member_nowhere(project):
    root = make_user(is_superuser=True)
    assert member(root, "helpdesk", "admin").role == "admin"
    assert not Membership.objects.filter(user=root).exists()
    with pytest.raises(Http404):
        member(root, "nowhere")


def test_users_see_their_projects_and_superusers_all(project):
    make_project("other")
    assert [one.slug for one in projects_of(make_member(project))] == ["helpdesk"]
    assert [one.slug for one in projects_of(make_user(is_superuser=True))] == ["helpdesk", "other"]


def test_projects_are_founded_by_staff_and_admins(project):
    assert may_found(make_user(is_superuser=True))
    assert may_found(make_user(is_staff=True))
    assert may_found(make_member(project, "admin"))
    assert not may_found(make_member(project, "reviewer"))
    assert not may_found(make_user())
