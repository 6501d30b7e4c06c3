"""`make drill`: the lab's droplet is destroyed, and comes back from what the operator keeps and what lies off it.

What is kept is this checkout, the env file with restic's passwords, and the operator's SSH key. The new droplet is
a copy at first: the lab's Telegram tells whether it heard of it. Then every row is compared, and it goes live.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from deploys.places import group_data
from tests.lab import demo, host, lab
from tests.lab.host import LabError, say
from tests.lab.layout import CHECKOUT, by_name

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

# After the backup: what is lost.
WRITE_MORE = "INSERT INTO drill (body) SELECT 'after the backup' FROM generate_series(1, 3)"

Rows = dict[str, set[str]]
"""By table, a digest of each row."""


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
    before = rows()
    with clock.step("back it up, prove it, send it off the droplet (make backup)"):
        demo.pyinfra("deploys/backup.py")
    backup = newest_offsite()
    sql(WRITE_MORE)
    since = {table: found - before.get(table, set()) for table, found in rows().items()}

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
        found = rows()
    heard = calls()
    with clock.step("go live (make live)"):
        demo.pyinfra("deploys/site.py", "--data", "isolated=false")
    with clock.step("deliver an update, and do the job that is left"):
        demo.deliver_an_update()
        wait_for_jobs()
    tell(clock, destroyed, Outcome(before, since, found, heard))


@dataclass(frozen=True)
class Outcome:
    before: Rows
    """At the backup."""
    since: Rows
    """Written after it."""
    found: Rows
    """Once restored."""
    heard: list[str]
    """What Telegram was asked by the copy."""


def tell(clock: Clock, destroyed: str, seen: Outcome) -> None:
    """The table. LabError when something isn't as it has to be."""
    print(f"\n{'step':<64}{'seconds':>8}")
    for what, seconds in clock.steps:
        print(f"{what:<64}{seconds:>8.1f}")
    written = sum(map(len, seen.before.values()))
    wrong = {
        table: len(there ^ seen.found.get(table, set()))
        for table, there in seen.before.items()
        if there != seen.found.get(table)
    }
    lost = {table: len(new - seen.found.get(table, set())) for table, new in seen.since.items() if new}
    print(f"\nrecovery, from the loss to the first update: {clock.since(destroyed):.0f} s")
    print(
        f"rows as they were at the backup: {'all' if not wrong else 'not all'} {written} of {len(seen.before)} tables"
    )
    print(f"lost, what was written after it: {', '.join(f'{n} of {table}' for table, n in lost.items()) or 'nothing'}")
    print(f"Telegram heard of the copy: {', '.join(seen.heard) or 'nothing'}")
    if wrong:
        raise LabError(f"rows differ from what was backed up: {wrong}")
    if seen.heard:
        raise LabError("the copy was to keep silent")


def write(megabytes: int) -> None:
    owner = group_data("lab")["database_user"]
    left = megabytes * 1_000_000 // ROW_BYTES
    while left > 0:
        some = min(left, ROWS_A_STATEMENT)
        sql(WRITE.format(owner=owner, md5s=ROW_BYTES // 32, rows=some))
        left -= some


def rows() -> Rows:
    """What the live database has, whole."""
    digests = "SELECT md5(one::text) FROM {} one"
    return {table: set(sql(digests.format(table)).split()) for table in sql(TABLES).split()}


def sql(statement: str) -> str:
    """Asked of the droplet's PostgreSQL, as the superuser on its own socket."""
    values = group_data("lab")
    container = f"{values['app']}-data-postgres-1"
    psql = f"psql -qtAX -v ON_ERROR_STOP=1 -U postgres -d {values['database']}"
    return on_the_droplet(f"sudo docker exec -i {container} {psql}", statement)


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


def calls() -> list[str]:
    """What the lab's Telegram was asked by the droplet, its containers included."""
    address = str(by_name(demo.DROPLET).ipv4)
    told = requests.get(f"{demo.TELEGRAM}/lab/calls", timeout=10).json()["calls"]
    return [call["method"] for call in told if call["from"] == address]


if __name__ == "__main__":
    host.check()
    sys.exit(main())
