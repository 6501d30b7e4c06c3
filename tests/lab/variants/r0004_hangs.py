"""A revision that hangs."""

from alembic import op

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Wait for a day."""
    op.execute("SELECT pg_sleep(86400)")
