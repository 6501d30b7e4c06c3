"""
Changes on trial: of what lets an operator in, SSH and the firewall. One that no new login confirms in time is undone.

begin keeps copies and sets a timer, the converge makes the change, confirm comes through a new connection. A trial ends
when its record goes, a file that is there whole or not at all; whoever died before that, the timer or the next boot
puts the copies back. They are of what was confirmed last: a second begin keeps those of the first.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from . import durable
from .errors import FailedError, PersonNeededError, RefusedError
from .events import Journal
from .machine import Machine, Result
from .paths import TRIALS, Paths

PATIENCE_S = 120
"""How long a change waits for its confirmation; OnActiveSec of APP-trial@.timer is the same."""
LOCK_PATIENCE = 30.0


@dataclass(frozen=True)
class Trial:
    """`due` is by the machine's monotonic clock, which nobody sets; `until` is for people."""

    name: str
    since: str
    until: str
    due: float


def under_way(paths: Paths) -> list[Trial]:
    """The trials that wait for their confirmation."""
    records = [paths.trial_record(name) for name in TRIALS]
    return [Trial(**json.loads(record.read_bytes())) for record in records if record.exists()]


def begin(paths: Paths, machine: Machine, name: str) -> str:
    """Keeps what is there, and has it come back unless somebody confirms the change."""
    record = paths.trial_record(name)
    if not record.exists():
        copies = paths.trial_copies(name)
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir(parents=True)
        paths.trials.chmod(0o700)
        for number, original in enumerate(paths.on_trial[name]):
            _copy(original, copies / str(number))
        os.sync()
    timer = paths.trial_timer(name)
    # Set before it is recorded: a timer that finds no record does nothing, a record without a timer waits for a boot.
    armed = machine.run(["systemctl", "restart", timer])
    if armed.code:
        raise FailedError(f"{timer} can't be set, so nothing may be changed: {armed.reason}")
    now = machine.now()
    until = (now + timedelta(seconds=PATIENCE_S)).isoformat(timespec="seconds")
    trial = Trial(name, now.isoformat(timespec="seconds"), until, machine.monotonic() + PATIENCE_S)
    durable.write(record, json.dumps(asdict(trial)).encode() + b"\n")
    return until


def confirm(paths: Paths, machine: Machine, name: str) -> None:
    """The change stays."""
    if not paths.trial_record(name).exists():
        raise RefusedError(f"no change of {name} is on trial: it took too long, and was undone (stackctl history)")
    _end(paths, name)
    machine.run(["systemctl", "stop", paths.trial_timer(name)])


def expire(paths: Paths, machine: Machine, journal: Journal, name: str) -> None:
    """Undoes the change when its time is over: a trial that was begun again has more of it."""
    if any(trial.name == name and trial.due - 1 <= machine.monotonic() for trial in under_way(paths)):
        undo(paths, machine, journal, name)


def undo(paths: Paths, machine: Machine, journal: Journal, name: str) -> None:
    """Puts back what was there, and in force. FailedError leaves the trial as it is, to be undone again."""
    if not paths.trial_record(name).exists():
        raise RefusedError(f"no change of {name} is on trial")

    def act() -> str:
        _put_back(paths, name)
        done = _IN_FORCE[name](paths, machine)
        if done.code:
            raise FailedError(f"{name} is as it was before, but not in force: {done.reason}")
        _end(paths, name)
        return "no new login had confirmed the change: what was there before is back"

    journal.step(name, act)


def boot(paths: Paths, journal: Journal) -> None:
    """Puts back what is on trial, before sshd and the firewall start with it."""
    for trial in under_way(paths):
        _put_back(paths, trial.name)
        _end(paths, trial.name)
        journal.tell(trial.name, "done", "no new login had confirmed the change: what was there before is booted")


def _end(paths: Paths, name: str) -> None:
    durable.remove(paths.trial_record(name))
    shutil.rmtree(paths.trial_copies(name), ignore_errors=True)


def _put_back(paths: Paths, name: str) -> None:
    copies = paths.trial_copies(name)
    if not copies.is_dir():  # what is not among the copies was not there: without any, nothing would be left
        raise PersonNeededError(f"{copies} is gone: look at {name} by hand, then remove {paths.trial_record(name)}")
    for number, original in enumerate(paths.on_trial[name]):
        _copy(copies / str(number), original)
    os.sync()


def _copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is: a file, a directory with all that is in it, or nothing."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif source.exists():
        shutil.copy2(source, target)


def _sshd(_paths: Paths, machine: Machine) -> Result:
    """A restart, since sshd may be down, and given up by systemd. It ends no session."""
    machine.run(["systemctl", "reset-failed", "ssh.service"])
    return machine.run(["systemctl", "restart", "ssh.service"])


def _ufw(paths: Paths, machine: Machine) -> Result:
    switch = paths.on_trial["firewall"][0] / "ufw.conf"
    was_on = switch.exists() and "ENABLED=yes" in switch.read_text().splitlines()
    return machine.run(["ufw", "reload"] if was_on else ["ufw", "--force", "disable"])


_IN_FORCE: dict[str, Callable[[Paths, Machine], Result]] = {"ssh": _sshd, "firewall": _ufw}
