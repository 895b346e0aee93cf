"""axe-core finds nothing at all on the pages of the chat, light and dark, whatever they show."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from annotation.services import live
from annotation.services.projects import annotator_for
from tests.annotation.live_world import make_policy, open_chat, start, write
from tests.annotation.test_live import FIRST

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def addresses(cast) -> dict[str, list[str]]:
    """Pages by who opens them: a turn in every state, and what leads see."""
    make_policy(cast.project)
    open_chat(cast.project)
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    threads = {name: start(annotator) for name in ("busy", "failed", "ready", "on", "over")}
    threads["failed"].turns.update(state="failed", error="gone")
    for name in ("ready", "on", "over"):
        turn = write(threads[name].turns.get())
        if name != "ready":
            live.choose(turn=turn, answer=FIRST, key=name, end=name == "over")
    return {
        "labeler": ["chat/", *(f"chat/{one.pk}/" for one in threads.values())],
        "admin": ["conversations/", f"conversations/{threads['over'].pk}/"],
    }


def violations(page: Page) -> list[Any]:
    found = Axe().run(page).response
    assert len(found["passes"]) > 10  # it did look
    return [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_found(visitors, cast, addresses, scheme):
    for who, paths in addresses.items():
        visitor = visitors(color_scheme=scheme)
        visitor.enter(getattr(cast, who))
        for path in paths:
            visitor.visit(f"/p/shop/{path}")
            assert visitor.do(violations) == [], path
