"""axe-core finds nothing serious on any page that the URL map has."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.test import Client
from playwright.sync_api import Page

from annotation.management.commands.compile_translations import compile_file
from tests.annotation.access_table import ELSEWHERE, PAGES_OF_A_PROJECT
from tests.annotation.access_world import World, make_world
from tests.annotation.test_access_matrix import Cell, address
from tests.annotation.test_translations import PO

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
BAD = ("serious", "critical")
WINDOWS = {"desk": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def pages(world: World) -> list[tuple[str, str]]:
    """Who opens which address: every whole page that answers a GET, as an admin or a labeler."""
    routes = [
        f"p/<slug:slug>/{route}" for route, line in PAGES_OF_A_PROJECT.items() if "GET" in line
    ]
    routes += [route for route, line in ELSEWHERE.items() if "GET" in line and "api/" not in route]
    found = []
    for route in routes:
        for who in ("admin", "labeler") if "label" in route else ("admin",):
            client = Client()
            client.force_login(world.people[who])
            url = address(route, Cell("GET", who, rows=who), world)
            response = client.get(url)
            is_html = response.headers.get("Content-Type", "").startswith("text/html")
            is_page = is_html and response.status_code == 200
            if is_page and not response.streaming and b"<html" in response.content:
                found.append((who, url))
    return found


def look(page: Page, url: str, themes: dict[str, str]) -> list[str]:
    """What axe finds serious in either window, each in its theme, as lines to read."""
    page.goto(url)
    page.evaluate(AXE_SCRIPT)
    lines = []
    for window, size in WINDOWS.items():
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=themes[window])
        lines += [f"{url} ({window}, {themes[window]}) {one}" for one in violations(page)]
        if page.evaluate(SIDEWAYS) > 0:
            lines.append(f"{url} ({window}) is wider than the window")
    return lines


def violations(page: Page) -> list[str]:
    """The rule and the first elements of each violation that is serious or critical."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['target']} {node['html'][:120]}"
        for one in found["violations"]
        if one["impact"] in BAD
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize(
    ("locale", "themes"),
    [
        ("en", {"desk": "light", "phone": "dark"}),
        ("zh-CN", {"desk": "dark", "phone": "light"}),
    ],
)
def test_nothing_serious_on_any_page(visitors, settings, tmp_path, capsys, locale, themes):
    """Every pair of language, window and theme; not every three of them, which takes twice as
    long."""
    settings.ARTIFACTS_DIR = tmp_path
    compile_file(PO)
    world = make_world()
    seen = pages(world)
    assert len(seen) >= 30
    found = []
    for who in ("admin", "labeler"):
        visitor = visitors(locale=locale, reduced_motion="reduce")
        visitor.enter(world.people[who], "/tokens/")
        for reader, url in seen:
            if reader == who:
                found += visitor.do(lambda page, to=visitor.base + url: look(page, to, themes))
    with capsys.disabled():
        print(f"\naxe: {len(seen)} pages, each in 2 windows: {len(found)} findings.")
    assert found == []


def test_nothing_serious_while_one_labels(visitor, cast):
    """Marked, compared, as written, in step, with the list of keys and the skip window open."""
    cast.ask("Which?", ["A **b** c", "```py\nx = 1  # one\n```", "Three\tlong"])
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.do(lambda page: page.evaluate(AXE_SCRIPT))
    for keys, until in (
        (["1", "2", "d"], "mark"),
        (["w"], ".sign"),
        (["w", "y"], ".in-step"),
        (["?"], "#help:popover-open"),
        (["Escape", "s"], "#skip:popover-open"),
    ):
        visitor.keys(*keys)
        visitor.wait_for(until)
        for theme in ("light", "dark"):
            visitor.do(lambda page, to=theme: page.emulate_media(color_scheme=to))
            assert visitor.do(violations) == [], keys


def test_axe_would_find_what_is_wrong(visitor, cast):
    visitor.visit("/sign-in/")
    visitor.do(lambda page: page.evaluate(AXE_SCRIPT))
    assert visitor.do(violations) == []
    spoil = "document.querySelectorAll('label').forEach((label) => label.remove())"
    visitor.do(lambda page: page.evaluate(spoil))
    assert any(one.startswith("label:") for one in visitor.do(violations))
