"""Fixtures shared by all tests: where the real data sets lie, and an honest count without them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db.backends.postgresql.operations import DatabaseOperations

from tests.flushing import sql_flush

ROOT = Path(__file__).resolve().parent.parent


def shared_data_folder() -> Path:
    """CONCORD_SHARED_DATA, else ../shared/data beside the repository."""
    return Path(os.environ.get("CONCORD_SHARED_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_modifyitems(config, items):
    """Without the real data its tests are deselected and counted; nothing is skipped silently."""
    if shared_data_folder().is_dir():
        return
    absent = [item for item in items if item.get_closest_marker("shared_data")]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]
    config.stash[absent_key] = len(absent)


absent_key = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    """Say what could not run."""
    if absent := config.stash.get(absent_key, 0):
        terminalreporter.write_line(
            f"{absent} tests need the real data sets (CONCORD_SHARED_DATA) and were left out."
        )


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """PostgreSQL's tables are emptied in milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", sql_flush)
        yield


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets."""
    return shared_data_folder()
