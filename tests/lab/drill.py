"""`make drill`: the lab's droplet is destroyed, and comes back from what the operator keeps and what lies off it.

What is kept is this checkout, the env file with restic's passwords, and the operator's SSH key. The new droplet is
a copy at first: the lab's Telegram tells whether it heard of it. Then every row is compared, and it goes live, of which
Telegram has to hear: or its silence before says nothing.
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
# Of random digits, so that neither PostgreSQL nor restic makes it small.
WRITE = """CREATE TABLE IF NOT EXISTS drill (id bigserial PRIMARY KEY, body text NOT NULL);
ALTER TABLE drill OWNER TO {owner};
INSERT INTO drill (body)
SELECT (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, {md5s}) m)
FROM generate_series(1, {rows}) n"""

KEY = "drill"
"""Of Redis."""
HEARD_OF_A_LIVE_ONE = {"setWebhook", "sendMessage"}
"""One from the droplet itself, one from its containers."""

# After the backup: what is lost.
WRITE_MORE = "INSERT INTO drill (body) SELECT 'after the backup' FROM generate_series(1, 3)"

Rows = dict[str, Counter[str]]
"""By table, a digest of each row, as often as it is there."""


@dataclass
class Clock:
    """How long each step took."""

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
    parser.add_argument("--mb", type=int, default=20, help="how much data there is to lose")
    megabytes = parser.parse_args().mb
    try:
        drill(megabytes)
    except LabError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1
    return 0


def drill(megabytes: int) -> None:
    demo.converged_and_released()
    if demo.status()["isolated"]:  # by a drill that did not come to its end
        demo.pyinfra("deploys/site.py", "--data", "isolated=false")
    clock = Clock()
    tag = demo.status()["release"]["tag"]
    with clock.step(f"write {megabytes} MB"):
        write(megabytes)
        demo.deliver_an_update()
    # A job that is still to be done when the backup is made: a copy that worked would do it.
    on_the_droplet("sudo docker stop toogoodtogo-worker-worker-1")
    sql(JOB)
    value = secrets.token_hex(8)
    redis(f"set {KEY} {value}")
    before = rows()
    with clock.step("back it up, prove it, send it off the droplet (make backup)"):
        demo.pyinfra("deploys/backup.py")
    backup = newest_offsite()
    sql(WRITE_MORE)
    since = _beyond(rows(), before)

    destroyed = f"destroy {demo.DROPLET}"
    with clock.step(destroyed):
        lab.destroy(by_name(demo.DROPLET))
        demo.post("/lab/forget", {})
    with clock.step("make a new, bare one"):
        lab.recreate(by_name(demo.DROPLET))
    with clock.step("converge it as a copy (make isolate)"):
        demo.pyinfra("deploys/site.py", "--data", "isolated=true")
    with clock.step("restore from off the droplet (make restore OFFSITE=yes)"):
        chosen = ["--data", f'id="{backup}"', "--data", f'yes="{backup}"', "--data", "offsite=true"]
        demo.pyinfra("deploys/restore.py", *chosen)
    with clock.step(f"release {tag} (make release)"):
        demo.release(tag)
    with clock.step("compare every row"):
        found, found_value = rows(), redis(f"get {KEY}")
    of_the_copy = demo.calls()
    with clock.step("go live (make live)"):
        demo.pyinfra("deploys/site.py", "--data", "isolated=false")
    with clock.step("deliver an update, and do the job that is left"):
        demo.deliver_an_update()
        wait_for_jobs()
    seen = Outcome(before, since, found, value, found_value, of_the_copy, demo.calls())
    print("\n".join(table(clock, destroyed, seen)))
    seen.judge()


@dataclass(frozen=True)
class Outcome:
    """What was seen of it."""

    before: Rows
    """At the backup."""
    since: Rows
    """Written after it."""
    found: Rows
    """Once restored."""
    key: str
    """Redis's, at the backup."""
    found_key: str
    of_the_copy: list[str]
    """What Telegram was asked by the copy."""
    in_all: list[str]
    """And once it was live."""

    @property
    def wrong(self) -> dict[str, int]:
        """By table, how many rows are not as they were at the backup; 0 of an empty table that is missing, or new."""
        names = sorted(self.before.keys() | self.found.keys())
        differing = [name for name in names if self.before.get(name) != self.found.get(name)]
        less, more = _beyond(self.before, self.found), _beyond(self.found, self.before)
        return {name: less.get(name, Counter()).total() + more.get(name, Counter()).total() for name in differing}

    @property
    def lost(self) -> dict[str, int]:
        """By table, how many rows that were written after the backup are gone."""
        gone = _beyond(self.since, _beyond(self.found, self.before))
        return {name: rows.total() for name, rows in gone.items() if rows}

    def judge(self) -> None:
        """LabError when something isn't as it has to be."""
        if self.wrong:
            raise LabError(f"rows differ from what was backed up: {self.wrong}")
        if self.found_key != self.key:
            raise LabError(f"Redis's {KEY} was {self.key!r} when it was backed up, and is {self.found_key!r}")
        if self.of_the_copy:
            raise LabError(f"the copy was to keep silent, and Telegram heard {', '.join(self.of_the_copy)}")
        if unheard := HEARD_OF_A_LIVE_ONE - {*self.in_all}:
            raise LabError(f"Telegram's silence says nothing: of the live one it heard no {', '.join(sorted(unheard))}")


def _beyond(rows: Rows, others: Rows) -> Rows:
    """What of these is not among the others."""
    return {name: some - others.get(name, Counter()) for name, some in rows.items()}


def table(clock: Clock, destroyed: str, seen: Outcome) -> list[str]:
    """What the operator is told."""
    written, lost = (
        sum(some.total() for some in seen.before.values()),
        [f"{rows} of {name}" for name, rows in seen.lost.items()],
    )
    return [
        *("", f"{'step':<64}{'seconds':>8}"),
        *(f"{what:<64}{seconds:>8.1f}" for what, seconds in clock.steps),
        *("", f"recovery, from the loss to the first update: {clock.since(destroyed):.0f} s"),
        f"rows as they were at the backup: {'not all' if seen.wrong else 'all'} {written} of {len(seen.before)} tables",
        f"lost, what was written after it: {', '.join(lost) or 'nothing'}",
        f"Redis's key as it was at the backup: {'yes' if seen.found_key == seen.key else 'no'}",
        f"Telegram heard of the copy: {', '.join(seen.of_the_copy) or 'nothing'}",
    ]


def write(megabytes: int) -> None:
    owner = LAB.settings.values.database_user
    left = megabytes * 1_000_000 // ROW_BYTES
    while left > 0:
        some = min(left, ROWS_A_STATEMENT)
        sql(WRITE.format(owner=owner, md5s=ROW_BYTES // 32, rows=some))
        left -= some


def rows() -> Rows:
    """What the live database has, whole."""
    digests = "SELECT md5(one::text) FROM {} one"
    return {table: Counter(sql(digests.format(table)).split()) for table in sql(TABLES).split()}


def sql(statement: str) -> str:
    """Asked of the droplet's PostgreSQL, as the superuser on its own socket."""
    return on_the_droplet(f"sudo {LAB.psql}", statement)


def redis(command: str) -> str:
    """Asked of the droplet's Redis."""
    return on_the_droplet(f"sudo {LAB.redis_cli(command)}").strip()


def on_the_droplet(command: str, stdin: str = "") -> str:
    argv = ["ssh", "-F", ".lab/ssh_config", demo.DROPLET, command]
    ran = subprocess.run(argv, cwd=CHECKOUT, input=stdin, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise LabError(f"{demo.DROPLET}: {command}: {ran.stderr.strip()}")
    return ran.stdout


def newest_offsite() -> str:
    """The id of the backup that was made last, and has gone off the droplet."""
    made: list[dict[str, Any]] = json.loads(on_the_droplet("sudo stackctl backups --json"))
    if not made or not made[-1]["offsite"]:
        raise LabError("the backup has not gone off the droplet: make offsite, then make site")
    return str(made[-1]["id"])


def wait_for_jobs() -> None:
    deadline = time.monotonic() + DONE_WITHIN_S
    while sql("SELECT count(*) FROM jobs WHERE finished_at IS NULL AND due_at <= now()").strip() != "0":
        if time.monotonic() > deadline:
            raise LabError("a job is left: sudo stackctl logs worker")
        time.sleep(0.5)


if __name__ == "__main__":
    host.check()
    sys.exit(main())
