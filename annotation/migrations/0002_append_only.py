"""Audit entries and promotions are append only in the database too, not only in the model.

Updates are refused on both databases. Deletes are refused on PostgreSQL; SQLite has no TRUNCATE, so
there the test runner's flush is a DELETE and only the model refuses.
"""

from typing import Any

from django.db import migrations

TABLES = ("annotation_auditentry", "annotation_promotion")


def add_triggers(apps: Any, schema_editor: Any) -> None:
    postgres = schema_editor.connection.vendor == "postgresql"
    if postgres:
        schema_editor.execute(
            "CREATE FUNCTION concord_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append only', TG_TABLE_NAME; END $$",
            params=None,
        )
    for table in TABLES:
        schema_editor.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION concord_append_only()"
            if postgres
            else f"CREATE TRIGGER {table}_append_only BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append only'); END"
        )


def remove_triggers(apps: Any, schema_editor: Any) -> None:
    postgres = schema_editor.connection.vendor == "postgresql"
    for table in TABLES:
        on_table = f" ON {table}" if postgres else ""
        schema_editor.execute(f"DROP TRIGGER {table}_append_only{on_table}")
    if postgres:
        schema_editor.execute("DROP FUNCTION concord_append_only()")


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_ledger")]
    operations = [migrations.RunPython(add_triggers, remove_triggers)]
