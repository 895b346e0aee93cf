"""manage.py create_user and issue_token."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from annotation.models import Membership, User
from tests.annotation.making import make_project, make_user

pytestmark = pytest.mark.django_db


def create_user(monkeypatch, *arguments, password="correct horse battery"):
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    call_command("create_user", "--password-stdin", *arguments, stdout=io.StringIO())


def test_a_user_is_made_a_member_who_can_sign_in(monkeypatch):
    project = make_project("helpdesk")
    create_user(
        monkeypatch,
        *("--username", "wen", "--project", "helpdesk", "--role", "labeler"),
        *("--language", "zh", "--language", "en"),
    )
    membership = Membership.objects.get(project=project)
    assert (membership.user.username, membership.role) == ("wen", "labeler")
    assert membership.languages == ["zh", "en"]
    assert Client().login(username="wen", password="correct horse battery")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--project", "nowhere", "--role", "admin"), "There is no project 'nowhere'."),
        (("--role", "admin"), "--project and --role come together."),
    ],
)
def test_a_bad_project_makes_no_user(monkeypatch, arguments, words):
    with pytest.raises(CommandError, match=words) as caught:
        create_user(monkeypatch, "--username", "wen", *arguments)
    assert caught.value.returncode == 2
    assert not User.objects.exists()


def test_a_taken_name_and_a_weak_password_are_refused(monkeypatch):
    make_user("wen")
    with pytest.raises(CommandError, match="'wen': A user with that username already exists"):
        create_user(monkeypatch, "--username", "wen")
    with pytest.raises(CommandError, match="too short"):
        create_user(monkeypatch, "--username", "li", password="x")
    assert User.objects.count() == 1


def test_a_token_is_printed_and_opens_the_api():
    make_user("wen")
    out = io.StringIO()
    call_command("issue_token", "--user", "wen", "--name", "script", stdout=out)
    client = Client(headers={"Authorization": f"Bearer {out.getvalue().strip()}"})
    assert client.get("/api/projects/").json()["results"] == []


def test_a_token_for_nobody_is_refused():
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("issue_token", "--user", "nobody", "--name", "script")
