"""The chat in a real browser, with a real worker and a real (tiny) model, to the snapshot."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from annotation.models import LiveTurn, Preference, Prompt
from annotation.services import snapshots, versions
from annotation.services.live_setup import change_setup
from tests.browser.conftest import Visitor
from tests.pages_cast import Cast, make_cast
from tests.workers.conftest import Installation
from tests.workers.tiny import tiny_policy

pytestmark = [
    pytest.mark.browser,
    pytest.mark.celery,
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture(scope="module")
def site(django_db_setup: None) -> Iterator[Installation]:
    """Redis, the web under uvicorn, and the two workers that a chat needs."""
    with tempfile.TemporaryDirectory(prefix="concord-", ignore_cleanup_errors=True) as folder:
        one = Installation(Path(folder))
        try:
            for name in ("redis", "light", "live", "web"):
                one.start(name)
            yield one
        finally:
            one.stop_all()


@pytest.fixture
def cast(site: Installation, transactional_db: None, settings: Any) -> Cast:
    """People, and a policy in force that answers them at two temperatures."""
    settings.REDIS_URL = site.redis_url
    settings.ARTIFACTS_DIR = site.var / "artifacts"
    cast = make_cast()
    folder = site.var / "artifacts" / "models" / f"tiny-{cast.project.pk}-{cast.admin.pk}"
    if not folder.exists():
        tiny_policy(folder)
    version = versions.register_version(kind="policy", stage="registered", directory=folder)
    versions.promote(project=cast.project, slot="policy", version=version, verdict="registered")
    change_setup(project=cast.project, changes={"max_new_tokens": 24}, is_open=True, by=cast.admin)
    return cast


@pytest.fixture
def writer(
    browser: Browser, browser_thread: ThreadPoolExecutor, site: Installation, cast: Cast
) -> Iterator[Visitor]:
    """The labeler at the list of conversations; no error and no broken policy may be seen."""
    context = browser_thread.submit(browser.new_context).result()
    visitor = Visitor(browser_thread, context, site.url)
    visitor.enter(cast.labeler, "/p/shop/chat/")
    yield visitor
    browser_thread.submit(context.close).result()
    assert visitor.problems == []


def type_in(visitor: Visitor, text: str) -> None:
    visitor.do(lambda page: page.keyboard.type(text))
    visitor.keys("Enter")


def answered(visitor: Visitor) -> LiveTurn:
    """Wait for the choice, and look at the row."""
    visitor.wait_for("form.choose")
    return LiveTurn.objects.latest("pk")


def test_from_a_message_to_a_preference_in_the_snapshot_by_keys_alone(writer, cast):
    type_in(writer, "Where is the red cat?")
    first = answered(writer)
    assert writer.do(lambda page: page.locator("input:checked").count()) == 0
    writer.keys("2", "Enter")
    writer.wait_for(".composer:focus-within")
    first.refresh_from_db()
    assert first.continued_with == first.answers.get(place=2).text
    type_in(writer, "And the dog?")
    second = answered(writer)
    writer.keys("t", "Enter")
    writer.wait_for("#says:has-text('Say which answer')")
    writer.keys("ArrowLeft", "Enter")
    writer.wait_for(".composer")
    second.refresh_from_db()
    assert second.continued_with == second.answers.get(place=1).text
    assert Preference.objects.filter(counted=True).count() == 2
    assert Prompt.objects.values("split_group").distinct().count() == 1
    Prompt.objects.update(split="train")
    snapshot = snapshots.freeze(project=cast.project, kind="comparisons")
    assert (snapshot.counts["trained"], snapshot.counts["no_strict_pair"]) == (1, 1)


WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const both = [...document.querySelectorAll(".streamed")];
    if (both.length) window.seen.push(both.map((one) => one.textContent));
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
"""Remembers what the two places showed, whenever it changed."""


def test_what_is_shown_while_it_comes_is_what_is_there_in_the_end(writer):
    type_in(writer, "Where is the cat?")
    answered(writer)
    writer.keys("1", "Enter")
    writer.wait_for(".composer:focus-within")
    writer.do(lambda page: page.evaluate(WATCH))
    type_in(writer, "And the fish?")
    turn = answered(writer)
    seen = writer.do(lambda page: page.evaluate("window.seen"))
    whole = [turn.answers.get(place=place).text for place in (1, 2)]
    assert seen[-1] == whole
    assert all(w.startswith(t) for look in seen for w, t in zip(whole, look, strict=True))


def test_an_edited_answer_is_gone_on_with(writer):
    type_in(writer, "Where is the cat?")
    turn = answered(writer)
    writer.keys("1", "e")
    given = writer.do(lambda page: page.input_value("[name=edited]"))
    written = turn.answers.get(place=1).text
    assert given.strip() == written.replace("\r\n", "\n").replace("\r", "\n").strip()
    writer.do(lambda page: page.fill("[name=edited]", "In the *house*."))
    writer.keys("Control+Enter")
    writer.wait_for(".turn.assistant em:has-text('house')")
    turn.refresh_from_db()
    assert turn.preference.ideal.text == turn.continued_with == "In the *house*."


def test_both_bad_and_the_end_by_keys(writer):
    type_in(writer, "Where is the cat?")
    turn = answered(writer)
    writer.keys("b", "Shift+Enter")
    writer.wait_for(".message:has-text('has ended')")
    turn.thread.refresh_from_db()
    assert turn.thread.closed_at is not None
    assert Preference.objects.get().rankings.get().outcome == "both_bad"


def test_where_there_is_no_stream_the_page_asks_for_the_row_and_says_so(writer):
    writer.do(lambda page: page.route("**/stream/", lambda route: route.fulfill(status=204)))
    type_in(writer, "Where is the cat?")
    answered(writer)
    writer.keys("1", "Enter")
    writer.wait_for(".composer")
    assert Preference.objects.count() == 1


def test_a_conversation_is_taken_up_again_after_a_reload(writer):
    type_in(writer, "Where is the cat?")
    writer.wait_for("#stream, form.choose")
    writer.do(lambda page: page.reload())
    answered(writer)
    writer.do(lambda page: page.reload())
    writer.wait_for("form.choose")
    writer.keys("1", "1")
    writer.wait_for(".composer:focus-within")
    writer.do(lambda page: page.keyboard.type("half a thought"))
    writer.do(lambda page: page.reload())
    writer.wait_for(".composer")
    assert writer.do(lambda page: page.input_value("[name=message]")) == "half a thought"


def test_x_asks_before_a_message_without_a_choice_is_dropped(writer):
    type_in(writer, "Where is the cat?")
    turn = answered(writer)
    writer.keys("x")
    writer.wait_for(".message:has-text('nothing was kept')")
    assert len(writer.dialogs) == 1
    turn.refresh_from_db()
    assert turn.state == "dropped"
    assert not Preference.objects.exists()


def test_without_javascript_it_is_plain_forms(
    browser: Browser, browser_thread: ThreadPoolExecutor, site: Installation, cast: Cast
):
    context = browser_thread.submit(lambda: browser.new_context(java_script_enabled=False)).result()
    visitor = Visitor(browser_thread, context, site.url)
    visitor.enter(cast.labeler, "/p/shop/chat/")

    def talk(page: Page) -> None:
        page.fill("[name=message]", "Where is the cat?")
        page.click(".composer button")
        page.wait_for_selector("form.choose")  # the page looks again by itself
        page.check("[value='2']", force=True)
        page.click(".submit")
        page.wait_for_selector(".composer")

    visitor.do(talk)
    assert Preference.objects.get().counted
    browser_thread.submit(context.close).result()
