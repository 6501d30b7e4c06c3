"""A revision that changes the schema and then fails, so that the change must be rolled back."""

from alembic import op

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Add a column, and then add a second column with the same name, which fails."""
    op.execute("ALTER TABLE offers ADD COLUMN pickup_place text")
    op.execute("ALTER TABLE offers ADD COLUMN pickup_place text")
