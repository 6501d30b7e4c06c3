"""The upload fails in each possible way. The tests check the message, the leftovers and the next backup's upload.

The tests do not stop the storage, because other machines of the lab use it. Instead, the droplet's firewall blocks the
storage.
"""

from __future__ import annotations

import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from testinfra.host import Host

from deploys.components.offsite import access_file
from deploys.offsite import look, prune
from deploys.offsite.prune import DAILY, MONTHLY, WEEKLY, Plan
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from deploys.offsite.setup import made
from deploys.terminal.exit_codes import DONE
from stackctl.backup import stored
from stackctl.backup.manifest import DUMP
from stackctl.backup.offsite.repository import SLOWEST, TIMEOUT_S
from stackctl.backup.stored import Snapshot
from stackctl.services import s3
from tests.support.data import Database, backups, problems
from tests.support.environment import ROOT, Environment
from tests.support.lab_storage import on_disk, send

pytestmark = pytest.mark.group("data")

TOLD_WITHIN_S = 60
"""The seconds until the failure is reported, of which the backup itself takes most."""
AT_ONCE_S = 15
RESET = "-j REJECT --reject-with tcp-reset"


@pytest.fixture(scope="module")
def repository(lab: Environment) -> Repository:
    return Repository.of(lab.settings)


@contextmanager
def kept_from_the_storage(droplet: Host, repository: Repository, *, after: int = 0) -> Iterator[None]:
    """Reject the droplet's packets to the storage, after the first `after` bytes."""
    where = urlsplit(repository.url.removeprefix("s3:"))
    to = f"OUTPUT -p tcp -d {where.hostname} --dport {where.port}"
    rules = [f"{to} {RESET}", *([f"{to} -m quota --quota {after} -j ACCEPT"] if after else [])]
    for rule in rules:  # each rule is inserted at the top, so the last rule applies first
        droplet.check_output(f"iptables -I {rule}")
    try:
        yield
    finally:
        for rule in rules:
            droplet.check_output(f"iptables -D {rule}")


@contextmanager
def told_otherwise(droplet: Host, lab: Environment, **access: str) -> Iterator[None]:
    """Give stackctl different access values for the off-site repository.

    The values go through standard input, never through arguments.
    """
    path = str(lab.settings.paths.offsite)
    program = ROOT / "tests/system/faults/recovery/replace_file.py"
    before = access_file(lab.settings)
    written = lab.run_python(droplet, program, path, stdin=json.dumps(json.loads(before) | access).encode())
    assert written.returncode == 0
    try:
        yield
    finally:
        assert lab.run_python(droplet, program, path, stdin=before).returncode == 0


def there(droplet: Host) -> list[str]:
    """Return the IDs of the backups in the off-site repository."""
    return [one["id"] for one in json.loads(droplet.check_output("stackctl check-offsite --json"))["backups"]]


def unsent(droplet: Host) -> list[str]:
    return [one["id"] for one in backups(droplet) if one["verified"] and not one["offsite"]]


def test_while_the_storage_is_down_backups_are_made_and_sent_once_it_is_back(
    droplet: Host, repository: Repository
) -> None:
    with kept_from_the_storage(droplet, repository):
        began = time.monotonic()
        failed = droplet.run("stackctl backup")
        took = time.monotonic() - began
        assert any("the last backup failed" in line and "cannot be reached" in line for line in problems(droplet))
    assert failed.rc == 1
    assert (
        "the storage cannot be reached ([Errno 111] Connection refused). Next: wait until the storage answers, then"
        in failed.stdout
    )
    assert took < TOLD_WITHIN_S
    kept = unsent(droplet)
    assert kept, "the verified backup is not on the droplet"
    assert droplet.run("stackctl backup").rc == 0
    assert unsent(droplet) == []
    assert {*kept} <= {*there(droplet)}
    assert problems(droplet) == []


@pytest.mark.parametrize(
    ("access", "says"),
    [
        (
            {"key_secret": "another-secret-than-the-keys"},
            "refuses the droplet's key (403 SignatureDoesNotMatch). Next: correct",
        ),
        ({"key_id": "NOBODYSKEY"}, "refuses the droplet's key (403 InvalidAccessKeyId). Next: correct OFFSITE_KEY_ID"),
        ({"password": "another-password"}, "does not open with the droplet's password. Next: make offsite"),
        (
            {"repository": "/nothing-here"},
            "there is no such repository. Next: make offsite, or correct offsite_repository",
        ),
        ({"repository": "s3:https://10.77.0.2:9000/nobucket/bot"}, "there is no such bucket. Next: make offsite"),
    ],
    ids=["a wrong secret", "a wrong key", "a wrong password", "no repository", "no bucket"],
)
def test_wrong_off_site_settings_are_reported_at_once_with_the_remedy(
    droplet: Host, lab: Environment, repository: Repository, access: dict[str, str], says: str
) -> None:
    if access.get("repository", "").startswith("/"):
        access = {"repository": repository.url + access["repository"]}
    with told_otherwise(droplet, lab, **access):
        began = time.monotonic()
        refused = droplet.run("stackctl check-offsite")
        took = time.monotonic() - began
    assert refused.rc == 1
    assert says in refused.stderr
    assert took < AT_ONCE_S
    shown = [value for value in (*repository.secrets.values(), *access.values()) if value in refused.stderr]
    assert not [value for value in shown if not value.startswith("s3:")]
    assert droplet.run("stackctl check-offsite").rc == 0


def test_a_backup_with_a_wrong_key_is_a_failed_run_that_shows_no_secret(
    droplet: Host, lab: Environment, repository: Repository
) -> None:
    with told_otherwise(droplet, lab, key_secret="another-secret-than-the-keys"):
        failed = droplet.run("stackctl backup")
        assert any("refuses the droplet's key" in line for line in problems(droplet))
    assert failed.rc == 1
    told = failed.stdout + droplet.check_output(f"cat {lab.settings.paths.history}; journalctl --no-pager -n 200")
    assert not [value for value in (*repository.secrets.values(), "another-secret-than") if value in told]
    assert droplet.run("stackctl backup").rc == 0
    assert unsent(droplet) == []


def test_a_storage_that_fails_during_an_upload_leaves_no_partial_backup(
    droplet: Host, repository: Repository, database: Database, show: Callable[[str], None]
) -> None:
    database.ask(
        "CREATE TABLE ballast AS SELECT md5(random()::text) || md5(random()::text) || md5(random()::text) AS noise "
        "FROM generate_series(1, 600000)"
    )
    try:
        with kept_from_the_storage(droplet, repository, after=20_000_000):
            began = time.monotonic()
            failed = droplet.run("stackctl backup")
            took = time.monotonic() - began
        assert failed.rc == 1
        assert "restic backup timed out" in failed.stdout
        *_, kept = unsent(droplet)
        sent = {one["id"]: one for one in backups(droplet)}[kept]
        size = sum(file["bytes"] for file in sent["files"].values())
        assert size > 20_000_000, "the backup is too small, so the connection did not end during the upload"
        assert took < TOLD_WITHIN_S + TIMEOUT_S + size / SLOWEST
        show(
            f"The storage died after 20 of {size / 1e6:.0f} MB: told after {took:.0f} s: {failed.stdout.strip()[-300:]}"
        )
        assert kept not in there(droplet)
        assert droplet.run("stackctl backup").rc == 0
        assert kept in there(droplet)
    finally:
        database.ask("DROP TABLE ballast")
        # The first backup of less than half the size fails. The next backup is compared with the failed one and
        # succeeds.
        droplet.run("stackctl backup")
    # A lock of the stopped restic would make this check fail.
    repository.restic("check", "--read-data")


def test_the_newest_night_is_the_latest_after_the_droplet_was_put_back(droplet: Host, lab: Environment) -> None:
    """A provider's snapshot puts back the droplet, including its list of backups and the counter of backup numbers."""
    kept, counted = "/root/as-it-was", lab.settings.paths.backup_sequence
    droplet.check_output("stackctl backup")
    droplet.check_output(f"mkdir {kept} && cp -a /opt/backups {counted} {kept}/")
    try:
        for _ in range(2):
            droplet.check_output("stackctl backup")
        given_up = backups(droplet)[-1]
        droplet.check_output(f"rm -rf /opt/backups && cp -a {kept}/backups /opt/backups")
        droplet.check_output(f"cp -a {kept}/{counted.name} {counted}")
        droplet.check_output("stackctl backup")
        newest = backups(droplet)[-1]
        assert newest["id"] > given_up["id"]
        assert newest["sequence"] == given_up["sequence"] + 1
        planned = droplet.run("stackctl restore latest --from-offsite")
        assert f"backup {newest['id']} (asked)" in planned.stdout, planned.stdout + planned.stderr
    finally:
        droplet.check_output(f"rm -rf {kept}")
    assert problems(droplet) == []


# --- the permissions of the keys -------------------------------------------------------------------------------------


def test_the_droplet_s_key_destroys_nothing_and_the_operator_s_can(repository: Repository, lab: Environment) -> None:
    """An intruder on the droplet has the droplet's key and password, and can run any program."""
    keys = ("KEY_ID", "KEY_SECRET", "PASSWORD")
    as_droplet = {f"{OPERATOR}_{key}": repository.secrets[f"{DROPLET}_{key}"] for key in keys}
    apart = replace(repository, url=f"{repository.url}-tried")
    made(apart)
    broken_in = replace(apart, secrets={**apart.secrets, **as_droplet})
    apart.restic("backup", "--host", apart.app, str(ROOT / "README.md"))
    (snapshot,) = apart.json("snapshots")
    stored = on_disk(apart)
    before = contents(stored)

    broken_in.restic("cat", "config")  # control: the key can read
    for command in (["forget", "--prune", snapshot["id"]], ["key", "remove", apart.current_key(OPERATOR)]):
        with suppress(RepositoryError):  # restic reports an error only for some of the commands above
            broken_in.restic(*command)
    for method, name in (("DELETE", "config"), ("PUT", "config"), *(("DELETE", path) for path in before)):
        assert asked(broken_in, method, name) == 403
    assert {path: content for path, content in contents(stored).items() if path in before} == before

    apart.restic("forget", "--prune", snapshot["id"])  # control: the operator's key can delete
    assert apart.json("snapshots") == []
    assert asked(apart, "DELETE", "config") == 204
    assert not (stored / "config").exists()
    shutil.rmtree(stored)


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory with their content, except locks, which come and go."""
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("locks/")}


def asked(repository: Repository, method: str, name: str) -> int:
    """Send a request to the storage without restic, and return the answer's status."""
    url = s3.url_of(repository.url, name)
    key = s3.Key(repository.secrets[f"{OPERATOR}_KEY_ID"], repository.secrets[f"{OPERATOR}_KEY_SECRET"])
    headers = s3.signed(method, url, b"", key, datetime.now(UTC))
    trust = ssl.create_default_context(cafile=repository.authorities[0])
    try:
        with urlopen(Request(url, b"" if method == "PUT" else None, headers, method=method), context=trust) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        return error.code


# --- prune ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Year:
    """A repository with a backup every 25 days of a year and on each of the last ten days, pruned yesterday."""

    repository: Repository
    ledger: Path

    @property
    def plan(self) -> Plan:
        seen = look.look(self.repository, look.load(self.ledger, self.repository.url))
        return prune.plan(seen.found, seen.at, seen.known.pruned)

    def prune(self) -> int:
        return prune.prune(self.repository, self.ledger, sure=True)


@pytest.fixture(scope="module")
def a_year(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    apart = replace(repository, url=f"{repository.url}-year")
    made(apart)
    now = datetime.now(UTC)
    for number, days in enumerate((*range(360, 10, -25), *range(9, -1, -1))):
        send(apart, tmp_path_factory.mktemp("backups"), number, now - timedelta(days=days))
    ledger = tmp_path_factory.mktemp("ledger") / "backups.json"
    seen = look.look(apart, look.load(ledger, apart.url))
    look.save(ledger, replace(look.remembered(seen), pruned=now - timedelta(days=300)))
    yield Year(apart, ledger)
    shutil.rmtree(on_disk(apart))


def test_the_storage_s_dates_are_those_of_what_it_took(repository: Repository) -> None:
    """Send a snapshot with an old date. The storage gives the snapshot the date of the upload, with either key."""
    apart = replace(repository, url=f"{repository.url}-dated")
    made(apart)
    try:
        apart.restic("backup", "--host", apart.app, "--time", "2020-01-01 00:00:00", str(ROOT / "README.md"))
        (snapshot,) = apart.json("snapshots")
        assert snapshot["time"].startswith("2020-01-01")
        assert abs(apart.stored_at(snapshot["id"]) - datetime.now(UTC)) < timedelta(minutes=1)
    finally:
        shutil.rmtree(on_disk(apart))


def test_a_damaged_newest_backup_keeps_prune_from_dropping_any(a_year: Year) -> None:
    before = snapshots(a_year.repository)
    (proof,) = a_year.plan.proof
    pack, offset = where_stored(a_year.repository, proof.manifest.files[DUMP].sha256)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
    try:
        with pytest.raises(RepositoryError, match=f"{DUMP} of snapshot {proof.snapshot.id} can't be read"):
            a_year.prune()
    finally:
        pack.write_bytes(whole)
    assert snapshots(a_year.repository) == before


def test_prune_leaves_what_its_plan_says_and_a_repository_that_is_whole(
    a_year: Year, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = a_year.plan
    keep, drop = ({one.manifest.id for one in group} for group in (chosen.keep, chosen.drop))
    assert DAILY < len(keep) <= DAILY + WEEKLY + MONTHLY
    assert {*sorted(keep | drop)[-DAILY:]} <= keep
    assert a_year.prune() == DONE
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[2]: line.split()[0] for line in lines if line.startswith("  ")} == {
        **dict.fromkeys(keep, "keep"),
        **dict.fromkeys(drop, "DELETE"),
    }
    assert {one.backup for one in snapshots(a_year.repository)} == keep
    a_year.repository.restic("check", "--read-data")
    assert a_year.prune() == DONE
    assert {one.backup for one in snapshots(a_year.repository)} == keep


def snapshots(repository: Repository) -> list[Snapshot]:
    return stored.snapshots(repository.restic("snapshots", "--json"))


def where_stored(repository: Repository, blob: str) -> tuple[Path, int]:
    """Return the file that stores a blob, and the blob's offset. A small file is one blob, named by its SHA-256."""
    indexes = [json.loads(repository.restic("cat", "index", key)) for key in repository.restic("list", "index").split()]
    packs = [pack for index in indexes for pack in index["packs"]]
    [(pack, offset)] = [(pack["id"], one["offset"]) for pack in packs for one in pack["blobs"] if one["id"] == blob]
    return on_disk(repository) / "data" / pack[:2] / pack, int(offset)
