"""`make drill` destroys the lab's droplet and rebuilds it from its off-site backup.

The operator keeps this checkout, the env file with restic's passwords, and the SSH key. The new droplet is isolated at
first, and must not call the lab's Telegram. The drill compares every row and then promotes the droplet. After the
promotion, the droplet must call Telegram. Otherwise, its earlier silence would prove nothing.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.lab import demo, host, lab
from tests.lab.host import LabError, say
from tests.lab.layout import CHECKOUT, by_name
from tests.support.environment import Environment

LAB = Environment("lab")
ROW_BYTES = 1024
ROWS_A_STATEMENT = 20_000
DONE_WITHIN_S = 60
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
JOB = """INSERT INTO jobs (kind, payload) VALUES ('notify', '{"chat": 7, "text": "Your bread is ready"}')"""
# The text is random digits, so that neither PostgreSQL nor restic can compress the text.
WRITE = """CREATE TABLE IF NOT EXISTS drill (id bigserial PRIMARY KEY, body text NOT NULL);
ALTER TABLE drill OWNER TO {owner};
INSERT INTO drill (body)
SELECT (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, {md5s}) m)
FROM generate_series(1, {rows}) n"""

KEY = "drill"
"""The key that the drill sets in Redis."""
CALLS_OF_A_LIVE_DROPLET = {"setWebhook", "sendMessage"}
"""The droplet itself calls setWebhook. The bot's containers call sendMessage."""

# The backup lacks these rows, so the rows are lost in the drill.
WRITE_MORE = "INSERT INTO drill (body) SELECT 'after the backup' FROM generate_series(1, 3)"

Rows = dict[str, Counter[str]]
"""For each table, the digests of its rows, and the number of rows with each digest."""


@dataclass
class Clock:
    """The duration of each step."""

    steps: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        say(what)
        began = time.monotonic()
        yield
        self.steps.append((what, time.monotonic() - began))

    def since(self, first: str) -> float:
        names = [what for what, _ in self.steps]
        return sum(seconds for _, seconds in self.steps[names.index(first) :])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.drill")
    parser.add_argument("--mb", type=int, default=20, help="how much data to write before the backup, in MB")
    megabytes = parser.parse_args().mb
    try:
        drill(megabytes)
    except LabError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True)
class BackedUp:
    """The data of the droplet that the drill destroys, and the droplet's backup."""

    id: str
    before: Rows
    """The rows at the time of the backup."""
    since: Rows
    """The rows that were written after the backup."""
    key: str
    """The value of the drill's key in Redis at the time of the backup."""


def drill(megabytes: int) -> None:
    """Destroy the lab's droplet, rebuild it from its off-site backup, and compare every row."""
    demo.converged_and_released()
    if demo.status()["isolated"]:  # an interrupted drill left the droplet isolated
        demo.pyinfra("deploys/site.py", "--data", "isolated=false")
    clock = Clock()
    tag = demo.status()["release"]["tag"]
    backup = write_and_back_up(clock, megabytes)
    destroyed = f"destroy {demo.DROPLET}"
    with clock.step(destroyed):
        lab.destroy(by_name(demo.DROPLET))
        demo.post("/lab/forget", {})
    rebuild(clock, backup.id, tag)
    with clock.step("compare every row"):
        found, found_key = rows(), redis(f"get {KEY}")
    while_isolated = demo.calls()
    with clock.step("promote (make promote)"):
        demo.pyinfra("deploys/site.py", "--data", "isolated=false")
    with clock.step("deliver an update and run the pending job"):
        demo.deliver_an_update()
        wait_for_jobs()
    seen = Outcome(backup.before, backup.since, found, backup.key, found_key, while_isolated, demo.calls())
    print("\n".join(table(clock, destroyed, seen)))
    seen.judge()


def write_and_back_up(clock: Clock, megabytes: int) -> BackedUp:
    """Write data, back up the data off-site, and write more rows, which the backup does not have."""
    with clock.step(f"write {megabytes} MB"):
        write(megabytes)
        demo.deliver_an_update()
    # This job is pending at the backup. The isolated droplet must have no worker, which would run the job.
    on_the_droplet("sudo docker stop toogoodtogo-worker-worker-1")
    sql(JOB)
    key = secrets.token_hex(8)
    redis(f"set {KEY} {key}")
    before = rows()
    with clock.step("back up, verify and upload off-site (make backup)"):
        demo.pyinfra("deploys/backup.py")
    backup = newest_offsite()
    sql(WRITE_MORE)
    return BackedUp(backup, before, _beyond(rows(), before), key)


def rebuild(clock: Clock, backup: str, tag: str) -> None:
    """Create an isolated droplet with the data of the off-site backup and the same release."""
    with clock.step("make a new, bare droplet"):
        lab.recreate(by_name(demo.DROPLET))
    with clock.step("converge it as an isolated droplet (make isolate)"):
        demo.pyinfra("deploys/site.py", "--data", "isolated=true")
    with clock.step("restore from off-site (make restore OFFSITE=yes)"):
        chosen = ["--data", f'id="{backup}"', "--data", f'yes="{backup}"', "--data", "offsite=true"]
        demo.pyinfra("deploys/restore.py", *chosen)
    with clock.step(f"release {tag} (make release)"):
        demo.release(tag)


@dataclass(frozen=True)
class Outcome:
    """The data before and after the drill, and the calls that Telegram received."""

    before: Rows
    """The rows at the time of the backup."""
    since: Rows
    """The rows that were written after the backup."""
    found: Rows
    """The restored rows."""
    key: str
    """The value of the drill's key in Redis at the time of the backup."""
    found_key: str
    while_isolated: list[str]
    """The calls made by the droplet while it was isolated."""
    in_all: list[str]
    """All calls that the droplet made, both isolated and promoted."""

    @property
    def wrong(self) -> dict[str, int]:
        """The number of differing rows, by table. If the number is 0, an empty table is missing or new."""
        names = sorted(self.before.keys() | self.found.keys())
        differing = [name for name in names if self.before.get(name) != self.found.get(name)]
        less, more = _beyond(self.before, self.found), _beyond(self.found, self.before)
        return {name: less.get(name, Counter()).total() + more.get(name, Counter()).total() for name in differing}

    @property
    def lost(self) -> dict[str, int]:
        """The number of rows that were written after the backup and are gone, by table."""
        gone = _beyond(self.since, _beyond(self.found, self.before))
        return {name: rows.total() for name, rows in gone.items() if rows}

    def judge(self) -> None:
        """Raise LabError if the data differs, the isolated droplet called Telegram, or the promoted droplet did not."""
        if self.wrong:
            raise LabError(f"The restored rows differ from the backup's rows: {self.wrong}")
        if self.found_key != self.key:
            raise LabError(f"Redis's key {KEY} was {self.key!r} at the backup and is now {self.found_key!r}")
        if self.while_isolated:
            raise LabError(f"The isolated droplet called Telegram: {', '.join(self.while_isolated)}")
        if unheard := CALLS_OF_A_LIVE_DROPLET - {*self.in_all}:
            raise LabError(
                f"The promoted droplet did not call Telegram's {', '.join(sorted(unheard))}, so the silence before"
                " does not prove the isolation"
            )


def _beyond(rows: Rows, others: Rows) -> Rows:
    """Return the rows of `rows` that `others` lacks."""
    return {name: some - others.get(name, Counter()) for name, some in rows.items()}


def table(clock: Clock, destroyed: str, seen: Outcome) -> list[str]:
    """Return the drill's report for the operator."""
    written, lost = (
        sum(some.total() for some in seen.before.values()),
        [f"{rows} of {name}" for name, rows in seen.lost.items()],
    )
    return [
        *("", f"{'step':<64}{'seconds':>8}"),
        *(f"{what:<64}{seconds:>8.1f}" for what, seconds in clock.steps),
        *("", f"recovery time, from the loss to the first update: {clock.since(destroyed):.0f} s"),
        f"rows equal to the backup: {'not all' if seen.wrong else 'all'} {written} in {len(seen.before)} tables",
        f"rows lost, written after the backup: {', '.join(lost) or 'none'}",
        f"Redis's key equal to the backup: {'yes' if seen.found_key == seen.key else 'no'}",
        f"calls to Telegram while isolated: {', '.join(seen.while_isolated) or 'none'}",
    ]


def write(megabytes: int) -> None:
    owner = LAB.settings.values.database_user
    left = megabytes * 1_000_000 // ROW_BYTES
    while left > 0:
        some = min(left, ROWS_A_STATEMENT)
        sql(WRITE.format(owner=owner, md5s=ROW_BYTES // 32, rows=some))
        left -= some


def rows() -> Rows:
    """Return all rows of the live database."""
    digests = "SELECT md5(one::text) FROM {} one"
    return {table: Counter(sql(digests.format(table)).split()) for table in sql(TABLES).split()}


def sql(statement: str) -> str:
    """Run SQL in the droplet's PostgreSQL as the superuser and return its output."""
    return on_the_droplet(f"sudo {LAB.psql}", statement)


def redis(command: str) -> str:
    """Run a command in the droplet's Redis and return its output."""
    return on_the_droplet(f"sudo {LAB.redis_cli(command)}").strip()


def on_the_droplet(command: str, stdin: str = "") -> str:
    argv = ["ssh", "-F", ".lab/ssh_config", demo.DROPLET, command]
    ran = subprocess.run(argv, cwd=CHECKOUT, input=stdin, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise LabError(f"{demo.DROPLET}: {command}: {ran.stderr.strip()}")
    return ran.stdout


def newest_offsite() -> str:
    """Return the ID of the newest backup. Raise LabError if the newest backup is not off-site."""
    made: list[dict[str, Any]] = json.loads(on_the_droplet("sudo stackctl list-backups --json"))
    if not made or not made[-1]["offsite"]:
        raise LabError("The newest backup is not off-site. Next: make offsite, then make site.")
    return str(made[-1]["id"])


def wait_for_jobs() -> None:
    deadline = time.monotonic() + DONE_WITHIN_S
    while sql("SELECT count(*) FROM jobs WHERE finished_at IS NULL AND due_at <= now()").strip() != "0":
        if time.monotonic() > deadline:
            raise LabError(f"A job is still pending after {DONE_WITHIN_S} s. Next: sudo stackctl logs worker.")
        time.sleep(0.5)


if __name__ == "__main__":
    host.check()
    sys.exit(main())
