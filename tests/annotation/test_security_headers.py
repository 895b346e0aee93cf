"""The policy that keeps model text from acting is on every answer, whatever the answer is."""

import re
from pathlib import Path

import pytest
from django.test import Client

import annotation

HOME = Path(annotation.__file__).parent
PUBLIC = ["/sign-in/", "/nowhere/", "/p/shop/", "/tokens/"]
SIGNED_IN = [
    "/",
    "/tokens/",
    "/projects/new/",
    "/p/shop/",
    "/p/shop/live/",
    "/p/shop/label/",
    "/p/shop/jobs/",
    "/p/shop/versions/",
    "/p/shop/preferences/",
    "/p/shop/export/",
    "/p/shop/members/",
    "/p/elsewhere/",
]


def require_strict(response) -> None:
    policy = response.headers["Content-Security-Policy"]
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";") if part.strip())
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert rules["form-action"] == "'self'"
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("url", PUBLIC)
def test_in_front_of_the_door(db, client, url):
    require_strict(client.get(url))


@pytest.mark.parametrize("url", SIGNED_IN)
def test_behind_the_door(cast, enter, url):
    require_strict(enter(cast.admin).get(url))


def test_pages_of_a_person_are_not_cached(cast, enter):
    assert "no-store" in enter(cast.admin).get("/p/shop/").headers["Cache-Control"]


def test_a_form_without_its_token_is_refused_in_words(cast):
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.labeler)
    response = client.post("/p/shop/label/prefetch/")
    assert response.status_code == 403
    assert "Please try again" in response.content.decode()
    require_strict(response)


def test_cookies_are_closed_to_scripts(cast, client):
    client.post("/sign-in/", {"username": cast.labeler.username, "password": "correct horse"})
    assert client.cookies["sessionid"]["httponly"]
    assert client.cookies["sessionid"]["samesite"] == "Lax"


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_nothing_inline(path):
    source = path.read_text()
    html = re.sub(r"\{%.*?%\}", "", source)
    assert not re.search(r"<style|\sstyle\s*=|<script(?![^>]*\ssrc=)|\son[a-z]+\s*=", html)
    assert not re.search(r"\|\s*safe\b|autoescape off|mark_safe", source)
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", html)
