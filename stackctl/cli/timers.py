"""The verbs that systemd's timers call: `certificate`, `upgrade`, `integrity`, `amcheck` and `reboot`."""

from collections.abc import Iterator
from contextlib import contextmanager

from stackctl.cli.call import Call
from stackctl.core import instance, lock
from stackctl.core.paths import Paths
from stackctl.core.printable import printable
from stackctl.host import certificate, upkeep
from stackctl.services.postgres import Postgres

CERTIFICATE_LOCK_TIMEOUT_S = 330
# An hour suffices even for a release with migrations, or for a backup with its verification. If a run takes longer, the
# upgrade is left to the next day.
UPGRADE_LOCK_TIMEOUT_S = 3600
REBOOT_LOCK_TIMEOUT_S = 1800
AMCHECK_LOCK_TIMEOUT_S = 3600


def certificate_now(call: Call) -> int:
    stack = call.stack
    declared = stack.config.certificate
    if not declared:
        return 0
    if call.arguments.renewed:
        certificate.serve(stack, declared)
        return 0
    if stack.is_copy:  # the domain probably leads to the original droplet, so every request would fail
        print(printable(instance.REMEDY), file=stack.log.out)
        return 0
    with lock.exclusive(call.paths.certificate_lock, call.holder, CERTIFICATE_LOCK_TIMEOUT_S):
        certificate.ensure(stack, declared)
    return 0


def upgrade(call: Call) -> int:
    stack = call.stack
    with _nothing_under_way(stack.paths, "the daily upgrade of Debian's packages", UPGRADE_LOCK_TIMEOUT_S):
        print(printable(upkeep.upgrade(stack.paths, stack.machine)), file=stack.log.out)
    return 0


def integrity(call: Call) -> int:
    upkeep.compare(call.stack.paths, call.machine)
    return 0


def amcheck(call: Call) -> int:
    stack = call.stack
    if not stack.config.data:
        return 0
    # The check of PostgreSQL's files may take hours. The lock keeps out backups, because a dump would end the check,
    # and restores, because a restore replaces the database that the check reads. The lock does not prevent a release. A
    # release may end the check, so that no migration waits for a table (Postgres.end_dumps).
    paths = stack.paths
    name = f"the weekly check of PostgreSQL's files (systemctl stop {paths.units.amcheck_service} ends the check)"
    alone = lock.exclusive(paths.backup_lock, name, AMCHECK_LOCK_TIMEOUT_S)
    upkeep.amcheck(paths, stack.machine, Postgres(stack.docker, paths, stack.config.data), alone)
    return 0


def reboot(call: Call) -> int:
    stack = call.stack
    with _nothing_under_way(stack.paths, "the reboot that an upgrade asks for", REBOOT_LOCK_TIMEOUT_S):
        upkeep.reboot(stack.machine)
    return 0


@contextmanager
def _nothing_under_way(paths: Paths, name: str, timeout: float) -> Iterator[None]:
    """Hold the backup lock and the site lock. While a backup is verified or sent, only the backup lock is held."""
    with lock.exclusive(paths.backup_lock, name, timeout), lock.hold(paths, name, timeout=timeout):
        yield
