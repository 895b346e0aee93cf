"""The next comparison stands on the page before the answer to the last one has arrived."""

import time

import pytest
from django.utils import timezone
from playwright.sync_api import Page, Route

from annotation.models import Assignment, Preference
from annotation.services import queue
from annotation.services.projects import annotator_for
from tests.browser.conftest import TIMEOUT_MS, Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PAIR = ["Yes.", "No."]
FIRST, SECOND, THIRD = (f".turn:has-text('{word}?')" for word in ("First", "Second", "Third"))
CHOSEN = "input[value='1']:checked"


class Wire:
    """Answers that leave the page wait here until they are let go or cut."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor, self.held = visitor, list[Route]()
        self.hold("submit")

    def hold(self, act: str) -> None:
        self.visitor.do(
            lambda page: page.route(f"**/{act}/", lambda answer: self.held.append(answer))
        )

    def take(self) -> Route:
        """The oldest answer that was sent; waits for one."""

        def pump(page: Page) -> Route:
            deadline = time.monotonic() + TIMEOUT_MS / 1000
            while not self.held:
                assert time.monotonic() < deadline, "No answer was sent."
                page.evaluate("0")  # every call lets the page's events in
            return self.held.pop(0)

        return self.visitor.do(pump)

    def let_go(self) -> None:
        answer = self.take()
        self.visitor.do(lambda _page: answer.continue_())

    def cut(self) -> None:
        answer = self.take()
        self.visitor.do(lambda _page: answer.abort())


def fetch_next(visitor: Visitor) -> None:
    """Have the page look for the next comparison now, and wait until it is ready."""
    visitor.do(lambda page: page.evaluate("document.dispatchEvent(new Event('visibilitychange'))"))
    visitor.wait_for("#work[data-next]")


@pytest.fixture
def wire(visitor: Visitor, cast: Cast) -> Wire:
    """The first comparison is on the page, the second is ready, answers are held."""
    cast.ask("First?", PAIR)
    visitor.enter(cast.labeler)
    visitor.wait_for(FIRST)
    cast.ask("Second?", PAIR)
    fetch_next(visitor)
    return Wire(visitor)


def browsers_own_words(visitor: Visitor, about: str) -> None:
    """What the browser writes into its console about a request that was cut or refused."""
    assert all(about in one for one in visitor.problems)
    visitor.problems.clear()


def questions() -> list[str]:
    """The prompts that have been answered, in the order of their answers."""
    answered = Preference.objects.order_by("pk").select_related("comparison__prompt")
    return [one.comparison.prompt.messages[0]["content"] for one in answered]


def test_the_next_is_painted_while_the_answer_is_on_its_way(visitor, wire):
    visitor.keys("1", "Enter")
    visitor.wait_for(SECOND)
    assert questions() == []
    assert visitor.text(".today") == "0"
    wire.let_go()
    visitor.wait_for("#undo")
    visitor.wait_for("#says:has-text('Saved. Here is the next.')")
    assert questions() == ["First?"]
    assert visitor.text(".today") == "1"
    assert Assignment.objects.get(holds_slot=True).kind == "active"
    visitor.keys("2", "Enter")
    wire.let_go()
    visitor.wait_for(".empty")
    assert questions() == ["First?", "Second?"]
    assert visitor.do(lambda page: page.evaluate("localStorage.length")) == 0


def test_an_answer_given_before_the_last_arrived_waits_for_it(visitor, wire):
    visitor.keys("1", "Enter")
    visitor.wait_for(SECOND)
    visitor.keys("2", "Enter")
    wire.let_go()
    wire.let_go()
    visitor.wait_for(".empty")
    assert questions() == ["First?", "Second?"]


def test_a_refused_answer_leads_back_and_loses_nothing_on_either(visitor, wire):
    visitor.do(
        lambda page: page.evaluate("document.querySelector('[name=note]').value = 'x'.repeat(4001)")
    )
    visitor.keys("1", "Enter")
    visitor.wait_for(SECOND)
    visitor.keys("1")
    wire.let_go()
    visitor.wait_for(FIRST)
    visitor.wait_for(".message.error:has-text('A note has at most 4000 characters.')")
    assert visitor.do(lambda page: page.locator(CHOSEN).count()) == 1
    assert visitor.do(lambda page: page.input_value("[name=note]")) == "x" * 4001
    browsers_own_words(visitor, "422")
    visitor.do(lambda page: page.fill("[name=note]", "short"))
    visitor.keys("Control+Enter")
    visitor.wait_for(SECOND)
    assert visitor.do(lambda page: page.locator(CHOSEN).count()) == 1
    wire.let_go()
    visitor.keys("Enter")
    wire.let_go()
    visitor.wait_for(".empty")
    assert questions() == ["First?", "Second?"]


def test_an_answer_that_was_cut_off_leads_back_as_it_was_left(visitor, wire):
    visitor.keys("2", "n")
    visitor.do(lambda page: page.keyboard.type("a thought"))
    visitor.keys("Control+Enter")
    visitor.wait_for(SECOND)
    wire.cut()
    visitor.wait_for(FIRST)
    visitor.wait_for("#says:has-text('It is still here')")
    assert visitor.do(lambda page: page.input_value("[name=note]")) == "a thought"
    visitor.keys("Enter")
    wire.let_go()
    visitor.wait_for(SECOND)
    visitor.wait_for("#undo")
    assert Preference.objects.get().note == "a thought"
    browsers_own_words(visitor, "ERR_FAILED")


def test_what_was_painted_and_taken_by_another_meanwhile_is_replaced(visitor, cast, wire):
    visitor.keys("1", "Enter")
    visitor.wait_for(SECOND)
    Assignment.objects.filter(kind="prefetched").update(expires_at=timezone.now())
    queue.sweep_expired_leases()
    queue.claim_comparison(annotator=annotator_for(user=cast.reviewer, project=cast.project))
    cast.ask("Third?", PAIR)
    wire.let_go()
    visitor.wait_for(THIRD)
    assert questions() == ["First?"]


def test_a_skip_is_as_fast(visitor, wire):
    wire.hold("skip")
    visitor.keys("s", "1", "Enter")
    visitor.wait_for(SECOND)
    assert Assignment.objects.filter(state="skipped").count() == 0
    wire.let_go()
    visitor.wait_for("#says:has-text('Skipped. Here is the next.')")
    assert Assignment.objects.filter(state="skipped").count() == 1


def test_the_last_answer_is_only_gone_back_to_once_it_has_arrived(visitor, wire):
    visitor.keys("1", "Enter")
    visitor.wait_for(SECOND)
    visitor.keys("u")
    wire.let_go()
    visitor.wait_for("h1:has-text('Your answer')")
    visitor.wait_for(FIRST)
