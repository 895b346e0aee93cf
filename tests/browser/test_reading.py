"""Ways to read two answers, by keys: none of them changes what is submitted."""

import pytest
from playwright.sync_api import Page

from annotation.models import Assignment, Batch, Preference, Ranking
from tests.browser.conftest import Visitor
from tests.pages_cast import Cast

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RETURNS = ["You can return it within **30 days**.", "You can return it within **14 days**, used."]
UNSEEN = "One\ttab,  two blanks,\u00a0\u200btrailing \nand **Markdown** [x](http://a.example)"


def start(visitor: Visitor, cast: Cast, texts: list[str]) -> list[str]:
    """The comparison is on the page; its texts as they are shown."""
    cast.ask("First?", texts)
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    by_id = dict(cast.comparisons[0].completions.values_list("pk", "text"))
    return [by_id[pk] for pk in Assignment.objects.get().presented_order]


def marked(visitor: Visitor, letter: str) -> list[str]:
    """What is marked in an answer, without the words for those who do not see the mark."""
    return visitor.do(
        lambda page: page.evaluate(
            f"""[...document.querySelectorAll(".option-{letter} mark")].map((mark) => {{
              const copy = mark.cloneNode(true);
              copy.querySelectorAll(".visually-hidden").forEach((one) => one.remove());
              return copy.textContent;
            }})"""
        )
    )


def test_what_only_one_of_two_answers_says_is_marked_and_goes_again(visitor, cast):
    shown = start(visitor, cast, RETURNS)
    one, two = (["30"], ["14", ", used"]) if "30" in shown[0] else (["14", ", used"], ["30"])
    visitor.keys("2", "d")
    visitor.wait_for(".option-2 mark")
    assert (marked(visitor, "1"), marked(visitor, "2")) == (one, two)
    assert "[only here:" in visitor.do(lambda page: page.text_content(".option-1 mark"))
    assert visitor.text("[data-tool=diff][aria-pressed=true]").startswith("D")
    visitor.keys("d")
    assert visitor.do(lambda page: page.locator("mark").count()) == 0
    assert visitor.do(lambda page: page.locator(".option .prose:visible").count()) == 2
    visitor.keys("d")
    visitor.wait_for(".option-2 mark")
    visitor.keys("Enter")
    visitor.wait_for(".empty")
    first, second = Assignment.objects.get().presented_order
    assert Ranking.objects.get().groups == [[second], [first]]


def test_chinese_is_compared_sign_by_sign(visitor, cast):
    shown = start(visitor, cast, ["您可以在三十天内退货。", "您可以在十四天内退货。"])
    visitor.keys("d")
    visitor.wait_for(".option-2 mark")
    one, two = "".join(marked(visitor, "1")), "".join(marked(visitor, "2"))
    assert {one, two} == {"三", "四"}
    assert one in shown[0]


def test_in_a_list_the_marked_answer_is_compared_with_the_one_that_is_gone_to(visitor, cast):
    start(visitor, cast, ["red apple", "red pear", "red plum"])
    visitor.keys("d")
    visitor.wait_for(".option-B mark")
    assert visitor.do(lambda page: page.locator(".option-C mark").count()) == 0
    visitor.keys("Shift+C")
    visitor.wait_for(".option-C mark")
    assert visitor.do(lambda page: page.locator(".option-B mark").count()) == 0
    assert len(marked(visitor, "A")) == 1
    visitor.keys("d", "Shift+A", "1", "2", "3", "Enter")
    visitor.wait_for(".empty")
    assert Ranking.objects.get().groups == [[pk] for pk in Assignment.objects.get().presented_order]


def test_the_text_as_it_was_written(visitor, cast):
    shown = start(visitor, cast, [UNSEEN, "Plain."])
    letter = str(1 + shown.index(UNSEEN))
    visitor.keys("w")
    visitor.wait_for(f".option-{letter} .instead")

    def without_signs(page: Page) -> str:
        return page.evaluate(
            f"""(() => {{
              const copy = document.querySelector(".option-{letter} .instead").cloneNode(true);
              copy.querySelectorAll(".sign").forEach((sign) => sign.remove());
              return copy.textContent;
            }})()"""
        )

    text = visitor.text(f".option-{letter} .instead")
    for sign in ("→", "··", "U+00A0", "U+200B", "·↵", "**Markdown**", "](http://a.example)"):
        assert sign in text
    blanks = UNSEEN.replace("  ", "").replace(" \n", "\n")  # a sign stands for each of these
    assert visitor.do(without_signs) == blanks
    visitor.keys("w")
    assert visitor.do(lambda page: page.locator(".instead").count()) == 0
    visitor.keys("w", "1", "1")
    visitor.wait_for(".empty")
    assert Preference.objects.count() == 1


def test_what_may_upset_is_veiled_until_a_key_shows_it(visitor, cast):
    cast.ask("First?", ["Gore.", "None."])
    Batch.objects.update(sensitive=True)
    visitor.enter(cast.labeler)
    visitor.wait_for("form.answer")
    look = """[...document.querySelectorAll(".turn .prose, .option > .text")].map((one) =>
      [getComputedStyle(one).filter !== "none", one.inert])"""
    assert visitor.do(lambda page: page.evaluate(look)) == [[True, True]] * 3
    assert visitor.text("#unveil").startswith("V")
    visitor.keys("v")
    assert visitor.do(lambda page: page.evaluate(look)) == [[False, False]] * 3
    assert visitor.do(lambda page: page.locator("#unveil:visible").count()) == 0
    cast.ask("Second?", ["Gore!", "None!"])
    visitor.keys("1", "Enter")
    visitor.wait_for(".turn:has-text('Second?')")
    assert visitor.do(lambda page: page.evaluate(look)) == [[True, True]] * 3


LONG = "\n\n".join(f"Paragraph {number}. " + "word " * 60 for number in range(40))
LONGER = LONG + "\n\n" + "长" * 3000 + "\n\n" + "x" * 5000


def test_columns_of_long_texts_scroll_in_step(visitor, cast):
    start(visitor, cast, [LONG, LONGER])
    visitor.keys("y")
    visitor.wait_for(".options.in-step")

    def shares(page: Page) -> list[float]:
        return page.evaluate(
            """[...document.querySelectorAll(".option > .text")].map((one) =>
              one.scrollTop / (one.scrollHeight - one.clientHeight))"""
        )

    def scroll(page: Page) -> None:
        page.keyboard.press("End")  # the first column has the focus
        page.evaluate(
            """new Promise((done) => {
              const texts = [...document.querySelectorAll(".option > .text")];
              const isDown = (one) => one.scrollTop > 0.99 * (one.scrollHeight - one.clientHeight);
              const look = () => (texts.every(isDown) ? done() : requestAnimationFrame(look));
              look();
            })"""
        )

    assert visitor.do(shares) == [0, 0]
    visitor.do(scroll)
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visitor.do(lambda page: page.evaluate(wider)) <= 0
    visitor.do(lambda page: page.reload())
    visitor.wait_for(".options.in-step")  # it stays until it is switched off
    visitor.keys("y")
    assert visitor.do(lambda page: page.locator(".in-step").count()) == 0
    visitor.keys("1", "1")
    visitor.wait_for(".empty")


def test_letters_and_choices_stay_in_sight_of_a_long_text(visitor, cast):
    start(visitor, cast, [LONG, LONGER])
    visitor.do(lambda page: page.evaluate("scrollTo(0, document.body.scrollHeight / 2)"))
    for selector in (".option-1 h2", ".option-2 h2", ".bar .submit", ".choice-1"):
        box = visitor.do(lambda page, shown=selector: page.locator(shown).bounding_box())
        height = visitor.do(lambda page: page.evaluate("innerHeight"))
        assert 0 <= box["y"] <= height - box["height"], selector
