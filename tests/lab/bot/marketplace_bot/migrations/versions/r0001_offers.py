"""Create the tables of offers and of updates whose effects are committed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
kind = "expand"


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "offers",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("price_cents", sa.Integer, sa.CheckConstraint("price_cents >= 0"), nullable=False),
        sa.Column("seller", sa.BigInteger, nullable=False),
        sa.Column("buyer", sa.BigInteger),
        sa.Column("reserved_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "seen_updates",
        sa.Column("update_id", sa.BigInteger, autoincrement=False, primary_key=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, index=True, server_default=sa.func.now()),
    )
