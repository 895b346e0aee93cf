"""How long from the submit key to the paint of the next comparison, on a slow line.

    python -m pytest tests/benchmarks/paint.py -s

A real Chromium against a live server, 400 ms of latency on every request: the labeler chooses and
presses Enter twenty times. Two numbers come out, medians and the slowest: key to paint, and key to
the moment when the answer had arrived and its words stood on the page.
"""

from statistics import median

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import (  # noqa: F401  (fixtures)
    browser,
    browser_thread,
    cast,
    visitor,
    visitors,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
LATENCY_MS = 400
ANSWERS = 20
TEXT = "A paragraph with **bold** words and `code`, long enough to be worth reading. " * 12
WATCH = """window.times = [];
addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  const pressed = performance.now();
  const work = document.getElementById("work");
  const painted = new MutationObserver(() => {
    painted.disconnect();
    requestAnimationFrame(() => setTimeout(() => window.times.push(performance.now() - pressed)));
  });
  painted.observe(work, {childList: true});
}, true);"""


def test_time_to_paint(visitor, cast):  # noqa: F811
    for number in range(ANSWERS + 2):
        cast.ask(f"Question {number}?", [f"{number}. {TEXT}", f"{number}. {TEXT} And more."])
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")

    def answer_all(page: Page) -> tuple[list[float], list[float]]:
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        network.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": LATENCY_MS, "downloadThroughput": -1,
             "uploadThroughput": -1},
        )  # fmt: skip
        page.evaluate(WATCH)
        arrived = []
        for number in range(ANSWERS):
            page.wait_for_selector("#work[data-next]")
            page.keyboard.press("1")
            pressed = page.evaluate("performance.now()")
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#today:has-text('{number + 1}')")
            arrived.append(page.evaluate("performance.now()") - pressed)
        return page.evaluate("window.times"), arrived

    painted, arrived = visitor.do(answer_all)
    assert len(painted) == ANSWERS
    print(f"\nlatency {LATENCY_MS} ms, {ANSWERS} answers")
    for what, times in (("key to paint", painted), ("key to the answer's arrival", arrived)):
        print(f"{what}: median {median(times):.0f} ms, slowest {max(times):.0f} ms")
