"""An off-site repository in memory, which replaces the repository that restic opens on the operator's machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

from deploys.offsite import look, prune
from deploys.offsite.prune import Plan
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, REFUSED
from stackctl.backup import stored
from stackctl.backup.manifest import DUMP, NAME, File, Manifest
from stackctl.backup.stored import Snapshot, Stored
from stackctl.core.errors import RefusedError
from tests.support.manifests import NOON, made

SHA256 = "a" * 64
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def stored_as(told: Manifest, at: datetime | None = None, number: int = 0) -> Stored:
    """Store a backup in the storage, by default an hour after the backup's dump."""
    name = f"{told.sequence:032x}{number:032x}"
    path = f"/opt/backups/{told.id}"
    return Stored(Snapshot(name, told.at, told.id, path), told, at or told.time + HOUR)


def night(number: int, **more: Any) -> Manifest:
    return made(number, NOON + number * DAY, **({"files": {DUMP: File(1000, SHA256)}} | more))


def nightly(days: int) -> list[Stored]:
    return [stored_as(night(number)) for number in range(days)]


def plan(
    found: Sequence[Stored],
    *,
    floor: timedelta = timedelta(0),
    now: datetime | None = None,
    pruned: datetime | None = None,
) -> Plan:
    """Plan a prune. By default the prune runs on the day after the last backup and considers only the retention."""
    now = now or max((one.at for one in found), default=NOON) + DAY
    return prune.plan(stored.judged(found), now, pruned or now - DAY, floor)


def ids(group: Sequence[Stored]) -> set[str]:
    return {one.snapshot.id for one in group}


@dataclass
class InMemory:
    """A repository in memory with the interface of the real one."""

    backups: list[Stored] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    """Manifests of snapshots that are no backups, by snapshot ID."""
    there: bool = True
    damaged: set[str] = field(default_factory=set)
    """IDs of snapshots whose files are damaged."""
    bytes_there: int = 1000
    passwords: dict[str, str] = field(default_factory=lambda: {OPERATOR: "k1", DROPLET: "k2"})
    """restic's keys by their owner."""
    ran: list[list[str]] = field(default_factory=list)
    failing: str = ""
    url: str = "s3:https://s3.test/bucket"
    app: str = "bot"
    identity: str = "r1"
    now: datetime = NOON

    def __post_init__(self) -> None:
        self.now = max((one.at for one in self.backups), default=NOON) + DAY

    def exists(self, whose: str) -> bool:
        return self.there

    def opens(self, whose: str) -> bool:
        return whose in self.passwords

    def current_key(self, whose: str) -> str:
        return self.passwords[whose]

    def add_key(self, whose: str, opened_by: str) -> None:
        assert opened_by in self.passwords
        self.passwords[whose] = f"new of {whose}"

    def json(self, *arguments: str) -> Any:
        if arguments == ("cat", "config"):
            return {"id": self.identity}
        return [{"id": key} for key in self.passwords.values()]

    def describe(self, snapshot: str, path: str, most: int) -> File:
        self.ran.append(["describe", snapshot, path])
        return File(min(self.bytes_there, most + 1), "b" * 64 if snapshot in self.damaged else SHA256)

    def stored_at(self, snapshot: str) -> datetime:
        return next(one.at for one in self.backups if one.snapshot.id == snapshot)

    def restic(self, *arguments: str, **_: Any) -> str:
        self.ran.append(list(arguments))
        if arguments[0] == self.failing:
            raise RepositoryError("restic failed")
        match arguments:
            case ("init",):
                self.there, self.passwords = True, {OPERATOR: "k1"}
            case ("key", "remove", key):
                self.passwords = {whose: one for whose, one in self.passwords.items() if one != key}
            case ("snapshots", "--json", "--host", self.app):
                every = [(one.snapshot.id, one.snapshot.backup, one.snapshot.path) for one in self.backups]
                every += [(number, "20251123T000000.000Z", "/x") for number in self.others]
                return json.dumps([{"id": i, "time": "", "tags": [tag], "paths": [path]} for i, tag, path in every])
            case ("dump", number, path):
                assert path.endswith(NAME)
                found = [one.manifest for one in self.backups if one.snapshot.id == number]
                return found[0].to_json() if found else self.others[number]
            case ("forget", "--prune", *gone):
                self.backups = [one for one in self.backups if one.snapshot.id not in gone]
            case ("unlock",) | ("check", *_):
                pass
            case _:
                raise AssertionError(f"restic {arguments}")
        return ""

    @property
    def verbs(self) -> list[str]:
        return [arguments[0] for arguments in self.ran]

    @property
    def forgotten(self) -> list[str]:
        return [name for arguments in self.ran if arguments[0] == "forget" for name in arguments[2:]]


def pruned(there: InMemory, ledger: Path, *, sure: bool = True) -> int:
    with patch.object(look, "now", lambda: there.now), patch("os.fsync"):
        try:
            return prune.prune(cast(Repository, there), ledger, sure=sure)
        except RefusedError as error:
            print(error, file=sys.stderr)
            return error.code


def looked(there: InMemory, ledger: Path) -> list[str]:
    with patch.object(look, "now", lambda: there.now), patch("os.fsync"):
        code, lines = look.looked(cast(Repository, there), ledger)
    assert code in {0, 4}
    return lines


def pruned_before(there: InMemory, ledger: Path, ago: timedelta = 30 * DAY) -> InMemory:
    """Record in the ledger that a prune of the repository ended the time `ago` before now."""
    looked(there, ledger)
    look.save(ledger, replace(look.load(ledger, there.url), pruned=there.now - ago))
    there.ran.clear()
    return there


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    """Answer every question at the terminal. None means that there is no terminal."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)


QUARTER = 90
"""A number of nights, of which the first month is older than the floor."""


def a_person_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: InMemory, ledger: Path, says: str
) -> None:
    """Assert that YES=1 deletes nothing and is not offered, and that a person at a terminal may confirm the prune."""
    at_a_terminal(monkeypatch, None)
    assert pruned(there, ledger, sure=True) == REFUSED
    shown = capsys.readouterr()
    assert says in shown.out
    assert "YES=1" not in shown.err
    for answer, code in (("n", REFUSED), ("y", DONE)):
        at_a_terminal(monkeypatch, answer)
        assert pruned(there, ledger, sure=True) == code
        assert ("forget" in there.verbs) == (code == DONE)
