"""What the page says for some seconds covers neither the way to other pages nor the bar."""

from datetime import datetime

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PHONE = {"width": 390, "height": 844}
COVERED = """() => {
  const said = document.getElementById("says").getBoundingClientRect();
  const within = said.top >= 0 && said.bottom <= innerHeight && said.height > 20;
  const parts = [...document.querySelectorAll(".topbar, .bar")];
  const covered = parts.filter((part) => {
    const box = part.getBoundingClientRect();
    return box.top < said.bottom && said.top < box.bottom;
  });
  return [within, covered.map((part) => part.className)];
}"""


@pytest.mark.parametrize("where", [0, 600])
def test_on_a_phone_what_is_said_covers_neither_pages_nor_bar(visitors, cast: Cast, where):
    cast.ask("Which?", ["A lamp. " * 200, "A candle. " * 200])
    visitor: Visitor = visitors(viewport=PHONE, has_touch=True)

    def stop(page: Page) -> None:  # what is said stays
        page.clock.install(time=datetime(2026, 3, 2, 12))
        page.clock.pause_at(datetime(2026, 3, 2, 13))

    visitor.do(stop)
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    visitor.do(lambda page: page.evaluate(f"scrollTo(0, {where})"))
    visitor.keys("1")
    visitor.wait_for("#says:not(:empty)")
    assert visitor.do(lambda page: page.evaluate(COVERED)) == [True, []]
