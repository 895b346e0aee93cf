"""The suite's two halves: everything is run, and what fails is not lost."""

import subprocess
import sys
import tempfile
import threading

import pytest

from tests import both
from tests.both import APART, BESIDE, HERE, ON_POSTGRES, ON_SQLITE, ONCE, side_by_side


def ends_with(code: int, word: str = "") -> list[str]:
    return [sys.executable, "-c", f"import sys; print('{word}'); sys.exit({code})"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, 0, 0, 0], 0),
        ([3, 0, 0, 0], 3),
        ([0, 3, 0, 0], 3),
        ([0, 0, 3, 0], 3),
        ([0, 0, 0, 3], 3),
    ],
)
def test_one_that_fails_fails_the_whole(codes, expected):
    with tempfile.TemporaryFile() as report:
        assert side_by_side([ends_with(code) for code in codes], report) == expected


def test_what_runs_beside_is_in_the_report(capfd):
    with tempfile.TemporaryFile() as report:
        words = ["here", "beside", "either", "or"]
        assert side_by_side([ends_with(0, word) for word in words], report) == 0
        report.seek(0)
        written, seen = report.read().decode().split(), capfd.readouterr().out.split()
    assert "beside" in written
    assert "here" in seen
    assert sorted(written + seen) == sorted(words)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", [1, 2])
def test_one_that_cannot_be_started_is_no_success(place, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    commands = [ends_with(0) for _ in range(3)]
    commands[place] = ["/no such program"]
    with tempfile.TemporaryFile() as report:
        try:
            assert side_by_side(commands, report) == 1
        except FileNotFoundError:
            assert place == 2  # it was the turn of the one that is seen


def test_what_the_first_leaves_out_is_run_by_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(both, "side_by_side", lambda commands, _report: asked.extend(commands) or 0)
    assert both.main() == 0
    assert asked[:2] == [ON_SQLITE, ON_POSTGRES]
    assert [*ON_SQLITE[3:]] == [f"--ignore={folder}" for folder in APART]
    assert asked[2:] == [(*BESIDE, folder) for folder in APART]
    for folder in APART:
        assert list((HERE.parent / folder).glob("test_*.py")), folder
    assert len(set(APART)) == len(APART)


def test_what_postgresql_leaves_out_is_run_on_sqlite():
    assert not {path.rpartition("/")[0] for path in ONCE} & set(APART)
    for path in ONCE:
        assert (HERE.parent / path).is_file(), path
        assert f"--ignore={path}" in ON_POSTGRES


A_FEW = """
import pytest


@pytest.fixture
def row(db):
    return 1


@pytest.fixture
def page(row):
    return row


def test_marked_not(): ...
def test_by_a_fixture(page): ...
@pytest.mark.django_db
def test_by_its_mark(): ...
@pytest.mark.django_db(transaction=True)
class TestMany:
    def test_of_a_class(self): ...
def test_of_processes(django_db_setup): ...
def test_flushed(transactional_db): ...
def test_of_a_server(live_server): ...
"""


def test_on_another_database_what_asks_none_is_left_out_and_nothing_else(tmp_path):
    (tmp_path / "test_few.py").write_text(A_FEW)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    words = ["--collect-only", "-q", "-p", "no:cacheprovider", "--with-database-only"]
    config = ["-c", str(HERE.parent / "pyproject.toml")]
    done = subprocess.run(
        [*both.PYTEST, *words, *config, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=HERE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    named = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert set(named) == {
        "test_by_a_fixture",
        "test_by_its_mark",
        "test_of_a_class",
        "test_of_processes",
        "test_flushed",
        "test_of_a_server",
    }, done.stdout + done.stderr
    assert "1 deselected" in done.stdout
