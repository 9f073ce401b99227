import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS citext")
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("email", sa.Text, nullable=False, unique=True),
    )
    op.execute("ALTER TABLE users ALTER COLUMN email TYPE citext")
    op.create_table("settings", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.JSON))
    op.execute("SELECT tenantry.meter('users', 'users')")
