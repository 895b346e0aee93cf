"""Shoot every page for admins and researchers: `python -m tests.browser.screenshots OUT`.

Without --address it serves what `make demo` left in var/tour, on a free port, for as long as it
takes; with --data DIR it imports the public sets that lie there into that project first. Each page
is shot in English and Chinese, light and dark, and as a phone has it. A page that is wider than its
window, or that complains in the console, is named at the end, and the exit code is 1.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.chromium import HOW, arguments, find_chromium

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_MS = 120_000
START_SECONDS = 180
SAMPLES = {
    "hh-rlhf": "hh-rlhf/harmless-base-test.jsonl.gz",
    "oasst-zh": "oasst1/oasst_rm_zh.json",
    "rewardbench": "formats/rewardbench/sample.jsonl",
    "lmarena": "formats/lmarena/battles.jsonl",
    "trl": "formats/trl/preference_zh.jsonl",
}
"""Format -> a file of --data; those that are not there are left out."""
WIDE, PHONE = (1280, 900), (390, 844)


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    name: str
    size: tuple[int, int] = WIDE
    language: str = "en"
    scheme: str = "light"


LOOKS = (
    Look("en-light"),
    Look("en-dark", scheme="dark"),
    Look("en-phone", PHONE),
    Look("zh-light", language="zh-hans"),
    Look("zh-phone-dark", PHONE, "zh-hans", "dark"),
)


@dataclass(frozen=True)
class Shot:
    """A page by its address after the project's; what is done there, and what is waited for."""

    name: str
    path: str
    there: str = "main h1"
    act: Callable[[Page], object] | None = None


def count_first(page: Page) -> None:
    """The counts of an export."""
    page.locator("button[name=count], button[value=count]").first.click()
    page.wait_for_load_state()


def dry_run(page: Page) -> None:
    """What a job would do."""
    page.locator("[name=look]").click()
    page.wait_for_selector("#plan")


def by_language(page: Page) -> None:
    """A part of Quality."""
    page.locator("#figures a[href*='by=language']").click()
    page.wait_for_selector("#part table, #part p")


SHOTS = [
    Shot("overview", ""),
    Shot("jobs", "jobs/"),
    *(Shot(f"job-new-{kind}", f"jobs/new/?kind={kind}") for kind in ("reward", "ppo", "sft")),
    Shot("job-dry-run", "jobs/new/?kind=reward", act=dry_run),
    Shot("versions", "versions/"),
    Shot("head-to-head", "head-to-head/"),
    Shot("health", "health/"),
    Shot("export", "export/"),
    Shot("export-counted", "export/", act=count_first),
    Shot("imports", "imports/"),
    *(
        Shot(f"analysis-{part}", f"analysis/?whose=simulated&part={part}", f"#{part}")
        for part in ("agreement", "position", "length", "languages", "scores")
    ),
    Shot("analysis-disagreements", "analysis/disagreements/"),
    Shot("analysis-contributions", "analysis/contributions/"),
    Shot("quality", "quality/?whose=simulated", "#figures"),
    Shot("quality-by-language", "quality/?whose=simulated", "#figures", by_language),
    Shot("preferences", "preferences/"),
    Shot("search", "search/"),
    Shot("search-found", "search/?text=order"),
    Shot("search-found-zh", "search/?text=订单"),
    Shot("asking", "asking/"),
    Shot("timesheet", "timesheet/"),
    Shot("job-pair", "jobs/pair/"),
    Shot("members", "members/"),
    Shot("batches", "batches/"),
    Shot("reviews", "reviews/"),
    Shot("questions", "questions/"),
    Shot("gold", "gold/"),
    Shot("guideline", "guideline/"),
    Shot("void-range", "void-range/"),
    Shot("forget", "forget/"),
]
FOUND = {
    "job": ("jobs/", r"/jobs/(\d+)/$"),
    "version": ("versions/", r"/versions/(\d+)/$"),
    "preference": ("preferences/", r"/preferences/(\d+)/$"),
    "import": ("imports/", r"/imports/(\d+)/$"),
    "review": ("reviews/", r"/reviews/(\d+)/$"),
    "batch": ("batches/", r"/batches/(\d+)/$"),
}
"""Name -> the list that leads to such pages, and how their addresses end."""
MOST_OF_A_KIND = 6


@dataclass
class Camera:
    """Shoots pages of a project that runs at an address."""

    browser: Browser
    address: str
    project: str
    out: Path
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def looking(self, look: Look, state: Path) -> Iterator[Page]:
        """A page in a context of its own, signed in."""
        width, height = look.size
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if look.scheme == "dark" else "light",
            storage_state=state,
        )
        context.set_default_timeout(TIMEOUT_MS)
        context.add_cookies(
            [{"name": "django_language", "value": look.language, "url": self.address}]
        )
        page = context.new_page()
        page.on("console", lambda said: self._said(page, said.type, said.text))
        yield page
        context.close()

    def _said(self, page: Page, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(f"{page.url}: {text}")

    def sign_in(self, user: str, password: str, state: Path) -> None:
        """Through the door; what the browser knows then is kept."""
        context = self.browser.new_context()
        page = context.new_page()
        page.goto(f"{self.address}/sign-in/")
        page.fill("[name=username]", user)
        page.fill("[name=password]", password)
        page.press("[name=password]", "Enter")
        page.wait_for_url(lambda url: "/sign-in/" not in url, timeout=TIMEOUT_MS)
        context.storage_state(path=state)
        context.close()

    def pages_found(self, page: Page) -> list[Shot]:
        """Of each kind of page that a list leads to, the newest few."""
        found = []
        for name, (path, ending) in FOUND.items():
            page.goto(f"{self.address}/p/{self.project}/{path}")
            links = page.eval_on_selector_all("main a", "all => all.map(link => link.pathname)")
            numbers = list(dict.fromkeys(m[1] for link in links if (m := re.search(ending, link))))
            kept = numbers[: MOST_OF_A_KIND if name in ("job", "version") else 1]
            found += [Shot(f"{name}-{number}", f"{path}{number}/") for number in kept]
            if name == "job" and numbers:
                found.append(Shot("rollouts", f"{path}{numbers[0]}/rollouts/"))
        return found

    def shoot(self, page: Page, shot: Shot, look: Look) -> None:
        """One picture, of the whole page."""
        response = page.goto(f"{self.address}/p/{self.project}/{shot.path}")
        if response is not None and response.status == 404:
            return  # nothing of the kind here
        page.wait_for_selector(shot.there)
        page.wait_for_load_state("networkidle")
        if shot.act is not None:
            shot.act(page)
        file = self.out / f"{shot.name}.{look.name}.png"
        page.screenshot(path=file, full_page=True)
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            self.problems.append(f"{file.name}: {over} pixels wider than the window")


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(var: Path, log: Path) -> Iterator[str]:
    """The web pages of an installation's folder, without its workers."""
    port = free_port()
    command = ["-m", "uvicorn", "annotation.asgi:application", "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(var), stdout=file, stderr=file
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=60)


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Until it answers. Raises RuntimeError if it never does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/healthz", timeout=10).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("the web server did not start")


def environment(var: Path) -> dict[str, str]:
    """Of processes that work on an installation's folder."""
    own = {"CONCORD_MODE": "laptop", "CONCORD_VAR": str(var)}
    return {**os.environ, **own, "CONCORD_ARTIFACTS": str(var / "artifacts")}


def bring_in(var: Path, project: str, data: Path) -> None:
    """Import the samples that are there."""
    for name, path in SAMPLES.items():
        if (data / path).exists():
            command = ["manage.py", "import_preferences", "--project", project]
            command += ["--format", name, str(data / path)]
            subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(var), check=False)


def main() -> int:
    """0 after the pictures; 1 where a page was too wide or complained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--address", default="", help="of a running Concord; else one is served")
    parser.add_argument("--var", type=Path, default=ROOT / "var" / "tour", help="what is served")
    parser.add_argument("--data", type=Path, help="public data sets to import first")
    parser.add_argument("--project", default="demo")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--password", default="admin-demo")
    parser.add_argument("--only", default="", help="pages whose name begins so")
    parser.add_argument("--look", choices=[one.name for one in LOOKS], action="append")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if (chromium := find_chromium()) is None:
        sys.exit(HOW)
    if given.data:
        bring_in(given.var, given.project, given.data)
    if given.address:
        return shoot_all(given, given.address, chromium)
    with served(given.var, given.out / "web.log") as address:
        return shoot_all(given, address, chromium)


def shoot_all(given: argparse.Namespace, address: str, chromium: str) -> int:
    """All pages in all looks."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments())
        camera = Camera(browser, address, given.project, given.out)
        state = given.out / "state.json"
        try:
            camera.sign_in(given.user, given.password, state)
            looks = [one for one in LOOKS if not given.look or one.name in given.look]
            with camera.looking(LOOKS[0], state) as page:
                shots = [*SHOTS, *camera.pages_found(page)]
            for look in looks:
                with camera.looking(look, state) as page:
                    for shot in shots:
                        if shot.name.startswith(given.only):
                            camera.shoot(page, shot, look)
        finally:
            state.unlink(missing_ok=True)
        browser.close()
    for problem in camera.problems:
        print(problem)
    return 1 if camera.problems else 0


if __name__ == "__main__":
    sys.exit(main())
