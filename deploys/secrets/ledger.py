"""How old each secret of a place is, and that no two are the same: a file in the checkout, without any secret in it.

It holds a fingerprint of each, keyed by FINGERPRINT_KEY, and the day since which it is in use. A converge records what
is new. `python -m deploys.cli.ages inventories/prod.py` tells the ages; `make plan`, `site` and `status` end with that
where nothing is wrong.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from deploys.secrets.rules import OPERATOR_RULES, Credentials, CredentialsError
from stackctl.core import durable

KEY = "FINGERPRINT_KEY"
"""Alone the same in staging and production, so that their fingerprints can be compared."""
OFFSITE = "OFFSITE_PASSWORD"
"""In every env file of a place whose backups go off the droplet."""
OLDEST_DAYS = 90


@dataclass(frozen=True)
class Entry:
    fingerprint: str
    since: date


Ledger = Mapping[str, Entry]


def fingerprints(credentials: Credentials) -> dict[str, str]:
    """Of every secret by its name in the env file. The key makes guessing a weak one from a fingerprint impossible."""
    key = credentials.fingerprint_key.encode()
    return {name: hmac.digest(key, value.encode(), "sha256")[:16].hex() for name, value in credentials.by_name.items()}


def check(path: Path, current: Mapping[str, str]) -> None:
    """Every secret is the only one of its value: in its own place, and in those whose ledgers lie beside this one."""
    faults = [
        f"{one} and {other} are the same: give each its own"
        for position, one in enumerate(current)
        for other in list(current)[position + 1 :]
        if current[one] == current[other]
    ]
    for beside in sorted(path.parent.glob("*.secrets.json")):
        if beside.name != path.name:
            faults += _faults_beside(beside, current)
    if faults:
        raise CredentialsError("; ".join(faults))


def _faults_beside(beside: Path, current: Mapping[str, str]) -> list[str]:
    theirs = read(beside)
    if KEY in theirs and theirs[KEY].fingerprint != current[KEY]:
        return [f"{beside} was made with another {KEY}: put the same into both env files (docs/how-to/secrets.md)"]
    return [
        f"{one} is the same as {other} of {beside}: give each place its own"
        for one, fingerprint in current.items()
        for other, entry in theirs.items()
        if KEY not in (one, other) and entry.fingerprint == fingerprint
    ]


def updated(known: Ledger, current: Mapping[str, str], today: date) -> Ledger:
    """What is known, with what is new or has changed since today, and without what is gone.

    After a change of the key nothing can be told of the others, so they keep their age: too old rather than too young.
    The operator's own may be left out of an env file, as CI's: that ends no age.
    """
    comparable = KEY in known and known[KEY].fingerprint == current[KEY]
    left_out = [name for name in OPERATOR_RULES if name not in current and OFFSITE in current]
    return {name: known[name] for name in left_out if name in known} | {
        name: Entry(fingerprint, _since(known.get(name), fingerprint, today, comparable=comparable or name == KEY))
        for name, fingerprint in current.items()
    }


def _since(former: Entry | None, fingerprint: str, today: date, *, comparable: bool) -> date:
    if former and (former.fingerprint == fingerprint or not comparable):
        return former.since
    return today


def changed(known: Ledger, current: Ledger) -> list[str]:
    """The names that differ, gone ones too."""
    return [name for name in {**known, **current} if known.get(name) != current.get(name)]


def today() -> date:
    return datetime.now(UTC).date()


def read(path: Path) -> Ledger:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
        return {
            name: Entry(entry["fingerprint"], date.fromisoformat(entry["since"])) for name, entry in document.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CredentialsError(f"{path} is malformed: take it from git again (git checkout {path})") from None


def write(path: Path, ledger: Ledger) -> None:
    document = {name: {"fingerprint": one.fingerprint, "since": one.since.isoformat()} for name, one in ledger.items()}
    durable.write(path, json.dumps(document, indent=2).encode() + b"\n", 0o644)


def ages(ledger: Ledger, place: str, today: date) -> list[str]:
    """What an operator is told: a line on the oldest, and one for each that is due."""
    days = {name: (today - entry.since).days for name, entry in ledger.items() if name != KEY}
    if not days:
        return ["No secret's age is known yet: the next converge records them."]
    oldest = max(days, key=lambda name: days[name])
    return [
        f"{len(days)} secrets, the oldest {oldest}: {days[oldest]} days.",
        *(
            f"{name} is {age} days old, more than {OLDEST_DAYS}: make rotate KEY={name} ENV={place}"
            for name, age in days.items()
            if age > OLDEST_DAYS
        ),
    ]
