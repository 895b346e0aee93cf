from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0036_curve_pieces")]

    operations = [
        migrations.AddField(
            model_name="review",
            name="sent_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
