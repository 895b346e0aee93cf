"""From every figure to a vote it is made of, and from that vote back, by clicks in a browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.figures_world import World, make_figures

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
MOST_CLICKS = 3
VOTE = re.compile(r"/p/shop/preferences/\d+/$")
LISTS = "main a[href*='/votes/?'], main td.mono a[href*='/preferences/'], .tally a, .station a"
"""Links of figures: to a list of votes, to single votes, and those of the overview."""
A_VOTE = "main table a[href*='/preferences/']"
PAGES = {
    "/p/shop/": ("#live", 4),
    "/p/shop/analysis/?part=agreement": ("#agreement", 2),
    "/p/shop/analysis/?part=position": ("#position", 4),
    "/p/shop/analysis/?part=length": ("#length", 6),
    "/p/shop/analysis/?part=languages": ("#languages", 2),
    "/p/shop/analysis/?part=scores": ("#scores", 10),
    "/p/shop/analysis/disagreements/": ("main table", 1),
    "/p/shop/analysis/contributions/": ("#annotator", 3),
    "/p/shop/quality/": ("#figures a[href*='of=annotator']", 10),
    "/p/shop/head-to-head/": ("main table", 3),
}
"""Page -> what is there once its figures are, and how many of these lead on at least."""
BACK = {
    "Shop": ["Overview"],
    "Quality": ["Review", "Quality"],
    "Analysis": ["Data", "Analysis"],
    "Contributions": ["Data", "Analysis", "Contributions"],
    "Model against people": ["Data", "Analysis", "Model against people"],
    "Head to head": ["Training", "Head to head"],
    "reward-1": ["Training", "Versions", "reward-1"],
}
"""Heading of a page -> the menus and links that lead there from a vote."""


def follow(page: Page, link: str, nth: int) -> int:
    """Clicks from a figure to a vote, in a tab of its own."""
    with page.context.expect_page() as opened:
        page.locator(link).nth(nth).click(modifiers=["ControlOrMeta"])
    tab, clicks = opened.value, 1
    tab.wait_for_load_state()
    while not VOTE.search(tab.url):
        assert clicks < MOST_CLICKS, tab.url
        by_version = "main a[href*='/votes/?of=']"  # the overview's figure names a version
        tab.locator(by_version if "/versions/" in tab.url else A_VOTE).first.click()
        tab.wait_for_load_state()
        clicks += 1
    expect(tab.locator("main h1")).to_be_visible()
    tab.close()
    return clicks


def walk(page: Page) -> tuple[int, int]:
    """(figures that lead on, most clicks) of the page that is open; each address once."""
    addresses = page.eval_on_selector_all(LISTS, "links => links.map(link => link.href)")
    first = [place for place, one in enumerate(addresses) if one not in addresses[:place]]
    return len(addresses), max(follow(page, LISTS, place) for place in first)


@pytest.fixture
def world(cast) -> World:
    return make_figures(cast)


def test_every_figure_leads_to_a_vote_in_three_clicks_and_back(visitor, cast, world):
    visitor.enter(cast.admin)
    for path, (there, at_least) in PAGES.items():
        visitor.visit(path)
        visitor.wait_for(there)
        number, clicks = visitor.do(walk)
        assert number >= at_least, path
        assert clicks <= MOST_CLICKS, path

    # the parts of Quality are asked for by buttons, in the page
    for part in ("By language", "By week", "By scheme version", "By skill"):
        visitor.visit("/p/shop/quality/")
        visitor.wait_for("#figures")

        def part_of(page: Page, part: str = part) -> tuple[int, int]:
            page.get_by_role("link", name=part).click()
            page.wait_for_selector("#part table")
            links = page.locator("#part a[href*='/votes/?']")
            return links.count(), 1 + follow(page, "#part a[href*='/votes/?']", 0)

        number, clicks = visitor.do(part_of)
        assert number >= 2, part
        assert clicks <= MOST_CLICKS, part

    # a gate, and from its vote back to every page of figures
    visitor.visit(f"/p/shop/versions/{world.reward.pk}/")
    assert visitor.do(walk) == (1, 2)
    vote = f"/p/shop/preferences/{cast.project.preferences.latest('pk').pk}/"
    for heading, links in BACK.items():
        assert len(links) <= MOST_CLICKS
        visitor.visit(vote)
        visitor.go(*links)
        visitor.wait_for(f"main h1:has-text('{heading}')")
