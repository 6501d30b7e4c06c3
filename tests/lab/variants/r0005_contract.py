"""Rename seen_updates, second of two steps. Without the old name, 1.2.0 works, and earlier versions cannot run."""

from alembic import op

revision = "0005"
down_revision = "0004"
kind = "contract"


def upgrade() -> None:
    """Replace the view by the table, for all clients at once."""
    op.execute("DROP VIEW updates")
    op.rename_table("seen_updates", "updates")
