from django.contrib.postgres.operations import CITextExtension
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [("auth", "0001_initial")]
    operations = [
        CITextExtension(),
        migrations.CreateModel(
            "User",
            [("id", models.BigAutoField(primary_key=True)), ("email", models.TextField(unique=True))],
            {"db_table": "users"},
        ),
        migrations.CreateModel(
            "Setting",
            [("key", models.TextField(primary_key=True)), ("value", models.JSONField())],
            {"db_table": "settings"},
        ),
        migrations.RunSQL(
            "ALTER TABLE users ALTER COLUMN email TYPE citext; SELECT tenantry.meter('users', 'users')",
            migrations.RunSQL.noop,
        ),
    ]
