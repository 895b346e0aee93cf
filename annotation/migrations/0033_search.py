"""Search reads the words of comparisons in an index of each database's own; people tag them."""

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from annotation.markdown import plain
from annotation.search_words import grams_of

TABLE, INDEX, TOKENS = "annotation_searchtext", "annotation_fts", "annotation_tokens"
ROWS_AT_ONCE = 500
ADDED = f"INSERT INTO {INDEX}(rowid, grams) VALUES (new.comparison_id, new.grams);"
GONE = (
    f"INSERT INTO {INDEX}({INDEX}, rowid, grams) VALUES ('delete', old.comparison_id, old.grams);"
)
TRIGGERS = {"INSERT": ADDED, "DELETE": GONE, "UPDATE": GONE + ADDED}
"""Of SQLite, whose full text stands beside the table."""


def add_index(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        # Its cost keeps the planner from going through the rows and making each one's anew.
        schema_editor.execute(
            f"CREATE FUNCTION {TOKENS}(grams text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE "
            "STRICT PARALLEL SAFE COST 5000 AS "
            "$$ BEGIN RETURN array_to_tsvector(string_to_array(grams, ' ')); END $$",
            params=None,
        )
        schema_editor.execute(f"CREATE INDEX {INDEX} ON {TABLE} USING gin ({TOKENS}(grams))")
        return
    schema_editor.execute(
        f"CREATE VIRTUAL TABLE {INDEX} USING fts5(grams, content='{TABLE}', "
        "content_rowid='comparison_id', tokenize='unicode61')"
    )
    for act, done in TRIGGERS.items():
        schema_editor.execute(
            f"CREATE TRIGGER {INDEX}_{act.lower()} AFTER {act} ON {TABLE} BEGIN {done} END"
        )


def remove_index(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP INDEX {INDEX}")
        schema_editor.execute(f"DROP FUNCTION {TOKENS}(text)")
        return
    for act in TRIGGERS:
        schema_editor.execute(f"DROP TRIGGER {INDEX}_{act.lower()}")
    schema_editor.execute(f"DROP TABLE {INDEX}")


def index_what_is_there(apps: Any, schema_editor: Any) -> None:
    """Hidden repeats are not looked for."""
    search_text = apps.get_model("annotation", "SearchText")
    comparisons = apps.get_model("annotation", "Comparison").objects.filter(repeat_of=None)
    rows = comparisons.select_related("prompt").prefetch_related("entries__completion")
    last = 0
    while some := list(rows.filter(pk__gt=last).order_by("pk")[:ROWS_AT_ONCE]):
        search_text.objects.bulk_create(
            search_text(
                comparison=one,
                grams=grams_of(
                    [
                        *(plain(message["content"]) for message in one.prompt.messages),
                        *(entry.completion.text for entry in one.entries.all()),
                    ]
                ),
            )
            for one in some
        )
        last = some[-1].pk


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0032_times_kept"),
    ]

    operations = [
        migrations.CreateModel(
            name="SearchText",
            fields=[
                (
                    "comparison",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="search_text",
                        serialize=False,
                        to="annotation.comparison",
                    ),
                ),
                ("grams", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name="Tag",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=40)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tags",
                        to="annotation.project",
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Tagging",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "comparison",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="taggings",
                        to="annotation.comparison",
                    ),
                ),
                (
                    "tag",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="taggings",
                        to="annotation.tag",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="tag",
            name="comparisons",
            field=models.ManyToManyField(
                related_name="tags", through="annotation.Tagging", to="annotation.comparison"
            ),
        ),
        migrations.AddConstraint(
            model_name="tagging",
            constraint=models.UniqueConstraint(fields=("tag", "comparison"), name="tagging_once"),
        ),
        migrations.AddConstraint(
            model_name="tag",
            constraint=models.UniqueConstraint(fields=("project", "name"), name="tag_name"),
        ),
        migrations.AddConstraint(
            model_name="tag",
            constraint=models.CheckConstraint(
                condition=models.Q(("name", ""), _negated=True), name="tag_has_name"
            ),
        ),
        migrations.RunPython(add_index, remove_index),
        migrations.RunPython(index_what_is_there, migrations.RunPython.noop),
    ]
