"""Signing in, my projects, the interface language, API tokens."""

import pytest
from django.test import Client

from annotation.management.commands.compile_translations import compile_file
from annotation.models import ApiToken, Assignment
from annotation.services.projects import add_member, create_project
from annotation.services.tokens import token_digest
from tests.annotation.making import make_comparisons
from tests.annotation.test_translations import PO
from tests.pages_cast import PASSWORD


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_file(PO)


def test_signing_in_leads_to_the_page_that_was_asked_for(cast, client):
    first = client.get("/p/shop/preferences/")
    assert first.headers["Location"] == "/sign-in/?next=/p/shop/preferences/"
    credentials = {"username": cast.reviewer.username, "password": PASSWORD}
    response = client.post("/sign-in/", credentials | {"next": "/p/shop/preferences/"})
    assert response.headers["Location"] == "/p/shop/preferences/"


def test_a_wrong_password_is_told_and_opens_nothing(cast, client):
    response = client.post("/sign-in/", {"username": cast.labeler.username, "password": "no"})
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert "_auth_user_id" not in client.session


def test_sign_in_never_leads_to_another_site(cast, client):
    credentials = {"username": cast.reviewer.username, "password": PASSWORD}
    response = client.post("/sign-in/", credentials | {"next": "https://evil.example/"})
    assert response.headers["Location"] == "/"


def test_a_part_of_a_page_sends_the_whole_page_to_the_door(cast, client):
    shown = {"HX-Request": "true", "HX-Current-URL": "http://testserver/p/shop/?a=1"}
    response = client.get("/p/shop/live/", headers=shown)
    assert response.status_code == 204
    assert response.headers["HX-Redirect"] == "/sign-in/?next=/p/shop/%3Fa%3D1"


def test_signing_out_is_a_post(cast, enter):
    client = enter(cast.labeler)
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"


def test_a_labeler_of_one_project_goes_straight_to_work(cast, enter):
    assert enter(cast.labeler).get("/").headers["Location"] == "/p/shop/label/"


def test_others_see_their_projects(cast, enter):
    create_project(name="Secret", slug="secret", by=None)
    html = enter(cast.researcher).get("/").content.decode()
    assert "Shop assistant" in html
    assert "Secret" not in html
    assert "You are in no project yet" in enter(cast.stranger).get("/").content.decode()


def test_a_labeler_of_two_projects_chooses(cast, enter):
    second = create_project(name="Second", slug="second", by=None)
    add_member(project=second, user=cast.labeler, role="labeler", by=None)
    assert "Second" in enter(cast.labeler).get("/").content.decode()


def test_only_what_is_handed_out_in_turn_waits_for_an_answer(cast, enter):
    """A place that came free on gold or in a chat waits for nobody, and tells nothing of gold."""
    make_comparisons(cast.project, 1)
    make_comparisons(cast.project, 2, purpose="gold", batch="gold")
    make_comparisons(cast.project, 3, purpose="live", batch="live")
    assert "1 comparison waits for an answer" in enter(cast.admin).get("/").content.decode()


def test_the_list_of_projects_has_a_query_budget(cast, enter, django_assert_max_num_queries):
    for number in range(8):
        create_project(name=f"P{number}", slug=f"p{number}", by=cast.admin)
    client = enter(cast.admin)
    with django_assert_max_num_queries(6):
        client.get("/")


def test_the_language_is_kept_for_the_person_and_the_browser(cast, enter):
    client = enter(cast.researcher)
    response = client.post("/language/", {"language": "zh-hans", "next": "/tokens/"})
    assert response.headers["Location"] == "/tokens/"
    html = client.get("/tokens/").content.decode()
    assert 'lang="zh-Hans"' in html
    assert "API 令牌" in html
    cast.researcher.refresh_from_db()
    assert cast.researcher.language == "zh-hans"
    elsewhere = Client()
    credentials = {"username": cast.researcher.username, "password": PASSWORD}
    elsewhere.post("/sign-in/", credentials)
    assert "API 令牌" in elsewhere.get("/tokens/").content.decode()


def test_the_browsers_language_counts_until_one_is_chosen(db, client):
    html = client.get("/sign-in/", headers={"Accept-Language": "zh-CN,zh;q=0.9"}).content.decode()
    assert "登录" in html


def test_after_a_refused_answer_the_language_leads_to_the_page_it_was_given_on(cast, enter):
    cast.ask("Which?", ["This.", "That."])
    client = enter(cast.labeler)
    client.get("/p/shop/label/")
    lease = Assignment.objects.get()
    url, here = f"/p/shop/label/{lease.pk}/submit/", "http://testserver/p/shop/label/"
    html = client.post(url, {"key": "k"}, headers={"Referer": here}).content.decode()
    assert f'name="next" value="{here}"' in html
    assert client.post("/language/", {"language": "en", "next": here}).headers["Location"] == here


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "javascript:x", ""])
def test_the_language_switch_never_leads_away(db, client, back):
    response = client.post("/language/", {"language": "zh-hans", "next": back})
    assert response.headers["Location"] == "/"


def test_an_unknown_language_changes_nothing(cast, enter):
    client = enter(cast.researcher)
    client.post("/language/", {"language": "xx"})
    cast.researcher.refresh_from_db()
    assert cast.researcher.language == ""
    assert "django_language" not in client.cookies


def test_a_token_is_shown_once_and_kept_as_a_hash(cast, enter):
    client = enter(cast.labeler)
    html = client.post("/tokens/", {"name": "laptop", "scopes": ["read"]}).content.decode()
    token = ApiToken.objects.get()
    secret = html.split('class="secret">')[1].split("<")[0]
    assert token.digest == token_digest(secret)
    assert secret not in client.get("/tokens/").content.decode()


def test_a_token_needs_a_name(cast, enter):
    response = enter(cast.labeler).post("/tokens/", {"name": " ", "scopes": ["read"]})
    assert "errorlist" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_only_its_owner_revokes_a_token(cast, enter):
    enter(cast.labeler).post("/tokens/", {"name": "laptop", "scopes": ["read"]})
    token = ApiToken.objects.get()
    assert enter(cast.admin).post(f"/tokens/{token.pk}/revoke/").status_code == 404
    enter(cast.labeler).post(f"/tokens/{token.pk}/revoke/")
    token.refresh_from_db()
    assert not token.is_live
