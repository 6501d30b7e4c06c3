"""The second step: the old name goes. 1.2.0 doesn't need it any more; whatever came before that can't serve now."""

from alembic import op

revision = "0005"
down_revision = "0004"
kind = "contract"


def upgrade() -> None:
    """Let the table take the view's place, at once for everybody."""
    op.execute("DROP VIEW updates")
    op.rename_table("seen_updates", "updates")
