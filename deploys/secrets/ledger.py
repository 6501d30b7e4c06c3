"""The ledger of an environment's secrets: how old each secret is, and whether two secrets are equal.

The ledger is a file in the checkout. The ledger contains no secret. For each secret, the ledger has a fingerprint,
which is keyed by FINGERPRINT_KEY, and the day since which the secret is in use. A converge records new secrets. `python
-m deploys.cli.ages inventories/prod.py` prints the ages. `make plan`, `make site` and `make status` print the ages at
the end, unless the command failed.
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
"""The only secret that staging and production share, so that fingerprints of both can be compared."""
OFFSITE = "OFFSITE_PASSWORD"
"""A secret that every env file has if the environment has off-site backups."""
OLDEST_DAYS = 90


@dataclass(frozen=True)
class Entry:
    """A secret in the ledger: its fingerprint, and the day since which the secret is in use."""

    fingerprint: str
    since: date


Ledger = Mapping[str, Entry]


def fingerprints(credentials: Credentials) -> dict[str, str]:
    """Return the fingerprint of every secret by name.

    Without FINGERPRINT_KEY, a fingerprint does not help to guess a secret.
    """
    key = credentials.fingerprint_key.encode()
    return {name: hmac.digest(key, value.encode(), "sha256")[:16].hex() for name, value in credentials.by_name.items()}


def check(path: Path, current: Mapping[str, str]) -> None:
    """Raise CredentialsError if two secrets are equal, in this environment or in two environments of this checkout."""
    faults = [
        f"{one} and {other} are the same. Next: give each its own value"
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
        return [
            f"{beside} was made with another {KEY}. Next: put the same {KEY} into both env files "
            "(docs/how-to/secrets.md)"
        ]
    return [
        f"{one} is the same as {other} in {beside}. Next: give each environment its own value"
        for one, fingerprint in current.items()
        for other, entry in theirs.items()
        if KEY not in (one, other) and entry.fingerprint == fingerprint
    ]


def updated(known: Ledger, current: Mapping[str, str], today: date) -> Ledger:
    """Return the updated ledger. New and changed secrets date from today, and entries without a secret are removed.

    After a change of FINGERPRINT_KEY, the fingerprints can't be compared, so the other secrets keep their age. A secret
    that seems too old does no harm. If an env file, such as CI's, lacks the operator's secrets, their entries stay in
    the ledger.
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
    """Return the names of the entries that differ between two ledgers, including removed entries."""
    return [name for name in {**known, **current} if known.get(name) != current.get(name)]


def today() -> date:
    """Return the date in UTC."""
    return datetime.now(UTC).date()


def read(path: Path) -> Ledger:
    """Read a ledger. Without a file, the ledger is empty. Raises CredentialsError if the file is malformed."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
        return {
            name: Entry(entry["fingerprint"], date.fromisoformat(entry["since"])) for name, entry in document.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CredentialsError(f"{path} is malformed. Next: git checkout {path}") from None


def write(path: Path, ledger: Ledger) -> None:
    """Write a ledger atomically."""
    document = {name: {"fingerprint": one.fingerprint, "since": one.since.isoformat()} for name, one in ledger.items()}
    durable.write(path, json.dumps(document, indent=2).encode() + b"\n", 0o644)


def ages(ledger: Ledger, environment: str, today: date) -> list[str]:
    """Return a line about the oldest secret, and a line for each secret that is due for a rotation."""
    days = {name: (today - entry.since).days for name, entry in ledger.items() if name != KEY}
    if not days:
        return ["The secrets have no known age yet. The next converge records them."]
    oldest = max(days, key=lambda name: days[name])
    return [
        f"{len(days)} secrets, the oldest {oldest}: {days[oldest]} days.",
        *(
            f"{name} is {age} days old, more than {OLDEST_DAYS}. Next: make rotate KEY={name} ENV={environment}"
            for name, age in days.items()
            if age > OLDEST_DAYS
        ),
    ]
