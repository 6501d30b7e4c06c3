"""The place's ledger of secrets, kept on this side: what is new in it since the last converge."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, operation

from deploys.secrets import ledger


@operation()
def record_secret_ages(path: str, current: Mapping[str, str]) -> Generator[FunctionCommand, None, None]:
    """Records since when each secret is in use.

    + current: the fingerprints of what is in use now, by name
    """
    known = ledger.read(Path(path))
    wanted = ledger.updated(known, current, ledger.today())
    names = ledger.changed(known, wanted)
    if not names:
        host.noop(f"{path} knows every secret")
        return
    yield FunctionCommand(_record, (path, wanted, names), {})


def _record(path: str, wanted: ledger.Ledger, names: list[str]) -> None:
    ledger.write(Path(path), wanted)
    logger.info("%s: new since today, or gone: %s; commit it", path, ", ".join(names))
