"""Sessions: they end with the password, with the account, and by a button alone."""

import pytest
from django.test import Client

from annotation.models import AuditEntry
from annotation.services.tokens import issue_token
from tests.pages_cast import PASSWORD

NEW = "a new battery horse"


def signed_in(user):
    client = Client()
    client.post("/sign-in/", {"username": user.username, "password": PASSWORD})
    return client


def is_in(client):
    return client.get("/p/shop/").status_code == 200


def change(client, old=PASSWORD, new=NEW):
    return client.post(
        "/password/", {"old_password": old, "new_password1": new, "new_password2": new}
    )


def test_a_new_password_signs_every_other_browser_out(cast):
    here, there = signed_in(cast.labeler), signed_in(cast.labeler)
    assert is_in(here)
    assert is_in(there)
    assert change(here).headers["Location"] == "/"
    assert is_in(here)
    assert not is_in(there)
    cast.labeler.refresh_from_db()
    assert cast.labeler.check_password(NEW)
    entry = AuditEntry.objects.get(action="user.password")
    assert (entry.actor, entry.target) == (cast.labeler, f"user:{cast.labeler.pk}")


@pytest.mark.parametrize(("old", "new"), [("wrong", NEW), (PASSWORD, "12345")])
def test_a_wrong_old_and_a_weak_new_password_change_nothing(cast, old, new):
    here, there = signed_in(cast.labeler), signed_in(cast.labeler)
    assert "errorlist" in change(here, old, new).content.decode()
    assert is_in(there)
    assert not AuditEntry.objects.filter(action="user.password").exists()


def test_the_session_of_a_closed_account_is_over(cast):
    client = signed_in(cast.labeler)
    token = issue_token(user=cast.labeler, name="script")[1]
    caller = Client(headers={"Authorization": f"Bearer {token}"})
    assert is_in(client)
    assert caller.get("/api/projects/").status_code == 200
    cast.labeler.is_active = False
    cast.labeler.save()
    assert not is_in(client)
    assert caller.get("/api/projects/").status_code == 401
    assert not is_in(signed_in(cast.labeler))


def test_signing_in_takes_a_new_session_key(cast):
    client = signed_in(cast.labeler)
    planted = client.cookies["sessionid"].value
    client.post("/sign-out/")
    client.cookies["sessionid"] = planted
    client.post("/sign-in/", {"username": cast.labeler.username, "password": PASSWORD})
    assert client.cookies["sessionid"].value != planted


def test_only_a_post_signs_out(cast):
    client = signed_in(cast.labeler)
    assert client.get("/sign-out/").status_code == 405
    assert is_in(client)
    client.post("/sign-out/")
    assert not is_in(client)
