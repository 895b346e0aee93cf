"""The list of keys: seen whole on a laptop, and scrolled by keys where the window is lower."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_list_of_keys_is_seen_whole_and_scrolls_where_it_can_not_be(visitors, cast):
    cast.ask("One?", ["Yes.", "No."])
    visitor = visitors(viewport={"width": 1280, "height": 800})
    visitor.enter(cast.labeler, "/p/shop/label/")
    visitor.wait_for("form.answer")
    visitor.keys("?")
    visitor.wait_for("#help:popover-open")
    cut = "(({scrollHeight, clientHeight}) => scrollHeight - clientHeight)(window.help)"
    assert visitor.do(lambda page: page.evaluate(cut)) <= 0
    # lower than the list: the last line comes into sight by a key alone
    visitor.do(lambda page: page.set_viewport_size({"width": 1280, "height": 400}))
    button = "#help button"
    assert not visitor.do(lambda page: in_sight(page, button))
    visitor.keys("End")
    for _ in range(500):  # it may glide
        if visitor.do(lambda page: in_sight(page, button)):
            return
    pytest.fail("End did not scroll the list")


def in_sight(page, selector):
    """Whether all of it lies within the list's own window."""
    box, window = page.locator(selector).bounding_box(), page.locator("#help").bounding_box()
    return box["y"] + box["height"] <= window["y"] + window["height"]
