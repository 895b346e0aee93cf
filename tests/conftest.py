"""Fixtures shared by all tests: where the real data sets lie, and an honest count without them.

And what saves time: a heap that is searched for garbage seldom, and `--with-database-only` for a
second run on another database.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db.backends.postgresql.operations import DatabaseOperations

from annotation.kept import forget
from tests.flushing import sql_flush

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def nothing_kept_of_another_test() -> None:
    """Ids begin anew with each."""
    forget()


def shared_data_folder() -> Path:
    """CONCORD_SHARED_DATA, else ../shared/data beside the repository."""
    return Path(os.environ.get("CONCORD_SHARED_DATA", ROOT.parent / "shared" / "data"))


DATABASE = {"db", "transactional_db", "live_server", "django_db_setup"}
"""Fixtures that a test with a database has, of its own or through others."""


def pytest_addoption(parser):
    parser.addoption(
        "--with-database-only",
        action="store_true",
        help="leave out what says the same on every database, as it asks none",
    )


def has_database(item) -> bool:
    """Whether a test may ask the database."""
    return item.get_closest_marker("django_db") is not None or not DATABASE.isdisjoint(
        item.fixturenames
    )


def pytest_collection_modifyitems(config, items):
    """Without the real data its tests are deselected and counted; nothing is skipped silently."""
    if config.getoption("with_database_only"):
        config.hook.pytest_deselected(items=[one for one in items if not has_database(one)])
        items[:] = filter(has_database, items)
    if shared_data_folder().is_dir():
        return
    absent = [item for item in items if item.get_closest_marker("shared_data")]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]
    config.stash[absent_key] = len(absent)


def pytest_collection_finish():
    """What is there now stays to the end. Looking through it for garbage again and again, at
    Python's usual thresholds, took a tenth of the suite's time and a quarter of its migrations'."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
