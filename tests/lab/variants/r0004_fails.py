"""A revision that fails after a change, which has to be undone with it."""

from alembic import op

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Add a column, and then another one with the same name."""
    op.execute("ALTER TABLE offers ADD COLUMN pickup_place text")
    op.execute("ALTER TABLE offers ADD COLUMN pickup_place text")
