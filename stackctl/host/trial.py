"""
Changes on trial: of what lets an operator in, SSH with its keys and the firewall. One that no new login confirms in
time is undone.

begin keeps copies and sets a timer, the converge makes the change, confirm comes through a new connection. A trial ends
when its record goes, a file that is there whole or not at all; whoever died before that, the timer or the next boot
puts the copies back. They are of what was confirmed last: a second begin keeps those of the first. A command of the
change runs by `change`, which refuses once the trial is over: what comes too late would never be undone.
"""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stackctl.core import config, durable, records
from stackctl.core.errors import FailedError, PersonNeededError, RefusedError
from stackctl.core.events import Journal
from stackctl.core.machine import Machine
from stackctl.core.paths import TRIALS, Paths
from stackctl.core.program import TIMED_OUT, Result
from stackctl.core.records import RecordError

PATIENCE_S = 120
"""How long a change waits for its confirmation."""
ASKS_S = 5
"""How often its timer asks whether that time is over."""
LOCK_PATIENCE = 30.0


@dataclass(frozen=True)
class Trial:
    """`due` is by the monotonic clock of `boot`, which nobody sets; `until` is for people. `files` come back."""

    name: str
    since: str
    until: str
    due: float
    files: tuple[str, ...]
    boot: str = ""


def under_way(paths: Paths) -> list[Trial]:
    """The trials that wait for their confirmation."""
    return [trial for name in TRIALS if (trial := _recorded(paths, name))]


def begin(paths: Paths, machine: Machine, name: str) -> str:
    """Keeps what is there, and has it come back unless somebody confirms the change."""
    earlier = _recorded(paths, name)
    if earlier:
        _copies(paths, earlier)
    files = earlier.files if earlier else _kept(paths, name)
    now, due = machine.now(), machine.monotonic() + PATIENCE_S
    timer = paths.trial_timer(name)
    # Set before it is recorded: a record without a timer would wait for a boot. Until then the lock keeps it waiting.
    armed = machine.run(["systemctl", "restart", timer])
    if armed.code:
        raise FailedError(f"{timer} can't be set, so nothing may be changed: {armed.reason}")
    until = (now + timedelta(seconds=PATIENCE_S)).isoformat(timespec="seconds")
    trial = Trial(name, now.isoformat(timespec="seconds"), until, due, files, machine.boot_id())
    durable.write(paths.trial_record(name), records.dumps(trial))
    return until


def change(paths: Paths, machine: Machine, name: str, command: str) -> int:
    """Runs a part of the change while it is on trial, and no longer; its exit code.

    Under the lock of trials, as all of this: what it did is undone after it, or it doesn't begin.
    """
    trial = _recorded(paths, name)
    left = left_of(trial, machine) if trial else 0
    if left <= 0:
        raise RefusedError(
            f"no change of {name} is on trial any more: its two minutes were over before all of it was made, "
            "and what was made is undone by itself (stackctl history); run it again"
        )
    code = machine.attached(["sh", "-c", command], left)
    if code == TIMED_OUT:
        raise FailedError(f"the change of {name} took longer than it is on trial, and is undone by itself")
    return code


def confirm(paths: Paths, machine: Machine, name: str) -> None:
    """The change stays."""
    if not paths.trial_record(name).exists():
        raise RefusedError(f"no change of {name} is on trial: it took too long, and was undone (stackctl history)")
    _end(paths, name)
    machine.run(["systemctl", "stop", paths.trial_timer(name)])


def over(paths: Paths, machine: Machine, name: str) -> bool:
    """Whether it was not confirmed in time."""
    trial = _recorded(paths, name)
    return trial is not None and left_of(trial, machine) <= 0


def left_of(trial: Trial, machine: Machine) -> float:
    """How many seconds it still has. One of another boot, which that one could not undo, has long been over."""
    return trial.due - machine.monotonic() if trial.boot == machine.boot_id() else -math.inf


def expire(paths: Paths, machine: Machine, journal: Journal, name: str) -> None:
    """Undoes the change when its time is over, and ends the timer when there is none any more."""
    if over(paths, machine, name):
        undo(paths, machine, journal, name)
    if not _recorded(paths, name):
        machine.run(["systemctl", "stop", paths.trial_timer(name)])


def undo(paths: Paths, machine: Machine, journal: Journal, name: str) -> None:
    """Puts back what was there, and in force. FailedError leaves the trial as it is, to be undone again."""
    trial = _recorded(paths, name)
    if not trial:
        raise RefusedError(f"no change of {name} is on trial")

    def act() -> str:
        _put_back(paths, trial)
        done = _IN_FORCE[name](paths, machine)
        if done.code:
            raise FailedError(f"{name} is as it was before, but not in force: {done.reason}")
        _end(paths, name)
        return "no new login had confirmed the change: what was there before is back"

    journal.step(name, act)


def boot(paths: Paths, machine: Machine, journal: Journal) -> None:
    """Puts back what is on trial, before sshd and the firewall start with it; its timer goes on with what can't be."""
    faults = []
    for name in TRIALS:
        try:
            if trial := _recorded(paths, name):
                _put_back(paths, trial)
                _end(paths, name)
                journal.tell(name, "done", "no new login had confirmed the change: what was there before is booted")
        except Exception as error:  # whatever is wrong with one of them, the others have to come back
            faults.append(f"{name} is not undone: {error}")
            if not isinstance(error, PersonNeededError):
                # Without waiting for it: timers start once we have ended.
                machine.run(["systemctl", "start", "--no-block", paths.trial_timer(name)])
    if faults:
        raise PersonNeededError("; ".join(faults))


def _recorded(paths: Paths, name: str) -> Trial | None:
    record = paths.trial_record(name)
    try:
        return records.loads(Trial, record.read_bytes())
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise PersonNeededError(f"{record} can't be read ({error}): look at {name} by hand, then remove it") from None


def _kept(paths: Paths, name: str) -> tuple[str, ...]:
    """Copies what the trial may change; which files these are."""
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


def _put_back(paths: Paths, trial: Trial) -> None:
    copies = _copies(paths, trial)
    for number, original in enumerate(trial.files):
        _copy(copies / str(number), Path(original))
    os.sync()


def _copies(paths: Paths, trial: Trial) -> Path:
    """What is not among them was not there: without any, nothing would be left."""
    copies, record = paths.trial_copies(trial.name), paths.trial_record(trial.name)
    if not copies.is_dir():
        raise PersonNeededError(f"{copies} is gone: look at {trial.name} by hand, then remove {record}")
    return copies


def _copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is: a file, a directory with all that is in it, or nothing.

    Made beside it first: what can't be made, on a full disk say, takes nothing away.
    """
    fresh, old = (target.with_name(f"{target.name}.{what}") for what in ("new", "old"))
    for left in (fresh, old):
        _remove(left)
    if source.is_dir():
        shutil.copytree(source, fresh, symlinks=True, copy_function=_copy_file)
    elif source.exists():
        _copy_file(source, fresh)
    # Only a file takes another's place at once.
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
    """With its owner: sshd reads an operator's keys as the operator."""
    shutil.copy2(source, target)
    there = Path(source).stat()
    os.chown(target, there.st_uid, there.st_gid)


def _sshd(_paths: Paths, machine: Machine) -> Result:
    """A restart, since sshd may be down, and given up by systemd. It ends no session."""
    machine.run(["systemctl", "reset-failed", "ssh.service"])
    return machine.run(["systemctl", "restart", "ssh.service"])


def _ufw(paths: Paths, machine: Machine) -> Result:
    switch = paths.on_trial["firewall"][0] / "ufw.conf"
    was_on = switch.exists() and "ENABLED=yes" in switch.read_text().splitlines()
    return machine.run(["ufw", "reload"] if was_on else ["ufw", "--force", "disable"])


_IN_FORCE: dict[str, Callable[[Paths, Machine], Result]] = {"ssh": _sshd, "firewall": _ufw}
