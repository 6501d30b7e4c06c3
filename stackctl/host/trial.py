"""
Trials: changes to SSH, its keys and the firewall that are reverted unless a new login confirms the change in time.

For network devices, RFC 6241 calls such a change a confirmed commit. The command `netplan try` works in the same way.
First `begin` copies the files and starts a timer, then the converge makes the change, and then a new connection calls
`confirm`. A trial ends when the record of the trial is removed. If anything crashes before the record is removed, the
timer or the next boot restores the copies. The copies always contain the last confirmed state, because a second `begin`
keeps the copies that the first `begin` made. The converge makes the change through `run`, which refuses every command
once the trial has expired, because such a late change would never be reverted. After each command the time starts
again, so that the time which our own commands take on a slow machine is not taken from the confirmation.
"""

import dataclasses
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stackctl.core import config, durable, records
from stackctl.core.errors import FailedError, PersonNeededError, RefusedError
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.paths import TRIALS, Paths
from stackctl.core.program import TIMED_OUT, Result
from stackctl.core.records import RecordError

CONFIRM_TIMEOUT_S = 120
"""A change that is not confirmed within this time after its last command is reverted."""
POLL_S = 5
"""The interval at which the timer looks for an expired trial."""
LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Trial:
    """The record of a trial.

    The trial expires when the monotonic clock shows `due` in the boot with the ID `boot`. `until` is the time of expiry
    in ISO 8601, for people. `files` has the paths of the files that a revert restores.
    """

    name: str
    since: str
    until: str
    due: float
    files: tuple[str, ...]
    boot: str = ""


def under_way(paths: Paths) -> list[Trial]:
    """Return the trials that are not confirmed yet."""
    return [trial for name in TRIALS if (trial := _recorded(paths, name))]


def begin(paths: Paths, machine: Machine, name: str) -> str:
    """Copy the files, and start the timer that restores the copies unless the change is confirmed.

    Return the deadline.
    """
    earlier = _recorded(paths, name)
    if earlier:
        _copies(paths, earlier)
    files = earlier.files if earlier else _keep_copies(paths, name)
    since = machine.now().isoformat(timespec="seconds")
    trial = _restarted(Trial(name, since, "", 0, files, machine.boot_id()), machine)
    timer = paths.units.trial_timer(name)
    # Start the timer before writing the record, because a trial without a timer would be reverted only at the next
    # boot. The timer waits for the lock of trials, which this process holds.
    armed = machine.run(["systemctl", "restart", timer])
    if armed.code:
        raise FailedError(f"cannot start {timer}: {armed.reason}. Nothing was changed")
    durable.write(paths.trial_record(name), records.dumps(trial))
    return trial.until


def run(paths: Paths, machine: Machine, name: str, command: str) -> int:
    """Run one command of the change while the trial lasts, then start the trial's time again.

    Return the command's exit code.

    The caller holds the lock of trials. So a revert waits until the command has ended, and no command starts after a
    revert.
    """
    trial = _recorded(paths, name)
    left = seconds_left(trial, machine) if trial else 0
    if not trial or left <= 0:
        raise RefusedError(
            f"no change to {name} is on trial any more, because two minutes passed since its last command. The "
            "droplet reverts the change by itself (stackctl history)",
            next_step="run the converge again",
        )
    code = machine.run_attached(["sh", "-c", command], left)
    if code == TIMED_OUT:
        raise FailedError(
            f"the change to {name} took longer than its trial. The droplet reverts the change by itself",
            next_step="run the converge again",
        )
    durable.write(paths.trial_record(name), records.dumps(_restarted(trial, machine)))
    return code


def confirm(paths: Paths, machine: Machine, name: str) -> None:
    """End the trial, and keep the change."""
    if not paths.trial_record(name).exists():
        raise RefusedError(
            f"no change to {name} is on trial, because the change took too long and was reverted (stackctl history)",
            next_step="run the converge again",
        )
    _end(paths, name)
    machine.run(["systemctl", "stop", paths.units.trial_timer(name)])


def expired(paths: Paths, machine: Machine, name: str) -> bool:
    """Return whether the trial has expired without a confirmation."""
    trial = _recorded(paths, name)
    return trial is not None and seconds_left(trial, machine) <= 0


def _restarted(trial: Trial, machine: Machine) -> Trial:
    """Return the trial with its whole time left."""
    until = machine.now() + timedelta(seconds=CONFIRM_TIMEOUT_S)
    due = machine.monotonic() + CONFIRM_TIMEOUT_S
    return dataclasses.replace(trial, until=until.isoformat(timespec="seconds"), due=due)


def seconds_left(trial: Trial, machine: Machine) -> float:
    """Return the seconds until the trial expires. A trial from an earlier boot has expired."""
    return trial.due - machine.monotonic() if trial.boot == machine.boot_id() else -math.inf


def revert_if_expired(paths: Paths, machine: Machine, log: RunLog, name: str) -> None:
    """Revert the change if its trial has expired. Stop the timer if there is no trial any more."""
    if expired(paths, machine, name):
        revert(paths, machine, log, name)
    if not _recorded(paths, name):
        machine.run(["systemctl", "stop", paths.units.trial_timer(name)])


def revert(paths: Paths, machine: Machine, log: RunLog, name: str) -> None:
    """Restore the files, and apply the restored settings. If a FailedError is raised, the timer tries again."""
    trial = _recorded(paths, name)
    if not trial:
        raise RefusedError(f"no change to {name} is on trial")

    def act() -> str:
        _restore(paths, trial)
        done = _IN_FORCE[name](paths, machine)
        if done.code:
            raise FailedError(f"the files of {name} are restored, but have not taken effect: {done.reason}")
        _end(paths, name)
        return "reverted, because no new login had confirmed the change"

    log.step(name, act)


def revert_at_boot(paths: Paths, machine: Machine, log: RunLog) -> None:
    """Revert every trial before sshd and the firewall start. If a revert fails, the timer tries again later."""
    faults = []
    for name in TRIALS:
        try:
            if trial := _recorded(paths, name):
                _restore(paths, trial)
                _end(paths, name)
                log.emit(name, "done", "reverted at boot, because no new login had confirmed the change")
        except Exception as error:  # if one revert fails, the other reverts must still run
            faults.append(f"the change to {name} is not reverted: {error}")
            if not isinstance(error, PersonNeededError):
                # Do not wait for the timer: timers start only after this boot step, so a wait would never end.
                machine.run(["systemctl", "start", "--no-block", paths.units.trial_timer(name)])
    if faults:
        raise PersonNeededError("; ".join(faults))


def _recorded(paths: Paths, name: str) -> Trial | None:
    record = paths.trial_record(name)
    try:
        return records.loads(Trial, record.read_bytes())
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise PersonNeededError(
            f"{record} can't be read ({error})", next_step=f"check {name} by hand, then remove the file"
        ) from None


def _keep_copies(paths: Paths, name: str) -> tuple[str, ...]:
    """Copy the files that the trial may change, and return the paths of these files."""
    copies, files = paths.trial_copies(name), list(paths.on_trial[name])
    if name == "ssh":
        files.append(paths.keys(config.load(paths).operator))
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    paths.trials.chmod(0o700)
    for number, original in enumerate(files):
        _copy(original, copies / str(number))
    os.sync()
    return tuple(map(str, files))


def _end(paths: Paths, name: str) -> None:
    durable.remove(paths.trial_record(name))
    shutil.rmtree(paths.trial_copies(name), ignore_errors=True)


def _restore(paths: Paths, trial: Trial) -> None:
    copies = _copies(paths, trial)
    for number, original in enumerate(trial.files):
        _copy(copies / str(number), Path(original))
    os.sync()


def _copies(paths: Paths, trial: Trial) -> Path:
    """Return the directory of the copies.

    Raises PersonNeededError if the directory is missing. A revert removes every file that has no copy, so without this
    check a revert would remove all files.
    """
    copies, record = paths.trial_copies(trial.name), paths.trial_record(trial.name)
    if not copies.is_dir():
        raise PersonNeededError(f"{copies} is gone", next_step=f"check {trial.name} by hand, then remove {record}")
    return copies


def _copy(source: Path, target: Path) -> None:
    """Make `target` equal to `source`, which is a file, a directory or missing.

    First copy the source to a path beside the target, so that a failure such as a full disk removes nothing.
    """
    fresh, old = (target.with_name(f"{target.name}.{what}") for what in ("new", "old"))
    for left in (fresh, old):
        _remove(left)
    if source.is_dir():
        shutil.copytree(source, fresh, symlinks=True, copy_function=_copy_file)
    elif source.exists():
        _copy_file(source, fresh)
    # Rename the target first if it is a directory, because only a file can replace another file atomically.
    if os.path.lexists(target) and (target.is_dir() or not fresh.is_file()):
        target.rename(old)
    if fresh.exists():
        fresh.replace(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_file(source: Path | str, target: Path | str) -> None:
    """Copy a file and its ownership, because sshd reads an operator's keys with the rights of that operator."""
    shutil.copy2(source, target)
    there = Path(source).stat()
    os.chown(target, there.st_uid, there.st_gid)


def _sshd(_paths: Paths, machine: Machine) -> Result:
    """Restart sshd, even if systemd has given up on sshd. Open sessions continue."""
    machine.run(["systemctl", "reset-failed", "ssh.service"])
    return machine.run(["systemctl", "restart", "ssh.service"])


def _ufw(paths: Paths, machine: Machine) -> Result:
    switch = paths.on_trial["firewall"][0] / "ufw.conf"
    was_on = switch.exists() and "ENABLED=yes" in switch.read_text().splitlines()
    return machine.run(["ufw", "reload"] if was_on else ["ufw", "--force", "disable"])


_IN_FORCE: dict[str, Callable[[Paths, Machine], Result]] = {"ssh": _sshd, "firewall": _ufw}
