"""Emptying the tables after a test that committed, on PostgreSQL."""

from collections.abc import Iterable

from django.core.management.color import Style
from django.db.backends.postgresql.operations import DatabaseOperations

AS_THEY_WERE = (
    "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) "
    "FROM pg_sequences WHERE last_value IS NOT NULL"
)


def sql_flush(
    operations: DatabaseOperations,
    style: Style,
    tables: Iterable[str],
    *,
    reset_sequences: bool = False,
    allow_cascade: bool = False,
) -> list[str]:
    """In place of Django's, whose TRUNCATE makes a new file for every table and index of it,
    hundreds, where a test wrote a few rows.

    The same tables under the same lock: what a worker was about to write comes before it or after.
    Rows go unseen by the triggers that keep them, and by foreign keys, as everything goes.
    """
    names = [operations.quote_name(table) for table in tables]
    if not names:
        return []
    assert not allow_cascade, "tables that are not named are emptied by TRUNCATE alone"
    return [
        f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE",
        "SET LOCAL session_replication_role = replica",
        *(f"DELETE FROM {name}" for name in names),
        *([AS_THEY_WERE] if reset_sequences else []),
    ]
