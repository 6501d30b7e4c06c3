"""An intruder on the droplet sends forged backups to the off-site storage.

The intruder uses the droplet's append-only key. No forgery displaces a real backup. As the control, each attack would
succeed if stackctl trusted the dates in restic and in the manifests, which the sender chooses.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploys.offsite import look, prune
from deploys.offsite.look import looked
from deploys.offsite.prune import DAILY, MONTHLY, WEEKLY, Plan
from deploys.offsite.restic import Repository
from deploys.offsite.setup import made
from deploys.terminal.exit_codes import DONE
from stackctl.backup import retention
from stackctl.backup.manifest import DUMP, GLOBALS, STATE
from stackctl.backup.stored import Stored
from stackctl.core.errors import RefusedError
from tests.support.environment import ROOT, Environment
from tests.support.lab_storage import document, on_disk, send

pytestmark = pytest.mark.group("data")

DAY = timedelta(days=1)
LAST_PRUNE = 100 * DAY
"""The time since the last prune. That prune kept every backup that still exists, even if the backup is old by now."""
FORGED = {DUMP: "no dump at all " * 1000, GLOBALS: "DROP ROLE postgres;\n", STATE: "{}"}
Send = Callable[..., list[str]]


@pytest.fixture(scope="module")
def repository(lab: Environment) -> Repository:
    return Repository.of(lab.settings)


@pytest.fixture(scope="module", autouse=True)
def _alone(lab: Environment, droplet: Host) -> Iterator[None]:
    """Stop the backup timer, so that no nightly backup runs in between."""
    timer = lab.settings.paths.units.backup_timer
    droplet.check_output(f"systemctl stop {timer}")
    yield
    droplet.check_output(f"systemctl start {timer}")


@pytest.fixture
def forge(lab: Environment, droplet: Host, repository: Repository) -> Iterator[Send]:
    """Return a function that sends snapshots as root on the droplet. At the end of the test, delete these snapshots."""
    sent: list[str] = []

    def send_them(snapshots: Sequence[dict[str, Any]], url: str = "") -> list[str]:
        told = {
            "access": str(lab.settings.paths.offsite),
            "app": repository.app,
            "repository": url,
            "snapshots": snapshots,
        }
        program = ROOT / "tests/system/attack/send_snapshots.py"
        ran = lab.run_python(droplet, program, stdin=json.dumps(told).encode())
        assert ran.returncode == 0, ran.stderr.decode()
        names = list(json.loads(ran.stdout))
        sent.extend([] if url else names)
        return names

    yield send_them
    if sent:
        repository.restic("forget", "--prune", *sent)


# --- S3: a second snapshot under the ID of a good backup -------------------------------------------------------------


@dataclass(frozen=True)
class Shadowed:
    droplet: Host
    id: str
    real: str
    """The ID of the good backup's snapshot."""

    @property
    def here(self) -> str:
        return f"/opt/backups/{self.id}"

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.droplet.check_output(f"cat {self.here}/manifest.json")))

    def restore(self, *options: str) -> tuple[int, str]:
        """Restore into a database beside the live one, so that nothing live changes."""
        ran = self.droplet.run(f"stackctl restore {' '.join(options)} --from-offsite --to-database beside")
        return ran.rc, ran.stdout + ran.stderr

    def forget_restored(self, lab: Environment) -> None:
        lab.ask_postgres(self.droplet, "DROP DATABASE IF EXISTS beside")


@pytest.fixture
def shadowed(lab: Environment, droplet: Host) -> Iterator[Shadowed]:
    made_now = droplet.run("stackctl backup")
    assert made_now.rc == 0, made_now.stdout
    newest = json.loads(droplet.check_output("stackctl list-backups --json"))[-1]
    found = Shadowed(droplet, newest["id"], newest["offsite"]["snapshot"])
    yield found
    found.forget_restored(lab)


@pytest.mark.parametrize("time", [None, "2020-01-01 00:00:00", "2035-01-01 00:00:00"])
def test_another_one_under_the_id_of_a_good_backup_is_never_taken_silently(
    lab: Environment, repository: Repository, shadowed: Shadowed, forge: Send, time: str | None
) -> None:
    droplet, told = shadowed.droplet, shadowed.manifest | {"redis": None, "offsite": None}
    before = droplet.check_output(f"sha256sum {shadowed.here}/*")
    (forged,) = forge([{"manifest": told, "files": FORGED, "time": time}])

    # Control: sorted by time, the forgery is the first or the last snapshot in restic's listing.
    listed = repository.json("snapshots", "--tag", shadowed.id)
    by_time = sorted(listed, key=lambda one: str(one["time"]))
    assert {one["id"] for one in listed} == {shadowed.real, forged}
    assert forged in {by_time[0]["id"], by_time[-1]["id"]}

    # The restore uses the intact backup on the droplet and keeps it.
    code, shown = shadowed.restore(shadowed.id)
    assert code == 0, shown
    assert droplet.check_output(f"sha256sum {shadowed.here}/*") == before
    shadowed.forget_restored(lab)
    code, shown = shadowed.restore(shadowed.id, "--snapshot", forged[:12])
    assert (code, "is intact and differs from snapshot" in shown) == (2, True), shown

    droplet.check_output(f"mv {shadowed.here} /root/kept-{shadowed.id}")
    try:
        today = f"stored {datetime.now(UTC):%Y-%m-%d}"
        code, shown = shadowed.restore(shadowed.id)
        assert (code, "is ambiguous" in shown) == (2, True), shown
        for snapshot in (shadowed.real, forged):
            assert f"(snapshot {snapshot[:8]}, {today}" in shown, "the message does not show the storage's date"
        code, shown = shadowed.restore("latest")
        assert (code, "it is in doubt which backup is the latest" in shown) == (2, True), shown
        listing = droplet.check_output("stackctl check-offsite")
        assert listing.count(f"{shadowed.id} (snapshot") == 2, listing
        # The restore uses the snapshot that a person chose.
        code, shown = shadowed.restore(shadowed.id, "--snapshot", shadowed.real[:12])
        assert code == 0, shown
        assert int(lab.ask_postgres(droplet, "SELECT count(*) FROM pg_database WHERE datname = 'beside'")) == 1
    finally:
        droplet.check_output(f"rm -rf {shadowed.here} && mv /root/kept-{shadowed.id} {shadowed.here}")


def test_a_copy_is_no_ambiguity_and_damage_in_it_is_found(
    repository: Repository, shadowed: Shadowed, forge: Send, lab: Environment
) -> None:
    """The damaged copy has the manifest of the good backup, but other files."""
    droplet = shadowed.droplet
    told = shadowed.manifest
    (copy,) = forge([{"manifest": told, "files": FORGED, "as_told": True}])
    droplet.check_output(f"mv {shadowed.here} /root/kept-{shadowed.id}")
    try:
        code, shown = shadowed.restore(shadowed.id)
        assert code == 0, shown
        here = droplet.check_output(f"sha256sum {shadowed.here}/{DUMP}").split()[0]
        assert here == told["files"][DUMP]["sha256"]
    finally:
        droplet.check_output(f"rm -rf {shadowed.here} && mv /root/kept-{shadowed.id} {shadowed.here}")
    assert copy in {one["id"] for one in repository.json("snapshots", "--tag", shadowed.id)}


# --- S4: forgeries that try to make prune delete real backups --------------------------------------------------------


@dataclass(frozen=True)
class Year:
    """A second repository, with a backup from every fifteenth day and an earlier prune."""

    repository: Repository
    ledger: Path
    now: datetime

    @property
    def found(self) -> Sequence[Stored]:
        return look.look(self.repository, look.load(self.ledger, self.repository.url)).found

    def plan(self, found: Sequence[Stored]) -> Plan:
        return prune.plan(found, self.now, self.now - LAST_PRUNE)

    @property
    def snapshots(self) -> set[str]:
        return {one["id"] for one in self.repository.json("snapshots")}


@pytest.fixture
def year(repository: Repository, tmp_path: Path) -> Iterator[Year]:
    apart = replace(repository, url=f"{repository.url}-{secrets.token_hex(4)}")
    made(apart)
    now = datetime.now(UTC)
    for number, days in enumerate(range(150, -1, -15)):
        send(apart, tmp_path, number, now - days * DAY - timedelta(hours=2))
    ledger = tmp_path / "backups.json"
    looked(apart, ledger)
    look.save(ledger, replace(look.load(ledger, apart.url), pruned=now - LAST_PRUNE))
    yield Year(apart, ledger, now)
    shutil.rmtree(on_disk(apart))


def forgeries(now: datetime, dates: Sequence[datetime], first: int) -> list[dict[str, Any]]:
    named = [(f"{at:%Y%m%dT%H%M%S}.666Z", at) for at in dates]
    return [
        {"manifest": document(name, first + n, at), "files": FORGED, "time": f"{at:%Y-%m-%d %H:%M:%S}"}
        for n, (name, at) in enumerate(named)
    ]


@pytest.mark.parametrize("how", ["dates in 2027", "dates of long ago", "dates of today"])
def test_seven_forgeries_have_nothing_dropped(
    year: Year, forge: Send, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    later = year.now.year + 1
    dates = {
        "dates in 2027": [datetime(later, month, 1, tzinfo=UTC) for month in range(1, 8)],
        "dates of long ago": [year.now - 27 * n * DAY for n in range(7, 0, -1)],
        "dates of today": [year.now - timedelta(minutes=n) for n in range(1, 8)],
    }[how]
    first = 100000 if how == "dates in 2027" else 11
    found_before = year.found
    before, real = year.plan(found_before), {one.snapshot.id for one in found_before}
    forged = {*forge(forgeries(year.now, dates, first), year.repository.url)}
    assert len(forged) == 7
    found = year.found
    after = year.plan(found)
    assert {one.snapshot.id for one in after.drop} == {one.snapshot.id for one in before.drop}
    assert {one.snapshot.id for one in after.keep} >= forged
    doubted = {one.snapshot.id for one in after.keep if one.doubts}
    assert doubted == (forged if how != "dates of today" else set())

    # Control: if only the manifests counted, as in earlier versions, the forgeries would displace real backups.
    kept = retention.choose([one.manifest for one in found], DAILY, WEEKLY, MONTHLY)
    lost = {one.snapshot.id for one in found if one.manifest.id not in kept} & real
    assert lost - {one.snapshot.id for one in before.drop}, "the control shows nothing"

    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert prune.prune(year.repository, year.ledger, sure=True) == DONE
    assert year.snapshots == (real | forged) - {one.snapshot.id for one in before.drop}
    shown = capsys.readouterr().out
    assert all(f"(snapshot {name[:8]}, stored {year.now:%Y-%m-%d}" in shown for name in doubted)


def test_more_than_a_period_s_worth_needs_a_person(
    year: Year, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """YES=1 does not replace the person. The ledger says that the last prune left almost nothing to delete."""
    looked_at = look.load(year.ledger, year.repository.url)
    look.save(year.ledger, replace(looked_at, pruned=year.now - DAY))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    before = year.snapshots
    with pytest.raises(RefusedError, match="cannot ask for confirmation"):
        prune.prune(year.repository, year.ledger, sure=True)
    assert year.snapshots == before
    assert "were older than 60 days at the last prune" in capsys.readouterr().out


def test_what_the_operator_s_side_saw_is_compared(year: Year, tmp_path: Path) -> None:
    """The operator's side reports an old snapshot that is gone, and a new snapshot with an old date."""
    gone = sorted(year.snapshots)[0]
    (on_disk(year.repository) / "snapshots" / gone).unlink()
    send(year.repository, tmp_path, 11, year.now - 31 * DAY)
    code, lines = looked(year.repository, year.ledger)
    shown = "\n".join(lines)
    assert code == 4
    assert f"(snapshot {gone[:8]}, stored" in shown
    assert "is gone, and make prune did not drop it" in shown
    assert "which did not see it" in shown
