"""The policy that keeps model text from acting is on every answer, whatever the answer is."""

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from html import unescape
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


STRICT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "object-src": "'none'",
}
OTHERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def faults_of(response) -> list[str]:
    """What an answer's headers lack; the access matrix asks this of every answer it gets."""
    policy = response.headers.get("Content-Security-Policy", "")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";") if part.strip())
    found = [
        f"{name} is {rules.get(name)}" for name, rule in STRICT.items() if rules.get(name) != rule
    ]
    if "unsafe" in policy:
        found.append(policy)
    return found + [
        f"{name} is {response.headers.get(name)}"
        for name, value in OTHERS.items()
        if response.headers.get(name) != value
    ]


def require_strict(response) -> None:
    assert faults_of(response) == []


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
    assert not re.search(r"\shx-on|\sdata-hx-on|js:|javascript:", html)
    assert not re.search(r"<style|\sstyle\s*=|<script(?![^>]*\ssrc=)|\son[a-z]+\s*=", html)
    assert not re.search(r"\|\s*safe\b|autoescape off|mark_safe", source)
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", html)


def test_htmx_runs_no_code_of_attributes_and_writes_no_styles(cast, enter):
    html = enter(cast.admin).get("/p/shop/").content.decode()
    config = json.loads(unescape(re.search(r'name="htmx-config" content=\'(.*?)\'', html)[1]))
    for off in ("allowEval", "includeIndicatorStyles", "allowScriptTags"):
        assert config[off] is False
    assert config["selfRequestsOnly"] is True


@pytest.mark.parametrize(
    "path", sorted((HOME / "static").rglob("*.js")), ids=lambda path: path.name
)
def test_scripts_make_no_code_and_no_markup_of_text(path):
    assert not re.search(
        r"\beval\(|new Function|document\.write|insertAdjacentHTML|setTimeout\([\"'`]",
        path.read_text(),
    )


def test_only_the_renderer_calls_anything_safe():
    marked = [
        path.relative_to(HOME).as_posix()
        for path in sorted(HOME.rglob("*.py"))
        if "mark_safe(" in path.read_text()
    ]
    assert marked == ["markdown.py"]


def team(command: str) -> subprocess.CompletedProcess[str]:
    """manage.py in team mode, with settings as a careful operator would have them."""
    environment = {
        "PATH": os.environ["PATH"],
        "CONCORD_MODE": "team",
        "CONCORD_SECRET_KEY": secrets.token_urlsafe(64),
        "CONCORD_HOSTS": "concord.example",
        "DATABASE_URL": "postgresql://concord@db.example/concord",
        "REDIS_URL": "redis://redis.example:6379/0",
    }
    words = [sys.executable, "manage.py", *shlex.split(command)]
    root = HOME.parent
    return subprocess.run(words, env=environment, cwd=root, capture_output=True, text=True)


def test_django_has_nothing_to_warn_of_in_production():
    checked = team("check --deploy --fail-level WARNING")
    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout


def test_in_production_cookies_are_for_https_alone():
    told = team(
        "shell --no-imports -c 'import json; from django.conf import settings as s; print("
        "json.dumps([s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY, "
        "s.SESSION_COOKIE_SAMESITE, s.CSRF_COOKIE_SAMESITE, s.SECURE_SSL_REDIRECT, s.DEBUG]))'"
    )
    assert json.loads(told.stdout) == [True, True, True, "Lax", "Lax", True, False], told.stderr
