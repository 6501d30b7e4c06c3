"""Tasks that timers start: Debian's daily upgrade, checks of Debian's and PostgreSQL's files, and a due reboot.

A file records the failure of a task until the task succeeds, because systemd forgets a unit's failure at a reboot.
"""

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from stackctl.core import durable
from stackctl.core.errors import FailedError, PersonNeededError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.services.postgres import Postgres

UPGRADE = ("/usr/lib/apt/apt.systemd.daily", "install")
UPGRADE_TIMEOUT = 86400
# `-l` checks libraries and programs only, because Debian's own hook reports a new kernel.
OUTDATED = ("needrestart", "-b", "-l")
OUTDATED_TIMEOUT = 600
COMPARE = ("debsums", "--changed")
COMPARE_TIMEOUT = 6 * 3600
AMCHECK_TIMEOUT = 6 * 3600
# pg_amcheck exits with this code if there is damage, and with 1 if the check could not finish.
DAMAGED = 2
# One weekly check may fail without a problem, because another run was in progress, or because a release ended the
# check.
AMCHECK_GRACE = timedelta(days=15)
# One nightly upgrade may fail because of the mirror, so a problem is reported only after the next night's upgrade.
UPGRADE_GRACE = timedelta(hours=26)


def upgrade(paths: Paths, machine: Machine) -> str:
    """Run the daily upgrade and describe the result. Ignore signals, so that the upgrade is never cut off halfway."""
    machine.ignore_signals()
    began = machine.now()
    ran = machine.run(UPGRADE, timeout=UPGRADE_TIMEOUT)
    # Debian's program exits with 0 even if the upgrade failed, but only a successful upgrade touches the stamp file.
    if not ran.code and _day_of(paths.upgrade_stamp) >= began.astimezone().date():
        paths.upgrade_failure.unlink(missing_ok=True)
        outdated = _outdated(machine)
        if outdated:
            _ask_for_a_reboot(paths, outdated)
            return f"the daily upgrade is installed, but takes effect for {', '.join(outdated)} only after a reboot"
        return "the daily upgrade is installed"
    if not paths.upgrade_failure.exists():
        durable.write(paths.upgrade_failure, began.isoformat(timespec="seconds").encode() + b"\n")
    if ran.code:
        raise FailedError(f"the daily upgrade failed: {ran.reason}", next_step="see /var/log/unattended-upgrades")
    return "nothing could be upgraded. Next: see /var/log/unattended-upgrades"


def compare(paths: Paths, machine: Machine) -> None:
    """Check that nobody changed the files of Debian's packages. Configuration files are compared by `make plan`."""
    ran = machine.run(COMPARE, timeout=COMPARE_TIMEOUT)
    if not ran.code:
        paths.integrity_failure.unlink(missing_ok=True)
        return
    found = [line for line in f"{ran.stdout}\n{ran.stderr}".splitlines() if line] or [ran.reason]
    durable.write(paths.integrity_failure, "\n".join([*found, ""]).encode())
    raise PersonNeededError(f"files of Debian's packages have changed since they were installed: {', '.join(found)}")


def amcheck(paths: Paths, machine: Machine, postgres: Postgres, alone: AbstractContextManager[None]) -> None:
    """Check PostgreSQL's tables and indexes row by row. The check runs under the lock `alone`."""
    if not paths.amcheck_looked.exists():
        _looked(paths, machine)
    with alone:
        ran = postgres.check(AMCHECK_TIMEOUT)
    if ran.code not in (0, DAMAGED):
        again = f"fix the cause, then sudo systemctl start {paths.units.amcheck_service}"
        raise FailedError(f"pg_amcheck did not finish: {ran.reason}", next_step=again)
    _looked(paths, machine)
    if not ran.code:
        paths.amcheck_failure.unlink(missing_ok=True)
        return
    durable.write(paths.amcheck_failure, f"{ran.stdout}{ran.stderr}".encode())
    raise PersonNeededError(
        f"pg_amcheck found damage: {ran.reason}",
        next_step=f"sudo cat {paths.amcheck_failure}, then see docs/how-to/runbook.md",
    )


def _looked(paths: Paths, machine: Machine) -> None:
    durable.write(paths.amcheck_looked, machine.now().isoformat(timespec="seconds").encode() + b"\n")


def reboot(machine: Machine) -> None:
    """Ask systemd for a reboot. In response, systemd stops all units in order, and also stops this program."""
    asked = machine.run(["systemctl", "reboot"])
    if asked.code:
        raise FailedError(f"cannot reboot: {asked.reason}")


def problems(paths: Paths, machine: Machine, *, weekly: bool) -> list[str]:
    """Return the problems. `weekly` says whether the weekly check of PostgreSQL's files runs here."""
    lines = []
    if paths.integrity_failure.exists():
        lines.append(
            "files of Debian's packages have changed since they were installed. "
            f"Next: sudo cat {paths.integrity_failure}"
        )
    if paths.amcheck_failure.exists():
        lines.append(
            f"PostgreSQL's files are damaged. Next: sudo cat {paths.amcheck_failure}, then see docs/how-to/runbook.md"
        )
    if weekly and paths.amcheck_looked.exists():
        looked = datetime.fromisoformat(paths.amcheck_looked.read_text().strip())
        if abs(machine.now() - looked) > AMCHECK_GRACE:
            lines.append(
                f"no check of PostgreSQL's files has finished since {looked:%Y-%m-%d}. Next: sudo journalctl -u "
                f"{paths.units.amcheck_service}, then sudo systemctl start {paths.units.amcheck_service}"
            )
    if paths.upgrade_failure.exists():
        since = datetime.fromisoformat(paths.upgrade_failure.read_text().strip())
        if machine.now() - since > UPGRADE_GRACE:
            lines.append(
                f"Debian's upgrades have failed since {since:%Y-%m-%d}. Next: see /var/log/unattended-upgrades"
            )
    return lines


def _outdated(machine: Machine) -> list[str]:
    """Return the services that still use a library or a program from before the upgrade."""
    ran = machine.run(OUTDATED, timeout=OUTDATED_TIMEOUT)
    if ran.code:
        raise FailedError(
            f"the upgrade is installed, but needrestart cannot say which programs still use old libraries: {ran.reason}"
        )
    word = "NEEDRESTART-SVC: "
    return [line.removeprefix(word) for line in ran.stdout.splitlines() if line.startswith(word)]


def _ask_for_a_reboot(paths: Paths, names: list[str]) -> None:
    """Request a reboot in the same way as Debian's packages, through files in /run.

    The reboot itself removes these files.
    """
    asking = paths.reboot_packages.read_text().splitlines() if paths.reboot_packages.exists() else []
    durable.write(paths.reboot_packages, "\n".join([*dict.fromkeys([*asking, *names]), ""]).encode(), 0o644)
    durable.write(paths.reboot_required, b"*** System restart required ***\n", 0o644)


def _day_of(stamp: Path) -> date:
    """Return the day of a stamp file in the droplet's time zone, like Debian's program.

    Without a stamp, return a day long ago.
    """
    return datetime.fromtimestamp(stamp.stat().st_mtime, UTC).astimezone().date() if stamp.exists() else date.min
