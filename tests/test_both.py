"""The suite's two halves: everything is run, and what fails is not lost."""

import sys
import tempfile
import threading

import pytest

from tests.both import HERE, ON_SQLITE, WITHOUT_DATABASE, side_by_side


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


def test_what_sqlite_leaves_out_is_there_to_be_run_and_uses_no_database():
    assert [*ON_SQLITE[3:]] == [f"--ignore={folder}" for folder in WITHOUT_DATABASE]
    for folder in WITHOUT_DATABASE:
        files = list((HERE.parent / folder).glob("test_*.py"))
        assert files
        for path in files:
            text = path.read_text()
            assert "django_db" not in text, path
            assert "import django" not in text, path
