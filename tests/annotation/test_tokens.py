"""API tokens: what they may be used for, where, and until when. The matrix asks every address with
each scope; here is how a token comes by its scopes and how it ends."""

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from annotation.errors import BadInput
from annotation.models import ApiToken, AuditEntry
from annotation.services.projects import add_member, change_role
from annotation.services.tokens import in_days, issue_token
from tests.annotation.making import make_member, make_project, make_user

pytestmark = pytest.mark.django_db
OF_ROLE = {
    "labeler": ["read", "label"],
    "reviewer": ["read", "label", "review"],
    "researcher": ["read", "export"],
    "admin": ["read", "label", "review", "export", "administer"],
}
ALL = OF_ROLE["admin"]


def caller(plaintext):
    return Client(headers={"Authorization": f"Bearer {plaintext}"})


@pytest.mark.parametrize("role", OF_ROLE)
def test_a_token_gets_what_the_role_allows_and_no_more(role):
    user = make_member(make_project("shop"), role)
    assert issue_token(user=user, name="all")[0].scopes == OF_ROLE[role]
    for scope in ALL:
        if scope in OF_ROLE[role]:
            assert issue_token(user=user, name="one", scopes=[scope])[0].scopes == [scope]
        else:
            with pytest.raises(BadInput, match=f"not {scope}"):
                issue_token(user=user, name="one", scopes=[scope])


def test_the_project_bounds_a_token_too():
    one, other = make_project("one"), make_project("other")
    user = make_member(one, "admin")
    add_member(project=other, user=user, role="labeler", by=None)
    assert issue_token(user=user, name="both")[0].scopes == ALL
    assert issue_token(user=user, name="o", project=other)[0].scopes == ["read", "label"]
    with pytest.raises(BadInput, match="allow read, label, not review"):
        issue_token(user=user, name="o", project=other, scopes=["review"])
    with pytest.raises(BadInput, match="no member of a project 'third'"):
        issue_token(user=user, name="o", project=make_project("third"))


def test_a_token_for_one_project_opens_that_one_alone():
    one, other = make_project("one"), make_project("other")
    user = make_member(one, "admin")
    add_member(project=other, user=user, role="admin", by=None)
    client = caller(issue_token(user=user, name="one", project=one)[1])
    assert client.get("/api/projects/one/members/").status_code == 200
    assert client.get("/api/projects/other/members/").status_code == 404
    assert [row["slug"] for row in client.get("/api/projects/").json()["results"]] == ["one"]
    made = client.post("/api/projects/", {"name": "New", "slug": "new"}, "application/json")
    assert made.status_code == 403


def test_a_role_that_shrinks_takes_the_token_along():
    project = make_project("shop")
    make_member(project, "admin")
    user = make_member(project, "admin")
    client = caller(issue_token(user=user, name="all")[1])
    assert client.get("/api/projects/shop/members/").status_code == 200
    change_role(membership=project.memberships.get(user=user), role="labeler", by=None)
    assert client.get("/api/projects/shop/members/").status_code == 403


def test_it_says_which_scope_is_missing():
    user = make_member(make_project("shop"), "reviewer")
    client = caller(issue_token(user=user, name="look", scopes=["read"])[1])
    refused = client.post("/api/projects/shop/claim", {}, "application/json")
    assert (refused.status_code, refused.json()) == (
        403,
        {"code": "not_allowed", "detail": "This needs a token for label; this one is for read."},
    )


def test_a_token_ends_at_its_end():
    user = make_member(make_project("shop"))
    token, plaintext = issue_token(user=user, name="short", expires_at=in_days(1))
    assert caller(plaintext).get("/api/projects/").status_code == 200
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    assert caller(plaintext).get("/api/projects/").status_code == 401
    with pytest.raises(BadInput, match="past"):
        issue_token(user=user, name="late", expires_at=timezone.now() - timedelta(days=1))


def test_the_tokens_of_a_closed_account_are_dead():
    user = make_member(make_project("shop"))
    client = caller(issue_token(user=user, name="script")[1])
    assert client.get("/api/projects/").status_code == 200
    user.is_active = False
    user.save()
    assert client.get("/api/projects/").status_code == 401


@pytest.mark.parametrize(
    ("scopes", "words"), [(["fly"], "one of read.*'fly'"), ([], "one or more scopes")]
)
def test_unknown_and_no_scopes_are_refused(scopes, words):
    with pytest.raises(BadInput, match=words):
        issue_token(user=make_member(make_project("shop")), name="x", scopes=scopes)


def test_what_was_issued_is_in_the_log():
    user = make_member(make_project("shop"), "admin")
    token, _ = issue_token(user=user, name="x", scopes=["label", "read"], expires_at=in_days(2))
    entry = AuditEntry.objects.get(action="token.issue")
    assert entry.data["scopes"] == ["read", "label"]
    assert entry.data["expires_at"] == token.expires_at.isoformat()


def test_the_page_offers_what_the_roles_allow(cast, enter):
    client = enter(cast.researcher)
    html = client.get("/tokens/").content.decode()
    assert 'value="export"' in html
    assert 'value="administer"' not in html
    wanted = {"name": "x", "scopes": ["export"], "project": cast.project.pk, "days": "90"}
    html = client.post("/tokens/", wanted).content.decode()
    assert 'class="secret"' in html
    token = ApiToken.objects.get()
    assert (token.scopes, token.project) == (["export"], cast.project)
    assert 89 <= (token.expires_at - timezone.now()).days <= 90
    assert cast.project.name in client.get("/tokens/").content.decode()


@pytest.mark.parametrize("wrong", [{"scopes": "administer"}, {"days": "7"}, {"project": "999"}])
def test_the_page_takes_nothing_that_it_did_not_offer(cast, enter, wrong):
    asked = {"name": "x", "scopes": "read"} | wrong
    response = enter(cast.labeler).post("/tokens/", asked)
    assert "errorlist" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_the_command_narrows_a_token():
    project = make_project("shop")
    user = make_user("wen")
    add_member(project=project, user=user, role="admin", by=None)
    out = io.StringIO()
    call_command(
        *("issue_token", "--user", "wen", "--name", "ci", "--scope", "read", "--scope", "export"),
        *("--project", "shop", "--days", "30"),
        stdout=out,
    )
    token = ApiToken.objects.get()
    assert (token.scopes, token.project) == (["read", "export"], project)
    assert token.expires_at is not None
    for wrong in (("--project", "nowhere"), ("--days", "0")):
        with pytest.raises(CommandError) as caught:
            call_command("issue_token", "--user", "wen", "--name", "ci", *wrong)
        assert caught.value.returncode == 2


def test_the_schema_names_the_scope_of_every_operation():
    schema = Client().get("/api/schema/", headers={"Accept": "application/json"}).json()
    operations = {
        (path, method): one["description"]
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    }
    assert all("Token scope: `" in told for told in operations.values())
    claim = operations["/api/projects/{slug}/claim", "post"]
    assert claim.endswith("Token scope: `label`.")
    archive = operations["/api/projects/{slug}/versions/{version_id}/download", "get"]
    assert archive.endswith("Token scope: `export`.")
