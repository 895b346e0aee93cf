"""A guideline's text per language, the entries below it, and who read which version."""

import django.db.models.deletion
from django.db import migrations, models


def language_of(text):
    """A text in which every third sign that is no blank is Han is taken for Chinese."""
    signs = [sign for sign in text if not sign.isspace()]
    han = sum("\u4e00" <= sign <= "\u9fff" for sign in signs)
    return "zh-hans" if 3 * han > len(signs) else "en"


def to_texts(apps, _editor):
    for guideline in apps.get_model("annotation", "Guideline").objects.all():
        guideline.texts = {language_of(guideline.text): guideline.text}
        guideline.save(update_fields=["texts"])


def to_text(apps, _editor):
    for guideline in apps.get_model("annotation", "Guideline").objects.all():
        guideline.text = "\n\n---\n\n".join(guideline.texts[one] for one in sorted(guideline.texts))
        guideline.save(update_fields=["text"])


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0008_live_collection"),
    ]

    operations = [
        migrations.AddField(
            model_name="guideline",
            name="texts",
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name="guideline",
            name="faq",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AlterField(
            model_name="guideline",
            name="text",
            field=models.TextField(default=""),
        ),
        migrations.RunPython(to_texts, to_text),
        migrations.RemoveField(model_name="guideline", name="text"),
        migrations.CreateModel(
            name="GuidelineReading",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("read_at", models.DateTimeField(auto_now_add=True)),
                (
                    "annotator",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="readings",
                        to="annotation.annotator",
                    ),
                ),
                (
                    "guideline",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="readings",
                        to="annotation.guideline",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("annotator", "guideline"), name="guideline_read_once"
                    )
                ],
            },
        ),
    ]
