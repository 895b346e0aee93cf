"""Labeling in a real browser: by keys alone, from the page to the database."""

import pytest

from annotation.models import Assignment, AssignmentState, Preference, Ranking
from annotation.services.projects import new_scheme
from tests.browser.conftest import Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
NEXT = ".turn:has-text('Second?')"
FOUR = ["First text.", "Second text.", "Third text.", "Fourth text."]


def start(visitor: Visitor, cast: Cast) -> None:
    """The labeler has work in front of them."""
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")


def arrived(visitor: Visitor) -> None:
    """The second comparison is there, and the answer to the first is kept: a page that had the
    second ready shows it before that."""
    visitor.wait_for(NEXT)
    visitor.wait_for(".today:text-is('1')")


def groups() -> list[list[int]]:
    return Ranking.objects.get().groups


def test_a_pair_is_answered_with_two_key_presses_and_the_next_is_there(visitor, cast):
    cast.ask("First?", ["Hi, how can I help?", "What."])
    visitor.sign_in(cast.labeler.username)
    visitor.wait_for("form.answer")
    cast.ask("Second?", ["Yes.", "No."])
    visitor.keys("2", "Enter")
    arrived(visitor)
    lease = Assignment.objects.get(state=AssignmentState.ANSWERED)
    first, second = lease.presented_order
    assert groups() == [[second], [first]]
    assert visitor.do(lambda page: page.locator("input:checked").count()) == 0


@pytest.mark.parametrize(
    ("key", "outcome"), [("t", "equal"), ("b", "both_bad"), ("c", "cannot_tell"), ("1", "ranked")]
)
def test_the_same_key_again_submits(visitor, cast, key, outcome):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys(key)
    assert not Preference.objects.exists()
    visitor.keys(key)
    visitor.wait_for(".empty")
    assert Ranking.objects.get().outcome == outcome


def test_enter_without_a_choice_sends_nothing_and_says_so(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("Enter")
    visitor.wait_for("#says:has-text('Choose an answer first.')")
    assert not Preference.objects.exists()


def test_four_are_ranked_with_digits_and_ties(visitor, cast):
    cast.ask("First?", FOUR)
    start(visitor, cast)
    visitor.keys("2", "1", "3", "1")
    assert visitor.text(".order") == "B = D > A > C"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    a, b, c, d = Assignment.objects.get().presented_order
    assert groups() == [[b, d], [a], [c]]


def test_arrows_letters_and_backspace_correct_a_ranking(visitor, cast):
    cast.ask("First?", FOUR)
    start(visitor, cast)
    visitor.keys("1", "2", "ArrowUp", "Backspace", "Shift+D", "4", "Shift+B", "3")
    assert visitor.text(".order") == "A > B > D"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    a, b, _c, d = Assignment.objects.get().presented_order
    assert groups() == [[a], [b], [d]]


def test_all_bad_puts_the_places_aside(visitor, cast):
    cast.ask("First?", FOUR)
    start(visitor, cast)
    visitor.keys("1", "2", "b")
    assert visitor.text(".order") == ""
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert Ranking.objects.get().outcome == "both_bad"


def test_b_pressed_by_mistake_in_a_list_costs_nothing(visitor, cast):
    cast.ask("First?", FOUR)
    start(visitor, cast)
    visitor.keys("1", "2", "b", "b")
    assert not Preference.objects.exists()
    visitor.keys("3", "4")
    assert visitor.text(".order") == "A > B > C > D"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert groups() == [[pk] for pk in Assignment.objects.get().presented_order]


def test_a_note_is_written_without_its_letters_acting(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("n")
    visitor.do(lambda page: page.keyboard.type("1 is better because"))
    visitor.keys("Escape", "2", "Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.get().note == "1 is better because"


def test_a_skip_with_its_reason_by_keys(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("s", "ArrowDown", "Enter")
    visitor.wait_for(".empty")
    lease = Assignment.objects.get()
    assert (lease.state, lease.skip_reason) == (AssignmentState.SKIPPED, "expertise")


def test_help_opens_and_closes_by_keys(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("?")
    visitor.wait_for("#help:popover-open")
    visitor.keys("1", "1", "Escape")
    assert not Preference.objects.exists()
    visitor.keys("1", "1")
    visitor.wait_for(".empty")


def test_two_axes_are_answered_one_after_the_other(visitor, cast):
    new_scheme(project=cast.project, axes=["helpful", "safe"], by=cast.admin)
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("1", "t", "Enter")
    visitor.wait_for(".empty")
    assert sorted(Ranking.objects.values_list("axis", "outcome")) == [
        ("helpful", "ranked"),
        ("safe", "equal"),
    ]


def test_an_answer_with_the_mouse(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.do(lambda page: page.click(".option-2 .prose"))
    visitor.do(lambda page: page.click("button.submit"))
    visitor.wait_for(".empty")
    first, second = Assignment.objects.get().presented_order
    assert groups() == [[second], [first]]


def test_a_repeated_submit_is_one_answer_and_shows_the_next(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    cast.ask("Second?", ["Yes.", "No."])
    visitor.keys("1")
    again = visitor.do(
        lambda page: page.evaluate(
            """async () => {
              const form = document.querySelector("form.answer");
              const send = () => fetch(form.action, {method: "POST", body: new FormData(form),
                headers: {"HX-Request": "true"}}).then((answer) => answer.text());
              return Promise.all([send(), send(), send()]);
            }"""
        )
    )
    assert Preference.objects.count() == 1
    assert all("Second?" in html for html in again)


def test_an_answer_that_cannot_be_sent_is_still_there(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.do(lambda page: page.route("**/submit/", lambda route: route.abort()))
    visitor.keys("2", "Enter")
    visitor.wait_for("#says:has-text('It is still here')")
    visitor.do(lambda page: page.unroute("**/submit/"))
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.count() == 1
    assert all("htmx:" in one or "ERR_FAILED" in one for one in visitor.problems)
    visitor.problems.clear()  # the browser's own words about the request that was cut


def test_without_javascript_it_is_a_plain_form(visitors, cast):
    cast.ask("First?", FOUR)
    visitor = visitors(java_script_enabled=False)
    start(visitor, cast)

    def fill(page):
        page.fill("[name=axis0-place-A]", "2")
        page.fill("[name=axis0-place-C]", "1")
        page.check("[value=ranked]")
        page.click("button.submit")
        page.wait_for_selector(".empty")

    visitor.do(fill)
    a, _b, c, _d = Assignment.objects.get().presented_order
    assert groups() == [[c], [a]]


def test_the_last_answer_is_a_key_away_and_can_be_changed(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("1", "Enter")
    visitor.wait_for(".empty")
    visitor.keys("u")
    visitor.wait_for("h1:has-text('Your answer')")
    assert visitor.do(lambda page: page.locator("input:checked").get_attribute("value")) == "1"
    visitor.keys("2", "Enter")
    visitor.wait_for(".messages:has-text('Your answer is changed.')")
    first, second = Assignment.objects.get().presented_order
    assert Ranking.objects.get(preference__current=True).groups == [[second], [first]]


def test_what_was_filled_in_survives_a_reload_and_goes_with_the_answer(visitor, cast):
    cast.ask("First?", FOUR)
    start(visitor, cast)
    visitor.keys("2", "1", "n")
    visitor.do(lambda page: page.keyboard.type("half a thought"))
    visitor.do(lambda page: page.reload())
    visitor.wait_for("#says:has-text('is here again')")
    assert visitor.text(".order") == "B > A"
    assert visitor.do(lambda page: page.input_value("textarea[name=note]")) == "half a thought"
    cast.ask("Second?", FOUR)
    visitor.keys("Enter")
    arrived(visitor)
    assert visitor.text(".order") == ""
    visitor.do(lambda page: page.reload())
    visitor.wait_for(NEXT)
    assert visitor.text(".order") == ""
    assert visitor.do(lambda page: page.evaluate("localStorage.length")) == 0


def test_a_digit_chooses_the_reason_of_a_skip(visitor, cast):
    cast.ask("First?", ["Yes.", "No."])
    start(visitor, cast)
    visitor.keys("s", "4", "Enter")
    visitor.wait_for(".empty")
    assert Assignment.objects.get().skip_reason == "broken"
