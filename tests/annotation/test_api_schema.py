"""The OpenAPI description is complete, and its page works under the site's policy."""

import re
from dataclasses import fields

from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client

from annotation.api.urls import urlpatterns
from annotation.services.checkrules import CheckRules


def test_the_schema_is_made_without_a_warning(tmp_path):
    path = tmp_path / "schema.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(path))
    text = path.read_text()
    for pattern in urlpatterns:
        route = re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        assert f"/api/{route}:" in text or route in ("schema/", "docs/")


def test_the_schema_is_served():
    response = Client().get("/api/schema/", headers={"Accept": "application/json"})
    assert response.status_code == 200
    assert "bearer" in response.content.decode()


def test_the_check_rules_are_described_whole():
    response = Client().get("/api/schema/", headers={"Accept": "application/json"})
    schemas = response.json()["components"]["schemas"]
    rules = {one.name for one in fields(CheckRules)}
    for name in ("CheckRulesOut", "PatchedCheckRulesIn"):
        assert set(schemas[name]["properties"]) == rules


def test_the_page_brings_no_inline_script_and_nothing_from_elsewhere():
    response = Client().get("/api/docs/")
    page = response.content.decode()
    assert response.status_code == 200
    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "<style" not in page
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith(("/static/", "/api/docs/?script=")), address
        if address.startswith("/static/"):
            assert finders.find(address.removeprefix("/static/")), address
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    script = Client().get("/api/docs/?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle" in script.content.decode()
