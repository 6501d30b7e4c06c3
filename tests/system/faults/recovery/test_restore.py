"""An interrupted restore leaves the backup's data or the former data.

The same command finishes a killed restore. After a crash of the machine, the boot undoes or finishes the restore.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from stackctl.restore.restore import BESIDE, RESTORE
from tests.lab import machine
from tests.support.data import Database, backups, connected, leftovers, problems
from tests.support.environment import Environment, status
from tests.support.load import lab_target, load
from tests.support.under_way import DROPLET, UnderWay

pytestmark = pytest.mark.group("data")

KILLED, FAILED, REFUSED = 4, 1, 2
STEPS = [step.name for step in RESTORE]
CLOSED = STEPS[STEPS.index("close") :]
OFFERS = "SELECT md5(string_agg(one::text, '|' ORDER BY id)) FROM offers one"
DATABASES = "SELECT count(*) FROM pg_database"
REDIS_KEY = "restored"
WELL_WITHIN_S = 120


@dataclass(frozen=True)
class Then:
    """The data at the time of the backup."""

    id: str
    offers: str

    def restore(self, *more: str) -> UnderWay:
        return UnderWay(("restore", self.id, "--yes", self.id, *more))


@pytest.fixture(scope="module")
def then(lab: Environment) -> Then:
    droplet, database = connected(lab)
    if droplet.run("stackctl status").rc:
        droplet.check_output("stackctl release 1.0.0")
    database.ask(
        "INSERT INTO offers (title, price_cents, seller) SELECT 'Bread '||n, n, n FROM generate_series(1, 500) n"
    )
    lab.ask_redis(droplet, f"set {REDIS_KEY} then")
    droplet.check_output("stackctl backup")
    return Then(backups(droplet)[-1]["id"], database.ask(OFFERS))


@pytest.fixture(autouse=True)
def now(then: Then, lab: Environment, droplet: Host, database: Database) -> str:
    """Change, delete and insert rows after the backup. Return the table's new content."""
    database.ask("UPDATE offers SET price_cents = price_cents + 1 WHERE id % 3 = 0")
    database.ask("DELETE FROM offers WHERE id % 7 = 0")
    database.ask("INSERT INTO offers (title, price_cents, seller) VALUES ('Made since', 1, 1)")
    lab.ask_redis(droplet, f"set {REDIS_KEY} now")
    lab.ask_redis(droplet, "save")  # a killed Redis loses changes that it has not saved
    found = database.ask(OFFERS)
    assert found != then.offers
    return found


def assert_restored(lab: Environment, then: Then) -> None:
    droplet, database = connected(lab)
    assert (database.ask(OFFERS), lab.ask_redis(droplet, f"get {REDIS_KEY}")) == (then.offers, "then")
    assert database.ask(DATABASES) == "4", "the replaced database or a leftover is still there"
    assert (problems(droplet), leftovers(droplet)) == ([], "")
    assert answers(lab) == "401", "the bot did not answer the request"


def assert_no_problem(droplet: Host) -> None:
    """Wait for status without a problem. Shortly after a crash, Telegram may still report updates that wait."""
    deadline = time.monotonic() + WELL_WITHIN_S
    while found := problems(droplet):
        assert time.monotonic() < deadline, found
        time.sleep(1)


def answers(lab: Environment) -> str:
    """Return the status with which nginx and the bot answer a request on Telegram's path."""
    domain = lab.settings.values.domain
    return lab.ask_as_telegram(f"https://{domain}/webhook/telegram", "--request POST").split()[1]


def test_the_pre_restore_backup_can_be_restored_by_its_id(
    lab: Environment, droplet: Host, then: Then, now: str
) -> None:
    code, output = then.restore().end()
    assert code == 0, output
    assert_restored(lab, then)
    safety = next(one["id"] for one in reversed(backups(droplet)) if one["reason"] == "safety")
    droplet.check_output(f"stackctl restore {safety} --yes {safety}")
    assert connected(lab)[1].ask(OFFERS) == now


def test_a_restore_refuses_requests_only_while_the_databases_change_places(
    lab: Environment, then: Then, show: Callable[[str], None]
) -> None:
    with load(lab_target(lab), clients=8, rate=40.0) as running:
        time.sleep(2)
        asked = then.restore()
        code, output = asked.end()
        time.sleep(2)
    assert code == 0, output
    tally = running.tally
    assert {one.outcome for one in tally.lost} == {"503"}, tally.table()
    closed = max(one.ended for one in tally.lost) - min(one.began for one in tally.lost)
    whole = (asked.events()[-1]["ms"] or 0) / 1000
    show(f"a restore of {whole:.1f} s turned Telegram away for {closed:.1f} s\n{tally.table()}")
    assert closed < 60
    droplet, _ = connected(lab)
    assert (problems(droplet), leftovers(droplet)) == ([], "")


@pytest.mark.parametrize("step", STEPS)
def test_a_restore_killed_at_any_step_is_finished_by_the_same_command(  # noqa: PLR0917
    lab: Environment, droplet: Host, database: Database, then: Then, now: str, step: str
) -> None:
    asked = then.restore()
    asked.reach(step)
    asked.kill()
    code, output = asked.end()
    assert (code, "the run ended without a result" in output) == (KILLED, True), output
    there = database.ask(OFFERS)
    assert there in {then.offers, now}
    if not {"swap", *CLOSED[2:]} & {event["step"] for event in asked.events()}:
        assert there == now, "data changed before the swap"
    if step in CLOSED and step != CLOSED[0]:
        assert f"Next: sudo stackctl restore {then.id}" in " ".join(problems(droplet))
    code, output = then.restore().end()
    assert code == 0, output
    assert_restored(lab, then)


def test_another_backup_s_restore_undoes_an_interrupted_one_first(
    droplet: Host, database: Database, then: Then, now: str
) -> None:
    asked = then.restore()
    asked.reach("rdb")  # in this step, the databases have already been swapped
    asked.kill()
    asked.end()
    safety = next(one["id"] for one in reversed(backups(droplet)) if one["reason"] == "safety")
    shown = droplet.check_output(f"stackctl restore {safety} --yes {safety}")
    assert f"the interrupted restore of {then.id} is undone first" in shown
    assert database.ask(OFFERS) == now
    assert (problems(droplet), leftovers(droplet)) == ([], "")


@pytest.mark.parametrize("step", STEPS[STEPS.index("load") :])
def test_after_a_crash_of_the_machine_at_any_step_the_site_comes_back_by_itself(
    lab: Environment, then: Then, now: str, step: str
) -> None:
    """The boot undoes or finishes the restore. Nobody types a command before the site works again."""
    asked = then.restore()
    asked.reach(step)
    machine.crash(DROPLET)
    asked.end()
    droplet, database = connected(lab)
    droplet.check_output("systemctl is-system-running --wait")
    found = database.ask(OFFERS), lab.ask_redis(droplet, f"get {REDIS_KEY}")
    assert found in {(then.offers, "then"), (now, "now")}, "the data is a mix of former and restored data"
    # The step may have ended before the crash. Only the steps `swap` and `rdb` change which data is found.
    if step not in {"swap", "rdb"}:
        assert found == ((then.offers, "then") if step in CLOSED[3:] else (now, "now"))
    assert database.ask(DATABASES) == "4", "the replaced database or a leftover is still there"
    assert droplet.run("ls /var/lib/toogoodtogo/restoring.json /var/lib/toogoodtogo/maintenance").stdout == ""
    assert_no_problem(droplet)
    assert leftovers(droplet) == ""
    assert answers(lab) == "401", "the bot did not answer the request"
    told = status(droplet)["settled_restore"]
    if step in {"swap", "rdb", "start", "health"}:
        assert told["message"].startswith(f"the restore of {then.id} was interrupted: ")
    if told and found == (now, "now"):
        assert told["message"].endswith(f"Next: sudo stackctl restore {then.id}")
    code, output = then.restore().end()
    assert code == 0, output
    assert_restored(lab, then)
    assert status(droplet)["settled_restore"] is None


@pytest.mark.parametrize("step", ["load", "migrate", "safety", "close", "swap", "rdb"])
def test_stopping_its_unit_undoes_it(  # noqa: PLR0917
    lab: Environment, droplet: Host, database: Database, then: Then, now: str, step: str
) -> None:
    asked = then.restore()
    asked.reach(step)
    droplet.check_output("systemctl stop toogoodtogo-release")
    code, output = asked.end()
    assert (code, "interrupted" in output.splitlines()[-1]) == (FAILED, True), output
    assert (database.ask(OFFERS), lab.ask_redis(droplet, f"get {REDIS_KEY}")) == (now, "now")
    assert (database.ask(DATABASES), problems(droplet), leftovers(droplet)) == ("4", [], "")
    assert answers(lab) == "401"


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("postgres.dump", "truncate --size=-1", "postgres.dump has [0-9]+ bytes, but the manifest says [0-9]+"),
        (
            "postgres.dump",
            r"printf '\001' | dd conv=notrunc bs=1 seek=100 status=none of=",
            r"postgres.dump was changed since it was written \(its SHA-256 differs\)",
        ),
        ("redis.rdb", "rm", "redis.rdb is missing"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_touched(  # noqa: PLR0917
    droplet: Host, database: Database, then: Then, now: str, file: str, damage: str, said: str
) -> None:
    path = f"/opt/backups/{then.id}/{file}"
    droplet.check_output(f"cp --archive {path} /root/{file}")
    try:
        droplet.check_output(f"{damage}{path}" if damage.endswith("=") else f"{damage} {path}")
        code, output = then.restore().end()
        assert code == REFUSED, output
        assert re.search(said, output.splitlines()[-1]), output
        assert database.ask(OFFERS) == now
    finally:
        droplet.check_output(f"mv /root/{file} {path}")


def test_a_wrong_answer_changes_nothing(droplet: Host, database: Database, then: Then, now: str) -> None:
    shown = droplet.run(f"stackctl restore {then.id}")
    assert (shown.rc, f"--yes {then.id}" in shown.stderr) == (REFUSED, True)
    assert "rows in " in shown.stdout
    assert "public.offers: " in shown.stdout
    assert droplet.run(f"stackctl restore {then.id} --yes 20200101T000000.000Z").rc == REFUSED
    assert database.ask(OFFERS) == now


# the runbook's ways to get a part of the data back


@pytest.fixture
def beside(droplet: Host, database: Database, then: Then) -> Iterator[str]:
    """Restore the backup into a separate database beside the live one."""
    droplet.check_output(f"stackctl restore {then.id} --to-database lost")
    yield "lost"
    database.ask("DROP DATABASE lost", "postgres")


@pytest.mark.parametrize("step", [step.name for step in BESIDE])
def test_beside_killed_at_any_step_the_same_again_finishes_it(
    database: Database, then: Then, now: str, step: str
) -> None:
    asked = UnderWay(("restore", then.id, "--to-database", "lost"))
    asked.reach(step)
    asked.kill()
    asked.end()
    try:
        if database.ask("SELECT 1 FROM pg_database WHERE datname = 'lost'") != "1":
            code, output = UnderWay(("restore", then.id, "--to-database", "lost")).end()
            assert code == 0, output
        assert (database.ask(OFFERS, "lost"), database.ask(OFFERS)) == (then.offers, now)
    finally:
        database.ask("DROP DATABASE lost", "postgres")
    assert database.ask(DATABASES) == "4"


def test_a_lost_row_comes_back(droplet: Host, database: Database, beside: str) -> None:
    wanted = database.ask("SELECT one FROM offers one WHERE id % 7 = 0 ORDER BY id LIMIT 1", beside)
    assert wanted not in database.ask("SELECT one FROM offers one")
    rows = f"{database.psql(beside)} -c 'COPY (SELECT * FROM offers WHERE id % 7 = 0) TO STDOUT'"  # noqa: S608
    droplet.check_output(f"{rows} | {database.psql()} -c 'COPY offers FROM STDIN'")
    assert wanted in database.ask("SELECT one FROM offers one")


def test_a_lost_table_comes_back(droplet: Host, database: Database, then: Then, beside: str) -> None:
    database.ask("DROP TABLE offers")
    dump = f"docker exec {database.container} pg_dump -U {database.login} -d {beside} --table=offers"
    droplet.check_output(f"{dump} | {database.psql()}")
    assert database.ask(OFFERS) == then.offers
    owner = database.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'offers'")
    assert owner == database.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'jobs'")
