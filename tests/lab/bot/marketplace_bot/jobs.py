"""The table `jobs` as the worker uses it. An advisory lock on the worker's connection keeps other workers out.

The worker uses the same connection for the lock and for the jobs. A worker that loses the lock therefore cannot take or
end a job. If a worker is killed, the next worker takes the unfinished job first. Each job therefore runs at least once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from psycopg import AsyncConnection
from sqlalchemy.engine import URL

# The lock's number may be any, as long as every version of the bot uses the same one.
_WORKING = 7_046_029_254_386_353_132

_TAKE = """
WITH taken AS (
    UPDATE jobs SET attempts = attempts + 1
    WHERE id = (
        SELECT id FROM jobs
        WHERE finished_at IS NULL AND due_at <= now() AND kind = ANY(%(kinds)s)
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, kind, payload
), run AS (
    INSERT INTO job_runs (job_id, worker) SELECT id, %(worker)s FROM taken RETURNING id
)
SELECT run.id, taken.id, taken.kind, taken.payload FROM taken, run
"""

_END = """
WITH run AS (UPDATE job_runs SET finished_at = clock_timestamp() WHERE id = %(run)s)
UPDATE jobs SET finished_at = CASE WHEN %(done)s THEN clock_timestamp() END,
                due_at = now() + interval '1 second' * 2 ^ least(attempts, 8)
WHERE id = %(id)s
"""


class Job(NamedTuple):
    """A job that was taken. `run` is this attempt's number in `job_runs`."""

    run: int
    id: int
    kind: str
    payload: dict[str, Any]


class Jobs:
    """The queue. Once the connection is lost, every method raises psycopg.OperationalError. There is no reconnect."""

    def __init__(self, connection: AsyncConnection[Any], worker: str) -> None:
        self._connection = connection
        self._worker = worker

    @classmethod
    async def connect(cls, url: URL, worker: str) -> Self:
        """Return the queue of the worker with this name. Raise psycopg.OperationalError if the database can't be
        reached.
        """
        connection = await AsyncConnection.connect(
            # The parts of the URL are passed separately, because libpq would expect a different encoding of the
            # password in a URL.
            host=url.host,
            port=url.port or 5432,
            user=url.username,
            password=url.password,
            dbname=url.database,
            autocommit=True,
            connect_timeout=5,
            tcp_user_timeout=5000,  # milliseconds until a silent server counts as lost
            application_name="marketplace-bot worker",
            # If a worker's host vanishes, keepalives free the worker's lock within seconds instead of hours.
            options="-c statement_timeout=10s"
            " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2",
        )
        return cls(connection, worker)

    async def close(self) -> None:
        """Release the lock by closing the connection."""
        await self._connection.close()

    async def lock(self) -> bool:
        """Become the only worker. Return False if another worker runs."""
        cursor = await self._connection.execute("SELECT pg_try_advisory_lock(%s)", [_WORKING])
        return bool((await cursor.fetchone() or [False])[0])

    async def ping(self) -> None:
        """Raise if the connection, and so the lock, is lost."""
        await self._connection.execute("SELECT 1")

    async def take(self, kinds: Sequence[str]) -> Job | None:
        """Take the oldest job that is due. Leave a job of an unknown kind to a newer version."""
        cursor = await self._connection.execute(_TAKE, {"kinds": list(kinds), "worker": self._worker})
        row = await cursor.fetchone()
        return Job(*row) if row else None

    async def end(self, job: Job, *, done: bool) -> None:
        """Record the end of the job. If the attempt failed, the job is due again after a delay that grows to 256 s."""
        await self._connection.execute(_END, {"run": job.run, "id": job.id, "done": done})
