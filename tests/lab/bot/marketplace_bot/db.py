"""Models of the database's tables, and connections. The migrations create the tables."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, DateTime, Text, delete, func
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Telegram repeats an update for at most a day. Rows that are kept for two days need little space, and let tests look at
# finished jobs.
REMEMBER = timedelta(days=2)


class Base(DeclarativeBase):
    """The base class of all tables."""


class Offer(Base):
    """An offer of food to pick up.

    `seller` is the chat that made the offer, and `buyer` is the chat that reserved the offer.
    """

    __tablename__ = "offers"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    price_cents: Mapped[int]
    seller: Mapped[int] = mapped_column(BigInteger)
    buyer: Mapped[int | None] = mapped_column(BigInteger)
    reserved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SeenUpdate(Base):
    """An update whose effects are committed. The transaction that causes the effects also inserts this row."""

    __tablename__ = "seen_updates"

    update_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True, server_default=func.now())


class Job(Base):
    """A job for the worker (jobs.py). The worker can take the job once the transaction that inserts it is committed."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def connect(url: URL) -> AsyncEngine:
    """Return a pool of at most ten connections.

    During a release, two bots run, which have at most twenty connections together.
    """
    return create_async_engine(
        url,
        pool_size=10,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,  # people's messages do not belong in the log, so errors must not show parameters
        connect_args={
            "connect_timeout": 5,
            "application_name": "marketplace-bot web",
            # A statement that waits for a lock must not outlast the grace period of a shutdown.
            "options": "-c statement_timeout=10s",
        },
    )


async def remember(session: AsyncSession, update_id: int) -> bool:
    """Record the update as seen. Return False if it was seen before. Wait for another transaction with
    the same update.
    """
    noted = insert(SeenUpdate).values(update_id=update_id).on_conflict_do_nothing().returning(SeenUpdate.update_id)
    return await session.scalar(noted) is not None


async def forget_what_is_old(session: AsyncSession) -> None:
    """Delete the updates that Telegram can't repeat any more, and the jobs that were finished long ago."""
    for old in (
        delete(SeenUpdate).where(SeenUpdate.seen_at < func.now() - REMEMBER),
        delete(Job).where(Job.finished_at < func.now() - REMEMBER),
    ):
        # The session holds none of the deleted rows, so SQLAlchemy need not fetch these rows for a comparison.
        await session.execute(old, execution_options={"synchronize_session": False})
