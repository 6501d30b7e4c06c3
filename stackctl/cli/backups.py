"""The verbs `backup`, `list-backups` and `check-offsite`."""

import argparse
import json
from contextlib import suppress
from dataclasses import asdict

from stackctl.app.stack import Stack
from stackctl.backup import create, listing
from stackctl.backup.offsite import access, download, repository
from stackctl.cli.call import Call
from stackctl.core import config, instance, lock
from stackctl.core.errors import RefusedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.printable import printable

NIGHTLY_LOCK_TIMEOUT_S = 3600


def remembered(_arguments: argparse.Namespace, paths: Paths, _machine: Machine) -> bool:
    """Return whether the history records the call.

    A copy makes no backup. A recorded refusal would be the last backup that failed, even after the promotion.
    """
    with suppress(RefusedError):
        return not instance.is_copy(config.load(paths).instance_id, paths)
    return True


def backup(call: Call) -> int:
    """Make a backup.

    On a copy, the timer's call does nothing. A failed unit would outlive the promotion.
    """
    stack, nightly = call.stack, call.arguments.nightly
    if stack.is_copy:
        if not nightly:
            raise instance.refusal()
        print(printable(instance.REMEDY), file=stack.log.out)
        return 0
    timeout = NIGHTLY_LOCK_TIMEOUT_S if nightly else lock.LOCK_TIMEOUT_S
    site = lock.hold(call.paths, call.holder, call.arguments.lock_id, timeout)
    with lock.exclusive(call.paths.backup_lock, call.holder, timeout):
        create.backup(stack, "nightly" if nightly else "asked", site)
    return 0


def list_backups(call: Call) -> int:
    paths = call.stack.paths
    said = json.dumps(listing.documents(paths), indent=2) if call.arguments.json else listing.text(paths)
    print(said, file=call.log.out)
    return 0


def check_offsite(call: Call) -> int:
    _offsite(call.stack, as_json=call.arguments.json)
    return 0


def _offsite(stack: Stack, *, as_json: bool) -> None:
    found, there = repository.look(stack), download.everything(stack)
    url = access.load(stack.paths).repository
    if as_json:
        powers = asdict(found) if found else None
        shown = [asdict(one.manifest) | {"doubts": one.doubts} for one in there]
        document = {"repository": url, "powers": powers, "backups": shown}
        print(json.dumps(document, indent=2), file=stack.log.out)
        return
    lines = [url, f"{found or 'this droplet is isolated, so it only reads the repository'}"]
    lines = [*map(printable, lines), *(listing.stored_table(there) or ["there is no backup yet"])]
    print("\n".join(lines), file=stack.log.out)
