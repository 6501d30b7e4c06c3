"""stackctl learns from the kernel and from journald whose key was used, and never from the caller."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stackctl.cli import caller
from stackctl.core import lock
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import Result
from stackctl.release import release
from tests.support.fakes.droplet import installed, stackctl

ADA, BOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519 ada").decode(), base64.b64encode(b"\0\0\0\x0bbob").decode()
BOOTED, TICKS = 1_700_000_000, os.sysconf("SC_CLK_TCK")


def fingerprint(key: str) -> str:
    return f"SHA256:{base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip('=')}"


class Journal(Machine):
    """A machine that answers as journald would."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.asked = lines, list[list[str]]()

    def run(self, argv: Sequence[str], *_: Any, **__: Any) -> Result:
        self.asked.append(list(argv))
        return Result(0, "\n".join(self.lines))


def accepted(key: str, login: str = "deploy") -> str:
    return f"Accepted publickey for {login} from 2001:db8::1 port 50022 ssh2: ED25519 {fingerprint(key)}"


def process(proc: Path, pid: int, parent: int, exe: str, *, uid: int = 0, name: str = "x", began: int = 5) -> None:
    there = proc / str(pid)
    there.mkdir(parents=True)
    (there / "exe").symlink_to(exe)
    (there / "stat").write_text(f"{pid} ({name}) S {parent} {' '.join(['0'] * 17)} {began * TICKS} 0 0\n")
    (there / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Create a fake /proc with stackctl, sudo, a shell, the session's two processes and sshd."""
    proc = tmp_path / "proc"
    process(proc, 1, 0, "/usr/lib/systemd/systemd")
    process(proc, 10, 1, "/usr/sbin/sshd")
    process(proc, 20, 10, "/usr/lib/openssh/sshd-session", began=100)
    process(proc, 21, 20, "/usr/lib/openssh/sshd-session", uid=1000)
    process(proc, 30, 21, "/usr/bin/bash", uid=1000, name="a) S 1 (b")
    process(proc, 31, 30, "/usr/bin/sudo")
    process(proc, 32, 31, "/usr/bin/python3.13")
    (proc / "stat").write_text(f"cpu 1 2 3\nbtime {BOOTED}\nprocesses 9\n")
    return proc


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths("bot", tmp_path / "root")
    for login in ("deploy", "ci"):
        paths.keys(login).parent.mkdir(parents=True)
    paths.keys("deploy").write_text(
        f"# ssh-ed25519 {BOB} in a comment\nssh-ed25519 {ADA} ada@laptop\n"
        f'from="10.0.0.1",command="echo ssh-rsa AAAA" ssh-ed25519 {BOB}\tbob \x1b[2J\u202e of accounts\nnonsense\n'
    )
    paths.keys("ci").write_text(f'restrict,command="sudo -n x" ssh-ed25519 {BOB} github\n')
    return paths


def test_the_key_s_comment_is_found_by_the_session_above_us(paths: Paths, proc: Path) -> None:
    machine = Journal("Connection from 2001:db8::1", accepted(BOB), accepted(ADA), "pam_unix(sshd:session): opened")
    assert caller.key(paths, machine, proc, 32) == "ada@laptop"
    (asked,) = machine.asked
    assert {"_PID=20", "_UID=0", "SYSLOG_IDENTIFIER=sshd-session", f"--since=@{BOOTED + 98}"} <= set(asked)


def test_a_comment_is_shown_in_a_length_and_in_characters_that_a_terminal_takes(paths: Paths, proc: Path) -> None:
    assert caller.key(paths, Journal(accepted(BOB)), proc, 32) == "bob ??2J? of accounts"
    paths.keys("deploy").write_text(f"ssh-ed25519 {ADA} {'a' * 100}\n")
    assert caller.key(paths, Journal(accepted(ADA)), proc, 32) == "a" * 64


def test_each_login_has_keys_of_its_own(paths: Paths, proc: Path) -> None:
    assert caller.key(paths, Journal(accepted(BOB, "ci")), proc, 32) == "github"
    assert caller.key(paths, Journal(accepted(ADA, "ci")), proc, 32) == ""


@pytest.mark.parametrize(
    "line",
    [
        f"xx {accepted(ADA)}",
        f"{accepted(ADA)} yy",
        accepted(ADA).replace("publickey", "password"),
        accepted(ADA, "../../root"),
        accepted(ADA, "nobody"),
        "",
    ],
)
def test_an_unknown_key_is_not_guessed(paths: Paths, proc: Path, line: str) -> None:
    assert caller.key(paths, Journal(line), proc, 32) == ""


def test_a_process_that_only_calls_itself_so_is_no_session(paths: Paths, proc: Path) -> None:
    """A caller can choose the name and variables of a process, but not its owner and not the file of its program."""
    process(proc, 40, 1, "/home/deploy/sshd-session", uid=1000, name="sshd-session")
    process(proc, 41, 40, "/usr/bin/sudo")
    machine = Journal(accepted(ADA))
    assert caller.key(paths, machine, proc, 41) == ""
    assert not machine.asked


def test_a_call_without_ssh_has_no_key(paths: Paths, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_USER_AUTH", str(paths.keys("deploy")))
    machine = Journal(accepted(ADA))
    assert caller.key(paths, machine, proc, 10) == ""
    assert caller.key(paths, machine, proc, 99) == ""
    assert not machine.asked


def test_a_file_of_keys_that_leads_elsewhere_is_not_followed(paths: Paths, proc: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    paths.keys("deploy").rename(secret)
    paths.keys("deploy").symlink_to(secret)
    assert caller.key(paths, Journal(accepted(ADA)), proc, 32) == ""


def test_history_names_the_key_and_so_does_who_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    droplet = installed(tmp_path)
    monkeypatch.setattr(caller, "key", lambda *_: "ada@laptop")
    assert stackctl(droplet, "--by", "deploy", "release", "1.0.0")[0] == 0
    (run,) = json.loads(stackctl(droplet, "history", "--json")[1])
    assert (run["by"], run["key"]) == ("deploy", "ada@laptop")
    assert "by deploy (ada@laptop)" in stackctl(droplet, "history")[1]
    # The unit is not a child of the session, so stackctl passes the key's name to the unit.
    (asked,) = droplet.ran("systemd-run")
    assert re.search("--by deploy --key=ada@laptop release", " ".join(asked))


def test_a_comment_that_looks_like_an_option_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    droplet = installed(tmp_path)
    monkeypatch.setattr(caller, "key", lambda *_: "--json")
    assert stackctl(droplet, "--by", "deploy", "release", "1.0.0")[0] == 0
    assert json.loads(stackctl(droplet, "history", "--json")[1])[0]["key"] == "--json"


def test_the_lock_names_the_login_and_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    droplet = installed(tmp_path)
    monkeypatch.setattr(caller, "key", lambda *_: "ada@laptop")
    seen: list[str] = []
    monkeypatch.setattr(
        release, "release", lambda *_, **__: seen.append(getattr(lock.holder_of(droplet.paths.work), "holder", ""))
    )
    assert stackctl(droplet, "--by", "deploy", "release", "1.0.0")[0] == 0
    assert re.fullmatch(r"deploy's stackctl release \(ada@laptop, process \d+\)", seen[0])
    # The message names the login, and a separate field of the journal names the key.
    first = json.loads(droplet.paths.history.read_text().splitlines()[0])
    assert first["message"] == "1.0.0 by deploy"


def test_without_a_known_key_the_login_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    droplet = installed(tmp_path)
    monkeypatch.setattr(caller, "key", lambda *_: "")
    assert stackctl(droplet, "--by", "deploy", "maintenance", "on")[0] == 0
    assert stackctl(droplet, "history")[1].splitlines()[0].endswith("by deploy")
