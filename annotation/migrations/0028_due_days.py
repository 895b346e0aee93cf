"""Comparisons know when their batch is due: within a priority the queue goes by that."""

from importlib import import_module
from typing import Any

from django.db import migrations, models

LANES = import_module("annotation.migrations.0011_places_in_lanes")
OPENED = f"{LANES.OPENED} OR NEW.due_day <> OLD.due_day"


def fill_due_days(apps: Any, schema_editor: Any) -> None:
    """Give comparisons the due date that their batch has."""
    comparisons = apps.get_model("annotation", "Comparison").objects
    for batch in apps.get_model("annotation", "Batch").objects.exclude(due_on=None):
        comparisons.filter(batch=batch).update(due_day=batch.due_on.toordinal())


def add_trigger(apps: Any, schema_editor: Any) -> None:
    """Keep Comparison.opened_at, also where the due date changes. A later migration that makes
    SQLite copy the table loses the trigger and has to call this again;
    tests/annotation/test_lanes.py notices."""
    LANES.remove_trigger(apps, schema_editor)
    LANES.add_trigger(apps, schema_editor, opened=OPENED)


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0027_sensitive_wishes"),
    ]

    operations = [
        # the way back ends here, with the trigger as it was
        migrations.RunPython(migrations.RunPython.noop, LANES.add_trigger),
        migrations.RemoveConstraint(
            model_name="walkplace",
            name="walk_place_once",
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_open_queue",
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_opened",
        ),
        migrations.AddField(
            model_name="comparison",
            name="due_day",
            field=models.IntegerField(default=3652059),
        ),
        migrations.AddField(
            model_name="walkplace",
            name="due_day",
            field=models.IntegerField(default=3652059),
        ),
        migrations.RunPython(fill_due_days, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(
                    ("open_slots__gt", 0),
                    ("retired_at__isnull", True),
                    models.Q(("purpose", "production"), ("purpose", "evaluation"), _connector="OR"),
                ),
                fields=["project", "-priority", "due_day", "language", "skill", "sort_key"],
                name="comparison_open_queue",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(
                    ("open_slots__gt", 0),
                    ("retired_at__isnull", True),
                    models.Q(("purpose", "production"), ("purpose", "evaluation"), _connector="OR"),
                ),
                fields=["project", "priority", "due_day", "language", "skill", "opened_at"],
                name="comparison_opened",
            ),
        ),
        migrations.AddConstraint(
            model_name="walkplace",
            constraint=models.UniqueConstraint(
                fields=("annotator", "priority", "due_day", "language", "skill"),
                name="walk_place_once",
            ),
        ),
        migrations.RunPython(add_trigger, LANES.remove_trigger),
    ]
