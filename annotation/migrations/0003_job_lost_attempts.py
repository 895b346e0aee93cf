"""Count how often a job's worker fell silent, apart from attempts that ended in good order."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0002_append_only")]
    operations = [
        migrations.AddField(
            model_name="trainingjob",
            name="lost_attempts",
            field=models.PositiveSmallIntegerField(default=0),
        )
    ]
