"""Comparisons know how far the members of an ensemble part on them, and a strategy goes by that."""

from importlib import import_module
from typing import Any

from django.db import migrations, models

DUE_DAYS = import_module("annotation.migrations.0028_due_days")


def score_again(apps: Any, schema_editor: Any) -> None:
    """Let workers look again at what an ensemble scored: its members' part was not kept."""
    scores = apps.get_model("annotation", "CompletionScore").objects.exclude(spread=None)
    ensembles = list(scores.order_by().values_list("model_version", flat=True).distinct())
    comparisons = apps.get_model("annotation", "Comparison").objects
    comparisons.filter(scored_by__in=ensembles).update(scored_by=None)


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0029_judges"),
    ]

    operations = [
        # on the way back the copy has none either
        migrations.RunPython(migrations.RunPython.noop, DUE_DAYS.add_trigger),
        migrations.RemoveConstraint(
            model_name="batch",
            name="batch_strategy",
        ),
        migrations.RemoveConstraint(
            model_name="batch",
            name="batch_picked_by_model",
        ),
        migrations.RemoveConstraint(
            model_name="comparison",
            name="comparison_picked_by_model",
        ),
        migrations.RemoveIndex(
            model_name="comparison",
            name="comparison_to_score",
        ),
        migrations.AddField(
            model_name="comparison",
            name="disagreement",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="batch",
            name="strategy",
            field=models.CharField(
                choices=[
                    ("random", "by chance"),
                    ("fewest", "those with the fewest answers first"),
                    ("uncertain", "those whose scores lie closest, one in five by chance"),
                    ("disputed", "those an ensemble disagrees on most, one in five by chance"),
                ],
                default="random",
                max_length=9,
            ),
        ),
        migrations.AlterField(
            model_name="comparison",
            name="strategy",
            field=models.CharField(
                choices=[
                    ("random", "by chance"),
                    ("fewest", "those with the fewest answers first"),
                    ("uncertain", "those whose scores lie closest, one in five by chance"),
                    ("disputed", "those an ensemble disagrees on most, one in five by chance"),
                ],
                default="random",
                max_length=9,
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(
                    ("open_slots__gt", 0),
                    ("retired_at__isnull", True),
                    models.Q(("purpose", "production"), ("purpose", "evaluation"), _connector="OR"),
                    ("strategy", "disputed"),
                ),
                fields=["batch", "language", "sort_key"],
                name="comparison_disputed_by_chance",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(
                    ("open_slots__gt", 0),
                    ("retired_at__isnull", True),
                    models.Q(("purpose", "production"), ("purpose", "evaluation"), _connector="OR"),
                    ("disagreement__isnull", False),
                    ("strategy", "disputed"),
                ),
                fields=["batch", "language", "-disagreement"],
                name="comparison_disputed",
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(
                    ("open_slots__gt", 0),
                    ("retired_at__isnull", True),
                    models.Q(("strategy", "uncertain"), ("strategy", "disputed"), _connector="OR"),
                ),
                fields=["project", "scored_by"],
                name="comparison_to_score",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(("strategy__in", ["random", "fewest", "uncertain", "disputed"])),
                name="batch_strategy",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("strategy__in", ("uncertain", "disputed")), _negated=True),
                    ("purpose", "production"),
                    _connector="OR",
                ),
                name="batch_picked_by_model",
            ),
        ),
        migrations.AddConstraint(
            model_name="comparison",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("strategy__in", ("uncertain", "disputed")), _negated=True),
                    ("purpose", "production"),
                    _connector="OR",
                ),
                name="comparison_picked_by_model",
            ),
        ),
        migrations.RunPython(score_again, migrations.RunPython.noop),
        # SQLite copies the table of comparisons for the changes above, and the copy has no trigger
        migrations.RunPython(DUE_DAYS.add_trigger, migrations.RunPython.noop),
    ]
