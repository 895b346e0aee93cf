"""An answer or decision that comes from another ledger keeps its time: what the column holds stays
as it is, only who fills it changes, so no table is touched."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0031_wish_keys")]
    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name=model,
                    name="created_at",
                    field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
                )
                for model in ("preference", "decision")
            ]
        )
    ]
