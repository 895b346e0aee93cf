"""Which Chromium the browser tests drive: one on PATH, else Playwright's own.

As a script (`make browser`) it gets one where there is none, or says how to.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOW = (
    "No Chromium was found. `make browser` gets one: with apt on Debian and Ubuntu as root, else "
    "through Playwright. By hand: apt-get install chromium, or "
    "python -m playwright install chromium."
)


def find_chromium() -> str | None:
    """The browser's path: the system's first, then what Playwright installed."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        bundled = Path(playwright.chromium.executable_path)
    return str(bundled) if bundled.is_file() else None


def arguments() -> list[str]:
    """Command line of the browser; root cannot have Chromium's own sandbox."""
    return [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def get_chromium() -> str:
    """Find a browser or install one; exits with a sentence where neither works."""
    if found := find_chromium():
        return found
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        commands.insert(0, ["apt-get", "install", "-y", "-qq", "chromium", "fonts-noto-cjk"])
        subprocess.run(["apt-get", "update", "-qq"], check=False)
    for command in commands:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, check=False, env=environment)
        if found := find_chromium():
            return found
    sys.exit(HOW)


if __name__ == "__main__":
    print(f"Browser tests use {get_chromium()}.")
