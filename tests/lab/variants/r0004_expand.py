"""First step of renaming the table `seen_updates`.

Both names work afterwards, so the previous release keeps working.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Create a view of the table with the new name. PostgreSQL passes writes on to the table."""
    op.execute("CREATE VIEW updates AS SELECT * FROM seen_updates")
