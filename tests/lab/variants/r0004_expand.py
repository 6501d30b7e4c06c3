"""seen_updates gets a better name, in two steps. The first: both names work, so the release before serves on."""

from alembic import op

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Make the new name a view of the table; PostgreSQL passes on what is written to it."""
    op.execute("CREATE VIEW updates AS SELECT * FROM seen_updates")
