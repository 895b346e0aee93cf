"""Every kind of answer by keys alone: what was pressed, the database and the export agree."""

import json

import pytest
from playwright.sync_api import Page

from annotation.exporters.folder import make_export
from annotation.models import Assignment, Preference, Prompt
from annotation.services.projects import new_scheme
from tests.browser.conftest import Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
FOUR = ["First text.", "Second text.", "Third text.", "Fourth text."]


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path


def ask(visitor: Visitor, cast: Cast, texts: list[str], **scheme: object) -> list[str]:
    """Open a comparison under a scheme in front of the labeler; texts as they are shown."""
    new_scheme(project=cast.project, by=None, **scheme)
    cast.ask("First?", texts)
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    assert visitor.do(lambda page: page.locator("input:checked").count()) == 0
    shown = Assignment.objects.get().presented_order
    by_id = dict(cast.comparisons[0].completions.values_list("pk", "text"))
    return [by_id[pk] for pk in shown]


def exported(cast: Cast) -> tuple[list[dict], list[dict]]:
    """The votes and judgments of the one exported row, with texts for ids."""
    Prompt.objects.update(split="train")
    out = make_export(project=cast.project, format="comparisons")
    (row,) = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    text = {one["id"]: one["text"] for one in row["completions"]}
    votes = [
        {
            "axis": vote["axis"],
            "ranking": [[text[pk] for pk in group] for group in vote["ranking"]],
            "strength": vote["strength"],
            "acceptable": vote.get("acceptable"),
        }
        for vote in row["votes"]
    ]
    judgments = [
        {"text": text[one["completion"]], "ratings": one["ratings"], "flags": one["flags"]}
        for one in row.get("judgments", [])
    ]
    return votes, judgments


def vote(ranking, *, axis="overall", strength=None, acceptable=None):
    return {"axis": axis, "ranking": ranking, "strength": strength, "acceptable": acceptable}


@pytest.mark.parametrize(
    ("steps", "key", "first", "strength"),
    [
        (2, "1", 0, 2),
        (2, "2", 0, 1),
        (2, "3", 1, 1),
        (2, "4", 1, 2),
        (4, "1", 0, 4),
        (4, "4", 0, 1),
        (4, "5", 1, 1),
        (4, "8", 1, 4),
        (7, "1", 0, 3),
        (7, "3", 0, 1),
        (7, "6", 1, 3),
    ],
)
def test_how_much_better(visitor, cast, steps, key, first, strength):
    shown = ask(visitor, cast, ["Yes.", "No."], options={"strength_steps": steps})
    visitor.keys(key, key)
    visitor.wait_for(".empty")
    order = [[shown[first]], [shown[1 - first]]]
    assert exported(cast)[0] == [vote(order, strength=[strength])]


def test_a_tie_in_the_middle_of_the_scale(visitor, cast):
    shown = ask(visitor, cast, ["Yes.", "No."], options={"strength_steps": 7})
    visitor.keys("t", "Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [vote([shown])]


def test_a_line_under_what_is_good_enough(visitor, cast):
    a, b, c, d = ask(visitor, cast, FOUR, options={"acceptability": True})
    visitor.keys("2", "1", "4", "2", "2")  # the digit after the last place is the line's
    visitor.wait_for("#says:has-text('Good enough down to place 2.')")
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [vote([[b], [a, d], [c]], acceptable=2)]


def test_a_line_under_a_pair_and_none_good_enough(visitor, cast):
    one, two = ask(visitor, cast, ["Yes.", "No."], options={"acceptability": True})
    visitor.keys("2", "l", "0", "Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [vote([[two], [one]], acceptable=0)]


def test_two_axes_each_with_its_own_order(visitor, cast):
    a, b, c, d = ask(visitor, cast, FOUR, axes=["helpful", "safe"])
    visitor.keys("1", "4", "2", "3", "3", "2", "4", "1")  # A helpful, A safe, B helpful ...
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [
        vote([[a], [b], [c], [d]], axis="helpful"),
        vote([[d], [c], [b], [a]], axis="safe"),
    ]


def test_two_axes_of_a_pair(visitor, cast):
    one, two = ask(visitor, cast, ["Yes.", "No."], axes=["helpful", "safe"])
    visitor.keys("1", "t", "Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [
        vote([[one], [two]], axis="helpful"),
        vote([[one, two]], axis="safe"),
    ]


ASKED = {
    "ratings": [{"name": "correct", "low": 1, "high": 5}, {"name": "polite", "low": 0, "high": 3}],
    "flags": ["unsafe", "wrong language"],
}


def test_ratings_and_flags_of_a_pair(visitor, cast):
    one, two = ask(visitor, cast, ["Yes.", "No."], options=ASKED)
    visitor.keys("2")
    assert visitor.text("#says") == ("Chosen: 2 is better. Rate every answer first; R leads there.")
    visitor.keys("Enter")
    visitor.wait_for("#says:text-is('Rate every answer first; R leads there.')")
    assert not Preference.objects.exists()
    visitor.keys("r", "9")
    visitor.wait_for("#says:has-text('A number from 1 to 5.')")
    visitor.keys("5", "0", "2", "3", "f", "Tab", "Space", "Enter")
    visitor.wait_for(".empty")
    votes, judgments = exported(cast)
    assert votes == [vote([[two], [one]])]
    assert sorted(judgments, key=lambda said: said["text"] != one) == [
        {"text": one, "ratings": {"correct": 5, "polite": 0}, "flags": ["wrong language"]},
        {"text": two, "ratings": {"correct": 2, "polite": 3}, "flags": []},
    ]


def test_ratings_of_a_list_come_with_its_places(visitor, cast):
    a, b, c, d = ask(visitor, cast, FOUR, options={"ratings": ASKED["ratings"][:1]})
    for place, rating in ("14", "23", "32", "41"):
        visitor.keys(place, rating)
    assert visitor.text(".order") == "A > B > C > D"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    votes, judgments = exported(cast)
    assert votes == [vote([[a], [b], [c], [d]])]
    assert {said["text"]: said["ratings"]["correct"] for said in judgments} == {
        a: 4, b: 3, c: 2, d: 1,
    }  # fmt: skip


def test_a_reason_that_is_asked_for(visitor, cast):
    ask(visitor, cast, ["Yes.", "No."], options={"reason": "required"})
    visitor.keys("1", "n")
    visitor.do(lambda page: page.keyboard.type("2 says nothing"))
    visitor.keys("Control+Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.get().note == "2 says nothing"


def test_a_list_that_must_be_whole_says_so_and_keeps_what_was_typed(visitor, cast):
    ask(visitor, cast, FOUR, options={"allow_partial": False})
    visitor.keys("1", "2", "3", "Enter")
    visitor.wait_for("#says:has-text('Give every answer a place')")
    assert visitor.text(".order") == "A > B > C"
    visitor.keys("Shift+D", "4", "Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.exists()


def test_a_better_answer_begins_with_the_one_in_front_and_is_kept_if_it_was_edited(visitor, cast):
    texts = ["Yes, <b>of course</b>.", "No."]
    shown = ask(visitor, cast, texts, options={"ideal": True})
    place = str(1 + shown.index(texts[0]))
    visitor.keys(place, "e")
    visitor.do(lambda page: page.keyboard.press("End"))
    visitor.do(lambda page: page.keyboard.type(" Today."))
    visitor.keys("Escape", "Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.get().ideal.text == "Yes, <b>of course</b>. Today."


def test_a_better_answer_that_was_only_looked_at_is_none(visitor, cast):
    ask(visitor, cast, ["Yes.", "No."], options={"ideal": True})
    visitor.keys("1", "e", "Escape", "Enter")
    visitor.wait_for(".empty")
    assert Preference.objects.get().ideal is None


def drag(visitor: Visitor, letter: str, onto: str) -> None:
    """Take an answer's chip by the mouse and drop it in the middle of something."""

    def move(page: Page) -> None:
        for act, place in (
            (page.mouse.down, page.locator(f".strip .chip[data-letter={letter}]")),
            (page.mouse.up, page.locator(onto)),
        ):
            box = place.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
            act()

    visitor.do(move)


def groups_of(preference: Preference) -> list[list[list[int]]]:
    return [one.groups for one in preference.rankings.order_by("axis")]


def test_a_ranking_by_dragging_is_the_ranking_by_digits(visitor, cast):
    """B before A = D, C not ranked: by the mouse, in the export, and by keys."""
    a, b, _c, d = ask(visitor, cast, FOUR)
    drag(visitor, "A", ".strip .gap.last")
    drag(visitor, "C", ".strip .gap.last")
    drag(visitor, "D", ".strip .group:has([data-letter=A])")
    drag(visitor, "B", ".strip .gap:first-child")
    assert visitor.text(".order") == "B > A = D > C"
    drag(visitor, "C", ".strip .tray")
    assert visitor.text(".order") == "B > A = D"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    dragged = Preference.objects.get()
    assert exported(cast)[0] == [vote([[b], [a, d]])]
    cast.ask("Second?", FOUR)
    visitor.do(lambda page: page.reload())
    visitor.wait_for("form.answer")
    visitor.keys("2", "1", "ArrowDown", "2")
    assert visitor.text(".order") == "B > A = D"
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    typed = Preference.objects.exclude(pk=dragged.pk).get()
    shown = [dragged.presented_order.index(pk) for group in groups_of(dragged)[0] for pk in group]
    same = [typed.presented_order.index(pk) for group in groups_of(typed)[0] for pk in group]
    assert shown == same == [1, 0, 3]


def test_dragging_fills_the_axis_that_is_at_hand_and_digits_go_on(visitor, cast):
    a, b, c, _d = ask(visitor, cast, FOUR, axes=["helpful", "safe"])
    drag(visitor, "C", ".strip .gap.last")
    drag(visitor, "A", ".strip .gap.last")
    visitor.keys("ArrowDown", "1", "ArrowDown", "2", "Enter")  # A and B on the second axis
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [
        vote([[c], [a]], axis="helpful"),
        vote([[a], [b]], axis="safe"),
    ]


@pytest.mark.parametrize("count", range(3, 10))
def test_lists_of_every_length(visitor, cast, count):
    shown = ask(visitor, cast, [f"Text {number}." for number in range(count)])
    visitor.keys(*(str(count - index) for index in range(count)))
    visitor.wait_for("#says:has-text('is at place 1.')")
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    assert exported(cast)[0] == [vote([[text] for text in reversed(shown)])]


def test_pairs_and_lists_come_one_after_the_other(visitor, cast):
    new_scheme(project=cast.project, by=None)
    for count in (2, 5, 3):
        cast.ask(f"Of {count}?", [f"{count}: {number}." for number in range(count)])
    visitor.enter(cast.labeler)
    for _ in range(3):
        visitor.wait_for("form.answer")
        count = visitor.do(lambda page: page.locator(".option").count())
        visitor.keys(
            *(["2"] if count == 2 else [str(place + 1) for place in range(count)]), "Enter"
        )
        visitor.do(lambda page, of=count: page.locator(f".option >> nth={of - 1}").count())
        visitor.wait_for(f".empty, .turn:not(:has-text('Of {count}?'))")
    visitor.wait_for(".empty")
    lengths = [len(one.presented_order) for one in Preference.objects.all()]
    assert sorted(lengths) == [2, 3, 5]


def test_the_lead_sees_the_page_change_with_the_form(visitor, cast):
    visitor.enter(cast.admin, "/p/shop/members/")
    visitor.wait_for("#scheme-preview >> text=1 is better")
    visitor.do(lambda page: page.select_option("[name=strength_steps]", "4"))
    visitor.wait_for("#scheme-preview >> text=1 significantly better")
    visitor.do(lambda page: page.fill("[name=flags]", "unsafe, rude"))
    visitor.wait_for("#scheme-preview >> text=rude")
