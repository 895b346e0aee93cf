"""Finds a Chromium for the browser tests, or gets one: python tests/browser/chromium.py

On Debian as root that is the package `chromium`; elsewhere what Playwright installs. Where neither
works it says how to get one, and exits with 1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HOW = (
    "No Chromium for the browser tests. Get one: `apt-get install chromium` on Debian or Ubuntu, "
    "or `.venv/bin/python -m playwright install chromium`, then run `make test` again."
)


def find() -> str | None:
    """Path of a Chromium: CONCORD_CHROMIUM, one on PATH, or Playwright's own; None without one."""
    if named := os.environ.get("CONCORD_CHROMIUM"):
        return named
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def install() -> None:
    """Try the ways that fit this machine; what fails prints its own reason."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "chromium", "fonts-noto-cjk"],
            check=False,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def main() -> int:
    """0 when a Chromium is there, found or just installed."""
    if find() is None:
        install()
    if (path := find()) is None:
        print(HOW, file=sys.stderr)
        return 1
    print(f"Browser tests use {path}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
