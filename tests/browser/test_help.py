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
    hidden = "(() => { const help = document.getElementById('help'); return %s; })()"
    cut = hidden % "help.scrollHeight - help.clientHeight"
    assert visitor.do(lambda page: page.evaluate(cut)) <= 0
    visitor.do(lambda page: page.set_viewport_size({"width": 1280, "height": 400}))
    visitor.keys("End")
    scrolled = hidden % "help.scrollTop + help.clientHeight >= help.scrollHeight - 1"
    visitor.do(lambda page: page.wait_for_function(scrolled))
