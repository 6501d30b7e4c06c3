"""Finds the SSH key of the person who called stackctl, so that the history can tell apart people who share one login.

The caller can forge SSH_USER_AUTH and the names of processes, so this module uses neither. Instead, the module follows
the parent processes up to the sshd-session that runs as root, and asks the journal which key that sshd-session
accepted. Callers cannot forge the journal's fields that begin with _, because journald sets these fields. If a caller
deliberately starts stackctl outside of the SSH session's processes (setsid, at, another login's tmux), the history
records only the login, or the other login's key. So the history tells honest colleagues apart, but gives no protection
against a dishonest colleague.
"""

import base64
import binascii
import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from stackctl.core import openat
from stackctl.core.errors import StackError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths

PROC = Path("/proc")
SESSION = "sshd-session"
"""OpenSSH 9.8 and later: https://www.openssh.com/txt/release-9.8."""
MOST_PARENTS = 30
MOST_BYTES = 1 << 20
_ACCEPTED = re.compile(r"Accepted publickey for (\S+) from \S+ port [0-9]+ ssh2: \S+ (SHA256:[A-Za-z0-9+/]{43})")
_KEY = re.compile(r"(?:^|\s)(?:ssh|ecdsa|sk)-[a-z0-9@.-]+\s+(AAAA[A-Za-z0-9+/]+=*)(?:\s+(.*))?$")
_UNUSUAL = re.compile(r"[^A-Za-z0-9@._+ -]")
_SHOWN = 64


class _Process(NamedTuple):
    parent: int
    ticks: int
    """The start time, in ticks since the boot."""


def key(paths: Paths, machine: Machine, proc: Path = PROC, pid: int | None = None) -> str:
    """Return the comment of the caller's key in authorized_keys, or "" if there is no SSH session or no known key."""
    try:
        session, began = _session(proc, pid or os.getpid())
        accepted = _accepted(machine, session, began)
        return _comments(paths, accepted[0]).get(accepted[1], "") if accepted else ""
    except (StackError, OSError, ValueError, LookupError):
        return ""  # an unknown key must not prevent a release


def _session(proc: Path, pid: int) -> tuple[int, float]:
    """Return the process ID and the start time of root's sshd-session above this process.

    Raises LookupError if this process has no such ancestor.
    """
    for _ in range(MOST_PARENTS):
        process = _process(proc, pid)
        if (proc / str(pid) / "exe").readlink().name == SESSION and _is_owned_by_root(proc, pid):
            booted = int(re.findall(r"^btime (\d+)$", (proc / "stat").read_text(), re.MULTILINE)[0])
            return pid, booted + process.ticks / os.sysconf("SC_CLK_TCK")
        pid = process.parent
    raise LookupError


def _process(proc: Path, pid: int) -> _Process:
    """Read the parent and the start time of a process (proc_pid_stat(5)).

    The name of a program may contain spaces and brackets.
    """
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return _Process(parent=int(fields[1]), ticks=int(fields[19]))


def _is_owned_by_root(proc: Path, pid: int) -> bool:
    return bool(re.search(r"^Uid:\s+0\s+0\s", (proc / str(pid) / "status").read_text(), re.MULTILINE))


def _accepted(machine: Machine, session: int, began: float) -> tuple[str, str] | None:
    """Return the login and the fingerprint of the key that this sshd-session accepted.

    The time `began` excludes older processes with the same process ID.
    """
    fields = [f"_PID={session}", "_UID=0", f"SYSLOG_IDENTIFIER={SESSION}"]
    asked = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--since=@{began - 2:.0f}", *fields]
    lines = machine.run(asked, timeout=5).stdout.splitlines()
    found = [match for line in lines if (match := _ACCEPTED.fullmatch(line))]
    return (found[-1][1], found[-1][2]) if found else None


def _comments(paths: Paths, login: str) -> dict[str, str]:
    """Return the comment of each key of the login, by the key's fingerprint in sshd's spelling."""
    file = paths.keys(login)
    found: dict[str, str] = {}
    with openat.directory(paths.home, *file.parent.relative_to(paths.home).parts) as there:
        lines = there.read(file.name, MOST_BYTES).decode(errors="replace").splitlines()
    for known in filter(None, (_KEY.search(line) for line in lines if not line.startswith("#"))):
        try:
            digest = hashlib.sha256(base64.b64decode(known[1])).digest()
        except binascii.Error:
            continue
        fingerprint = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
        found[fingerprint] = _UNUSUAL.sub("?", (known[2] or "").strip())[:_SHOWN]
    return found
