"""A real Chromium against a live server; every page is watched for errors and broken policy.

Playwright's sync API keeps an event loop running in the test's thread, and Django refuses its
database calls beside one. So the browser lives in a thread of its own and is called from there.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from annotation.models import User
from tests.browser.chromium import HOW, arguments, find_chromium
from tests.pages_cast import PASSWORD, Cast, make_cast

TIMEOUT_MS = 90_000
"""How long a condition is waited for; a busy machine may need much of it."""


class Visitor:
    """A person at a browser. `do` runs a function with their page in the browser's thread."""

    def __init__(self, thread: ThreadPoolExecutor, context: BrowserContext, base: str) -> None:
        self.thread, self.context, self.base = thread, context, base
        self.problems: list[str] = []
        self.dialogs: list[str] = []
        self.page: Page = thread.submit(self._open).result()

    def _open(self) -> Page:
        self.context.set_default_timeout(TIMEOUT_MS)
        page = self.context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) =>"
            " console.error('CSP ' + event.violatedDirective + ' ' + event.blockedURI))"
        )
        return page

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text} ({self.page.url})")

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept()

    def do(self, act: Callable[[Page], Any]) -> Any:
        """Run in the browser's thread and give back what comes out."""
        return self.thread.submit(act, self.page).result()

    def visit(self, path: str) -> None:
        self.do(lambda page: page.goto(self.base + path))

    def enter(self, user: User, path: str = "/") -> None:
        """Come in with a session made beside the door, and open a page."""
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session, "url": self.base}
        self.do(lambda page: page.context.add_cookies([cookie]))
        self.visit(path)

    def sign_in(self, username: str, password: str = PASSWORD) -> None:
        """Through the door, as a person would."""
        self.visit("/sign-in/")

        def fill(page: Page) -> None:
            page.fill("[name=username]", username)
            page.fill("[name=password]", password)
            page.press("[name=password]", "Enter")
            page.wait_for_url(lambda url: "/sign-in/" not in url)

        self.do(fill)

    def keys(self, *names: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        self.do(lambda page: [page.keyboard.press(name) for name in names])

    def wait_for(self, selector: str) -> None:
        """Until it is seen on a page that has loaded: while scripts come in, a form that htmx sends
        would still be sent by the browser, and the page that a test looks at would be left."""

        def wait(page: Page) -> None:
            page.wait_for_selector(selector)
            page.wait_for_load_state()

        self.do(wait)

    def go(self, *names: str) -> None:
        """Click through menus and links of these names, one after the other."""

        def click(page: Page) -> None:
            for name in names:
                menu = page.locator("details > summary").get_by_text(name, exact=True)
                link = page.get_by_role("link", name=name, exact=True)
                is_menu = menu.count() and not menu.locator("..").get_attribute("open")
                (menu if is_menu else link).first.click()
                page.wait_for_load_state()

        self.do(click)

    def text(self, selector: str) -> str:
        return str(self.do(lambda page: page.inner_text(selector)))


@pytest.fixture(scope="session")
def browser_thread() -> Iterator[ThreadPoolExecutor]:
    """The one thread that Playwright lives in."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser") as thread:
        yield thread


@pytest.fixture(scope="session")
def browser(browser_thread: ThreadPoolExecutor) -> Iterator[Browser]:
    """A Chromium, or a failure that says how to get one."""
    path = browser_thread.submit(find_chromium).result()
    if path is None:
        pytest.fail(HOW)
    playwright = browser_thread.submit(lambda: sync_playwright().start()).result()
    browser = browser_thread.submit(
        lambda: playwright.chromium.launch(executable_path=path, args=arguments())
    ).result()
    yield browser
    browser_thread.submit(browser.close).result()
    browser_thread.submit(playwright.stop).result()


@pytest.fixture
def visitors(
    browser: Browser, browser_thread: ThreadPoolExecutor, live_server: Any
) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors; at the end none may have seen an error or a broken policy."""
    made: list[Visitor] = []

    def visit(**options: Any) -> Visitor:
        context = browser_thread.submit(lambda: browser.new_context(**options)).result()
        visitor = Visitor(browser_thread, context, live_server.url)
        made.append(visitor)
        return visitor

    yield visit
    for visitor in made:
        browser_thread.submit(visitor.context.close).result()
    assert [problem for visitor in made for problem in visitor.problems] == []


@pytest.fixture
def visitor(visitors: Callable[..., Visitor]) -> Visitor:
    """One person at one browser."""
    return visitors()


@pytest.fixture
def cast(live_server: Any) -> Cast:
    """A project with people; the live server sees it."""
    return make_cast()
