"""Indexes that another index begins with, or that lead PostgreSQL astray; see Assignment."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0025_sensitive_batches"),
    ]

    operations = [
        migrations.AlterField(
            model_name="assignment",
            name="annotator",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="assignments",
                to="annotation.annotator",
            ),
        ),
        migrations.AlterField(
            model_name="assignment",
            name="comparison",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="assignments",
                to="annotation.comparison",
            ),
        ),
        migrations.AlterField(
            model_name="preference",
            name="annotator",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="preferences",
                to="annotation.annotator",
            ),
        ),
        migrations.AlterField(
            model_name="preference",
            name="comparison",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="preferences",
                to="annotation.comparison",
            ),
        ),
        migrations.AlterField(
            model_name="preference",
            name="project",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="preferences",
                to="annotation.project",
            ),
        ),
        migrations.AlterField(
            model_name="walkplace",
            name="annotator",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="places",
                to="annotation.annotator",
            ),
        ),
    ]
