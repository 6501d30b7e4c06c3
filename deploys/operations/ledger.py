"""The operation for the environment's ledger of secrets, which is a file in the checkout."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, operation

from deploys.secrets import ledger


@operation()
def record_secret_ages(path: str, current: Mapping[str, str]) -> Generator[FunctionCommand, None, None]:
    """Record the day on which each secret came into use.

    + current: fingerprints of the secrets in use now, by name
    """
    known = ledger.read(Path(path))
    wanted = ledger.updated(known, current, ledger.today())
    names = ledger.changed(known, wanted)
    if not names:
        host.noop(f"{path} has every secret")
        return
    yield FunctionCommand(_record, (path, wanted, names), {})


def _record(path: str, wanted: ledger.Ledger, names: list[str]) -> None:
    ledger.write(Path(path), wanted)
    logger.info("%s: added or removed today: %s. Next: commit this file", path, ", ".join(names))
