"""Finds foreign accounts, groups and keys, such as a second account with uid 0 or an undeclared SSH key."""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stackctl.core.paths import Paths
from stackctl.host.declared import Declared
from stackctl.host.findings import Finding, named, read, shown

_NAMES = "root sudo adm docker disk shadow lxd incus incus-admin systemd-journal wheel kmem staff libvirt kvm sys"
PRIVILEGED = frozenset(_NAMES.split())
"""Groups whose members can read root's files or become root."""
NO_SHELLS = ("nologin", "false", "sync", "shutdown", "halt")
FIRST_PERSON, NOBODY = 1000, 65534
MOST, MOST_ROWS = 1 << 16, 1 << 22
UNREAD = "and more than is read"
"""The line added to the text of a file that is too long. The line is not a key, so it is reported."""
KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")
# Matches a line in the same way as sshd: options end at the first blank outside quotes, so a key inside a quoted option
# does not count.
_KEY = re.compile(
    r"""((?>(?:\\"|"(?>(?:\\"|[^"])*)"|[^ \t"])+)[ \t]+)??"""
    r"((?:sk-)?(?:ssh-|ecdsa-sha2-)[\w.@-]+)[ \t]+([A-Za-z0-9+/]{16,}={0,3})(?:\s+(.*))?"
)
# The options that cloud-init puts before root's keys if root may not log in. A key with these options prints a hint and
# grants nothing.
_PRINTS_A_HINT = re.compile(
    r"no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as the user "
    r"\\\"[\w.-]+\\\" rather than the user \\\"[\w.-]+\\\"\.';echo;sleep 10(?:;exit 142)?\""
)


class Account(NamedTuple):
    """A line of /etc/passwd."""

    login: str
    password: str
    uid: str
    gid: str
    home: str
    shell: str


class Key(NamedTuple):
    """A line of authorized_keys that grants access, or that cannot be parsed."""

    number: int
    options: str
    kind: str
    blob: str
    comment: str

    @property
    def name(self) -> str:
        """The fingerprint of the key, as ssh-keygen -l shows it."""
        if not self.blob:
            return f"line-{self.number}"
        digest = hashlib.sha256(base64.b64decode(f"{self.blob}===")).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class Accounts:
    """The accounts, groups and keys on the droplet."""

    def __init__(self, paths: Paths, declared: Declared, operator: str, key_files: tuple[str, ...]) -> None:
        self._root, self._declared, self._operator = paths.root, declared, operator
        self._ours = declared.logins | {operator}
        self._patterns = tuple(dict.fromkeys((*key_files, *KEY_FILES)))
        etc = paths.root / "etc"
        self.accounts = [Account(f[0], *f[1:4], *f[5:7]) for f in _rows(etc / "passwd", 7)]
        self._passwords = {fields[0]: fields[1] for fields in _rows(etc / "shadow", 9)}
        self._groups = _rows(etc / "group", 4)

    def findings(self) -> list[Finding]:
        return [*self._of_accounts(), *self._of_passwords(), *self._of_groups(), *self._of_keys()]

    def _of_accounts(self) -> Iterator[Finding]:
        for one in self.accounts:
            if one.login == "root" or (one.login in self._ours and one.uid != "0"):
                continue
            name = f"account:{named(one.login)}"
            if not _is_other_than_root(one.uid):
                yield Finding(name, "has uid 0, so this account is root under another name", "remove")
            elif not _is_other_than_root(one.gid):
                yield Finding(name, "has root's group as its primary group", "remove")
            elif one.shell.rpartition("/")[2] not in NO_SHELLS:
                yield Finding(name, f"is an account that can log in (with {shown(one.shell) or 'a shell'})", "remove")
            elif one.uid.isdecimal() and int(one.uid) >= FIRST_PERSON and int(one.uid) != NOBODY:
                yield Finding(name, "is a person's account", "remove")

    def _of_passwords(self) -> Iterator[Finding]:
        for one in self.accounts:
            in_shadow = one.password == "x"  # noqa: S105 - passwd(5): the password is in shadow
            password = self._passwords.get(one.login, "*") if in_shadow else one.password
            if not password:
                yield Finding(f"password:{named(one.login)}", "logs in without a password", "hand")
            # root may have a password, because root needs the password at the provider's console when SSH is broken.
            elif password[0] not in "!*" and one.login != "root":
                yield Finding(
                    f"password:{named(one.login)}", "has a password, but no login on this droplet needs one", "hand"
                )

    def _of_groups(self) -> Iterator[Finding]:
        privileged = {_number(fields[2]) for fields in self._groups if fields[0] in PRIVILEGED}
        for name, _, said, members, *_ in self._groups:
            gid = _number(said)
            if gid in privileged and name not in PRIVILEGED:
                yield Finding(
                    f"group:{named(name)}",
                    f"has gid {gid}, so this group is a privileged group under another name",
                    "hand",
                )
            if gid not in privileged:
                continue
            for member in filter(None, members.split(",")):
                if member not in {"root", self._operator}:
                    yield Finding(
                        f"member:{named(name)}:{named(member)}", f"{shown(member)} is in group {name}", "remove"
                    )
            for one in self.accounts:
                if _number(one.gid) == gid != "0" and one.login not in {"root", self._operator, name}:
                    yield Finding(f"account:{named(one.login)}", f"has {name} as its primary group", "remove")

    def _of_keys(self) -> Iterator[Finding]:
        known = {key.blob for path in self._declared.files if "/authorized_keys" in path for key in self._keys(path)}
        for path, login in self.key_paths().items():
            if path in self._declared.files:
                continue
            for key in self._keys(path):
                if key.blob in known or _PRINTS_A_HINT.fullmatch(key.options):
                    continue
                said = f"lets {shown(login)} in by SSH: {key.kind} {shown(key.comment)}".strip()
                yield Finding(f"key:{named(login)}:{key.name}", f"{said} (in {shown(path)})", "remove", path)

    def key_paths(self) -> dict[str, str]:
        """Return the path of each account's authorized_keys files, with the login.

        If several logins share a file, the file is listed with the first login.
        """
        found: dict[str, str] = {}
        for one in self.accounts:
            for pattern in self._patterns:
                name = pattern.replace("%%", "\0").replace("%h", one.home).replace("%u", one.login)
                name = name.replace("%U", one.uid).replace("\0", "%")
                found.setdefault(os.path.normpath(name if name.startswith("/") else f"{one.home}/{name}"), one.login)
        return found

    def _keys(self, path: str) -> list[Key]:
        return parse_keys(key_text(self._root / path.lstrip("/")))


def key_text(path: Path) -> str:
    """Read a file in a home directory. Follow links like sshd, but skip a FIFO without waiting for a writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        text = file.read(MOST).decode(errors="replace")
        return f"{text}\n{UNREAD}\n" if file.read(1) else text


def parse_keys(text: str) -> list[Key]:
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _KEY.fullmatch(line.strip())
        keys.append(
            Key(number, (found[1] or "").rstrip(), found[2], found[3], found[4] or "")
            if found
            else Key(number, "", "a line that cannot be parsed", "", "")
        )
    return keys


def _is_other_than_root(number: str) -> bool:
    """Return whether the C library reads the text as a number other than 0. The C library reads " 0" and "+0" as 0."""
    return bool(re.fullmatch("0*[1-9][0-9]*", number))


def _number(said: str) -> str:
    """Return the number that the C library would read, without variations such as +0, so that equal numbers match."""
    return str(int(said)) if re.fullmatch(r"\s*[+-]?[0-9]{1,10}", said, re.ASCII) else said


def _rows(path: Path, fields: int) -> list[list[str]]:
    """Return the rows of a file such as /etc/passwd.

    Like the C library, read missing fields at the end of a row as empty.
    """
    rows = (line.split(":") for line in read(path, MOST_ROWS).splitlines())
    return [row + [""] * (fields - len(row)) for row in rows if row != [""]]
