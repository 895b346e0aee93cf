from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0033_search")]

    operations = [
        migrations.AddField(
            model_name="trainingjob",
            name="wish_sha256",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
    ]
