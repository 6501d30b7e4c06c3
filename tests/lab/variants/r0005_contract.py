"""Second step of renaming the table `seen_updates`.

Without the old name, 1.2.0 works, and earlier versions cannot run.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
kind = "contract"


def upgrade() -> None:
    """Replace the view with the table in one transaction."""
    op.execute("DROP VIEW updates")
    op.rename_table("seen_updates", "updates")
