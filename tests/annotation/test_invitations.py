"""Invitations by link: who gets in, how often, and what becomes of the link."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from annotation.errors import BadInput, Conflict, NotAllowed
from annotation.models import AuditEntry, Invitation, Membership, User
from annotation.services.invitations import (
    accept_invitation,
    find_invitation,
    invite,
    join_with_new_account,
    revoke_invitation,
    state_of,
)
from annotation.services.projects import add_member, change_role, remove_member
from tests.annotation.making import make_member, make_project, make_user
from tests.annotation.test_queue_concurrency import THREADS, at_once

NEW = {
    "username": "wen",
    "password1": "correct horse battery",
    "password2": "correct horse battery",
    "language": "zh-hans",
}


def link_of(cast, **more):
    invitation, secret = invite(
        **{"project": cast.project, "role": "labeler", "by": cast.admin, **more}
    )
    return invitation, f"/join/{secret}/"


def test_an_admin_makes_a_link_that_is_shown_once(cast, enter):
    client = enter(cast.admin)
    asked = {"role": "reviewer", "languages": "zh, en", "uses": 5, "days": 30, "note": "Team B"}
    html = client.post("/p/shop/invitations/", asked).content.decode()
    secret = re.search(r"http://testserver/join/([\w-]{43})/", html)[1]
    made = Invitation.objects.get()
    assert (made.role, made.languages, made.uses_allowed) == ("reviewer", ["zh", "en"], 5)
    assert find_invitation(secret) == made
    assert secret not in made.digest
    listed = client.get("/p/shop/invitations/").content.decode()
    assert "Team B" in listed
    assert secret not in listed


def test_somebody_new_makes_an_account_and_is_a_member(cast, client):
    invitation, link = link_of(cast, languages=["zh"], skills=["law"])
    page = client.get(link)
    assert page.status_code == 200
    assert cast.project.name in page.content.decode()
    response = client.post(link, NEW)
    assert response.headers["Location"] == "/p/shop/label/"
    user = User.objects.get(username="wen")
    assert user.check_password(NEW["password1"])
    membership = Membership.objects.get(user=user)
    assert (membership.role, membership.languages, membership.skills) == (
        "labeler",
        ["zh"],
        ["law"],
    )
    assert client.get("/p/shop/label/").status_code == 200
    assert client.cookies["django_language"].value == "zh-hans"
    invitation.refresh_from_db()
    assert invitation.uses == 1
    acts = AuditEntry.objects.values_list("action", flat=True)
    assert {"user.create", "member.add", "invitation.accept"} <= set(acts)


def test_somebody_with_an_account_signs_in_and_joins(cast, enter):
    _, link = link_of(cast, role="reviewer")
    html = Client().get(link).content.decode()
    assert f'href="/sign-in/?next={link}"' in html
    client = enter(cast.stranger)
    assert "sam-shop" in client.get(link).content.decode()
    assert client.post(link).headers["Location"] == "/p/shop/"
    assert Membership.objects.get(user=cast.stranger).role == "reviewer"


def test_a_member_is_told_so_and_nothing_changes(cast, enter):
    invitation, link = link_of(cast, role="admin")
    for method in ("get", "post"):
        client = enter(cast.labeler)
        assert getattr(client, method)(link).headers["Location"] == "/p/shop/"
        assert "a member of this project already" in client.get("/p/shop/").content.decode()
    invitation.refresh_from_db()
    assert invitation.uses == 0
    assert Membership.objects.get(user=cast.labeler).role == "labeler"


def removed(cast, user):
    remove_member(membership=Membership.objects.get(user=user, project=cast.project), by=cast.admin)


def test_whom_an_admin_removed_does_not_come_back_by_the_old_link(cast, enter):
    invitation, link = link_of(cast, uses=9)
    client = enter(cast.stranger)
    assert client.post(link).status_code == 302
    removed(cast, cast.stranger)
    for response in (client.get(link), client.post(link)):
        assert response.status_code == 403
        assert "You were removed from this project" in response.content.decode()
    with pytest.raises(NotAllowed, match="new one"):
        accept_invitation(invitation=invitation, user=cast.stranger)
    invitation.refresh_from_db()
    assert invitation.uses == 1
    assert not Membership.objects.filter(user=cast.stranger).exists()


def test_whom_an_admin_removed_comes_back_when_invited_anew(cast, enter):
    removed(cast, cast.labeler)
    _, link = link_of(cast)
    assert enter(cast.labeler).post(link).status_code == 302
    assert Membership.objects.filter(user=cast.labeler, project=cast.project).exists()


def test_a_removal_elsewhere_or_of_somebody_else_closes_no_door(cast, enter):
    _, link = link_of(cast)
    other = make_project("other")
    gone = add_member(project=other, user=cast.stranger, role="labeler", by=None)
    remove_member(membership=gone, by=None)
    removed(cast, cast.labeler)
    assert enter(cast.stranger).post(link).status_code == 302


def test_looking_uses_nothing_up(cast, client):
    invitation, link = link_of(cast)
    for method in ("get", "head", "get"):
        assert getattr(client, method)(link).status_code == 200
    invitation.refresh_from_db()
    assert invitation.uses == 0
    assert client.put(link).status_code == 405


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uses": 1}, "used up"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expired"),
        ({"revoked_at": timezone.now()}, "revoked"),
    ],
)
def test_a_closed_link_says_why_and_makes_no_account(cast, client, change, words):
    invitation, link = link_of(cast)
    Invitation.objects.filter(pk=invitation.pk).update(**change)
    for response in (client.get(link), client.post(link, NEW)):
        assert response.status_code == 410
        assert f"This invitation is {words}" in response.content.decode()
        assert cast.project.name not in response.content.decode()
    assert not User.objects.filter(username="wen").exists()


def test_an_unknown_link_is_not_there(db, client):
    assert client.get("/join/nothing/").status_code == 404
    assert client.post("/join/nothing/", NEW).status_code == 404


def test_a_weak_password_and_a_taken_name_are_refused_with_what_was_typed(cast, client):
    _, link = link_of(cast)
    weak = client.post(link, NEW | {"password1": "12345", "password2": "12345"})
    assert weak.status_code == 422
    assert "errorlist" in weak.content.decode()
    assert 'value="wen"' in weak.content.decode()
    assert client.post(link, NEW | {"username": cast.labeler.username}).status_code == 422
    assert Invitation.objects.get().uses == 0
    assert not User.objects.filter(username="wen").exists()


def test_the_link_of_an_admin_who_is_none_any_more_is_dead(cast, client):
    invitation, link = link_of(cast)
    other = make_member(cast.project, "admin")
    change_role(membership=cast.project.memberships.get(user=cast.admin), role="labeler", by=other)
    assert state_of(Invitation.objects.get(pk=invitation.pk)) == "revoked"
    assert client.get(link).status_code == 410
    with pytest.raises(Conflict, match="revoked"):
        accept_invitation(invitation=find_invitation(link.split("/")[2]), user=make_user())


def test_revoking_closes_it_and_keeps_who_came(cast, enter, client):
    invitation, link = link_of(cast, uses=9)
    client.post(link, NEW)
    enter(cast.admin).post(f"/p/shop/invitations/{invitation.pk}/revoke/")
    assert Client().get(link).status_code == 410
    assert Membership.objects.filter(user__username="wen").exists()
    revoke_invitation(invitation=invitation, by=cast.admin)
    assert AuditEntry.objects.filter(action="invitation.revoke").count() == 1


def test_the_secret_leaves_by_no_referer(cast, client):
    _, link = link_of(cast)
    response = client.get(link)
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert "no-store" in response.headers["Cache-Control"]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', response.content.decode())


@pytest.mark.parametrize(
    "wrong", [{"uses": 0}, {"uses": 1001}, {"days": 0}, {"days": 91}, {"role": "king"}]
)
def test_what_makes_no_sense_is_refused_with_the_value(db, wrong):
    with pytest.raises(BadInput, match=str(next(iter(wrong.values())))):
        invite(**{"project": make_project(), "role": "labeler", "by": None, **wrong})


def test_the_api_makes_lists_and_revokes(cast, enter):
    client = enter(cast.admin)
    url = "/api/projects/shop/invitations/"
    made = client.post(url, {"role": "labeler", "uses": 2}, "application/json")
    assert made.status_code == 201
    assert made.json()["link"].startswith("http://testserver/join/")
    (row,) = client.get(url).json()["results"]
    assert (row["state"], row["uses"], row["uses_allowed"]) == ("open", 0, 2)
    assert "link" not in row
    revoked = client.post(f"{url}{row['id']}/revoke", {}, "application/json")
    assert revoked.json()["state"] == "revoked"
    add_member(project=make_project("other"), user=cast.admin, role="admin", by=None)
    elsewhere = f"/api/projects/other/invitations/{row['id']}/revoke"
    assert client.post(elsewhere, {}, "application/json").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_come_at_once_exactly_three_get_in():
    project = make_project()
    invitation, secret = invite(project=project, role="labeler", by=None, uses=3)
    people = [make_user() for _ in range(THREADS)]

    def join(number):
        try:
            accept_invitation(invitation=find_invitation(secret), user=people[number])
        except Conflict:
            return False
        return True

    assert sorted(at_once(join)) == [False] * 5 + [True] * 3
    invitation.refresh_from_db()
    assert invitation.uses == 3
    assert project.memberships.count() == 3


def test_a_name_taken_since_the_form_was_checked_is_the_forms_sentence(cast, client, monkeypatch):
    _, link = link_of(cast)

    def overtaken(**asked):
        User.objects.create_user(username=NEW["username"])
        return join_with_new_account(**asked)

    monkeypatch.setattr("annotation.pages.invitations.join_with_new_account", overtaken)
    response = client.post(link, NEW)
    assert response.status_code == 422
    assert "already exists" in response.content.decode()
    assert 'value="wen"' in response.content.decode()
    assert Invitation.objects.get().uses == 0


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_want_one_name_at_once_one_has_it():
    project = make_project()
    invitation, secret = invite(project=project, role="labeler", by=None, uses=9)

    def join(_number):
        try:
            join_with_new_account(invitation=find_invitation(secret), user=User(username="wen"))
        except BadInput:
            return False
        return True

    assert sum(at_once(join)) == 1
    invitation.refresh_from_db()
    assert (invitation.uses, project.memberships.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_one_person_in_eight_tabs_uses_it_once():
    project = make_project()
    invitation, secret = invite(project=project, role="labeler", by=None, uses=9)
    user = make_user()

    def join(_number):
        try:
            accept_invitation(invitation=find_invitation(secret), user=user)
        except Conflict:
            return False
        return True

    assert sum(at_once(join)) == 1
    invitation.refresh_from_db()
    assert invitation.uses == 1
