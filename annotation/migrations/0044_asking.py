"""The mix of new comparisons, and indexes of what workers made and of what no policy wrote."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0043_forgotten_outside")]

    operations = [
        migrations.AddField(
            model_name="project",
            name="asking",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(("selector", ""), _negated=True),
                fields=["project", "selector", "purpose", "id"],
                name="comparison_made_as",
            ),
        ),
        migrations.AddIndex(
            model_name="generation",
            index=models.Index(
                condition=models.Q(("origin", "policy"), _negated=True),
                fields=["completion"],
                name="generation_not_by_policy",
            ),
        ),
    ]
