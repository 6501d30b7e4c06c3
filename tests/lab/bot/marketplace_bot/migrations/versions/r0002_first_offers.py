"""Insert three offers, so that the first /offers of a demonstration isn't empty."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
kind = "expand"

OFFERS = sa.table(
    "offers", sa.column("title", sa.Text), sa.column("price_cents", sa.Integer), sa.column("seller", sa.BigInteger)
)


def upgrade() -> None:
    """Insert the offers with seller 0, which is the bot itself."""
    titles = {"Bakery bag": 390, "Vegetable box": 450, "Sushi of the day": 690}
    op.bulk_insert(OFFERS, [{"title": title, "price_cents": cents, "seller": 0} for title, cents in titles.items()])
