"""The command that shoots the pages: it does, and names what is wider than a phone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.figures_world import make_figures
from tests.pages_cast import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("agreement", "position", "length", "languages", "scores", "disagreements", "contributions")


def test_every_part_of_analysis_is_shot_and_fits_a_phone(cast, live_server, tmp_path):
    make_figures(cast)
    told = [*("--address", live_server.url), *("--project", "shop"), *("--look", "zh-phone-dark")]
    told += [*("--user", cast.admin.username), *("--password", PASSWORD), *("--only", "analysis")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser.screenshots", tmp_path, *told],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    shots = {path.name for path in tmp_path.iterdir()}
    assert shots == {f"analysis-{part}.zh-phone-dark.png" for part in PARTS}
