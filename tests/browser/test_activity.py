"""Time at work, measured by the page under a clock that the test moves."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page

from annotation.models import Assignment, Preference, WorkDay
from tests.browser.conftest import Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def desk(visitor: Visitor, cast: Cast) -> Visitor:
    """A comparison is on a page whose clock stands; the server's lease is an hour old."""
    cast.ask("First?", ["Yes.", "No."])

    def stop(page: Page) -> None:
        page.clock.install(time=datetime(2026, 3, 2, 12))
        page.clock.pause_at(datetime(2026, 3, 2, 13))

    visitor.do(stop)
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    Assignment.objects.update(leased_at=timezone.now() - timedelta(hours=1))
    return visitor


def wait(visitor: Visitor, seconds: int) -> None:
    """Let the page's clock run."""
    visitor.do(lambda page: page.clock.run_for(seconds * 1000))


def hide(visitor: Visitor, hidden: bool) -> None:
    """The window goes behind another, or comes back; both report, an hour ago by the clock."""

    def turn(page: Page) -> None:
        with page.expect_response("**/renew/"):
            page.evaluate(
                f"""Object.defineProperty(document, "hidden", {{value: {str(hidden).lower()},
                  configurable: true}});
                document.dispatchEvent(new Event("visibilitychange"))"""
            )

    visitor.do(turn)
    WorkDay.objects.update(reported_at=timezone.now() - timedelta(hours=1))


def answered(visitor: Visitor) -> float | None:
    visitor.keys("1", "Enter")
    visitor.wait_for(".empty")
    return Preference.objects.get().active_seconds


def test_time_after_a_sign_counts_for_a_minute_and_the_rest_is_idle(desk):
    desk.keys("Shift")
    wait(desk, 30)
    desk.keys("Shift")
    wait(desk, 250)  # 60 of these
    desk.keys("Shift")
    wait(desk, 10)
    assert answered(desk) == 100


def test_time_behind_another_window_does_not_count(desk):
    desk.keys("Shift")
    wait(desk, 10)
    hide(desk, True)
    wait(desk, 40)
    hide(desk, False)
    wait(desk, 5)
    assert answered(desk) == 15


def test_the_pointer_is_a_sign_too(desk):
    wait(desk, 50)
    desk.do(lambda page: page.mouse.move(100, 100))
    wait(desk, 50)
    assert answered(desk) == 100


def test_the_heartbeat_reports_it_and_a_reload_goes_on_from_there(desk):
    desk.keys("Shift")

    def until_reported(page: Page) -> None:
        with page.expect_response("**/renew/"):
            page.clock.run_for(300_000)

    desk.do(until_reported)
    assert WorkDay.objects.get().active_seconds == 60
    desk.do(lambda page: page.reload())
    desk.wait_for("form.answer")
    WorkDay.objects.update(reported_at=timezone.now() - timedelta(minutes=5))
    wait(desk, 20)
    assert answered(desk) == 80
    assert WorkDay.objects.get().active_seconds == 80
