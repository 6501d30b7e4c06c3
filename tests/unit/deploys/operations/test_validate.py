"""A configuration is tested before it replaces a good one. The tests run the command of `validate` on this machine."""

from __future__ import annotations

import ast
import getpass
import grp
import os
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from deploys.components import data_services
from deploys.facts.files import FileState, PendingHandlers
from deploys.operations.docker import compose_accepts
from deploys.operations.files import atomic_file, if_installed
from deploys.operations.units import systemd_units
from tests.support.operations import commands, droplet
from tests.support.settings import ROOT

NEW = b"listen 80;\n"

UNTESTED = {
    "Stop cloud-init from resetting the hostname and /etc/hosts": "a bad file loses a setting; its test takes 2 s",
    "Limit the journal's size": "journald skips a line that it can't read; no program tests the file",
    "Write stackctl.json": "made by json.dumps in the shape that config/test_settings.py has stackctl read",
    "Write the off-site credentials": "made by json.dumps, read back by stackctl/backup/offsite/test_access.py",
    "Write the registry's login": "made by json.dumps; a wrong login fails at the pull, nothing else",
    "Block unneeded kernel modules": "modprobe skips a line that it can't read; no program tests the file",
    "Disable core dumps in {source}": "pam_limits and systemd skip a line that they can't read",
    "Warn about weak passwords": "root is warned by it and refused nothing",
    "Write the login banner {path}": "text for people",
    "Allow only root to schedule jobs in {path}": "a list of one name",
    "Write the app environment for the next release": "stackctl reads it before each release, and refuses it by name",
    "Write PostgreSQL's password": "a password",
    "Write Redis's password": "a password",
}
"""The reasons for which files are written without a test, by the operation's name."""


def run(dest: Path, validate: str | None, content: bytes = NEW) -> subprocess.CompletedProcess[bytes]:
    """Run the droplet's command on this machine, as the user who runs the tests."""
    owner, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
    with droplet({FileState: None}):
        (write,) = atomic_file._inner(dest=str(dest), content=content, owner=owner, group=group, validate=validate)
    return subprocess.run(["sh", "-c", str(write)], input=b64encode(content), check=False, capture_output=True)


@pytest.mark.parametrize("name", ["nginx.conf", "a file's name"])
def test_what_is_refused_leaves_the_good_file_in_place_and_says_which_and_why(tmp_path: Path, name: str) -> None:
    dest = tmp_path / name
    dest.write_text("good")
    ran = run(dest, "echo line 3: no such word; grep -q '[}]$' %s")
    assert ran.returncode != 0
    assert dest.read_text() == "good"
    assert b"line 3: no such word" in ran.stderr
    assert f"{dest}: the new file is invalid".encode() in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name], "the refused file was left behind"


def test_what_is_accepted_takes_its_place_without_a_word(tmp_path: Path) -> None:
    dest = tmp_path / "nginx.conf"
    dest.write_text("good")
    ran = run(dest, "cat %s; echo a warning >&2")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert dest.read_bytes() == NEW


def test_the_test_sees_the_new_file_and_the_old_one_is_still_there(tmp_path: Path) -> None:
    dest = tmp_path / "nginx.conf"
    dest.write_text("good")
    assert run(dest, f"cmp -s %s {dest} && exit 1; grep -q listen %s && grep -q good {dest}").returncode == 0


def test_a_test_that_leaves_early_or_has_a_trap_harms_nothing(tmp_path: Path) -> None:
    dest = tmp_path / "jail.local"
    assert run(dest, f"d=$(mktemp -d -p {tmp_path}) && trap 'rm -r $d' EXIT && cp %s $d/x; exit 0").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["jail.local"]


def test_a_program_that_is_not_there_yet_tests_nothing(tmp_path: Path) -> None:
    dest = tmp_path / "daemon.json"
    assert run(dest, if_installed("no-such-program", "no-such-program %s")).returncode == 0
    assert run(dest, if_installed("false", "false && true")).returncode != 0


def test_a_compose_file_is_tested_with_its_variables_and_nothing_of_the_machine_s() -> None:
    said = compose_accepts(STACK_IMAGE="i")
    assert said.startswith("STACK_IMAGE=i docker compose --env-file /dev/null ")
    assert said.endswith(" -f %s config --quiet")


def test_redis_has_to_run_with_a_file_until_it_is_ended() -> None:
    said = data_services._redis_accepts("redis:8-trixie", "%s")
    assert "--network none" in said
    assert said.endswith("test $? = 124"), "124 is timeout's exit code for a program that still ran"


@pytest.mark.parametrize(("code", "text"), [(124, NEW), (0, b"good"), (1, b"good"), (125, b"good")])
def test_another_redis_has_to_accept_the_configuration_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: bytes
) -> None:
    """Another Redis image must accept the existing configuration, or the Compose file with that image is refused."""
    asked = tmp_path / "asked"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >> {asked}\ntest "$1" = compose || exit {code}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    dest = tmp_path / "data.yaml"
    dest.write_text("good")
    run(dest, data_services._services_accepted("redis:9-trixie", "/opt/app/redis.conf"))
    assert dest.read_bytes() == text
    tested, ran = asked.read_text().splitlines()
    assert f"-f {dest}.new config" in tested
    assert "source=/opt/app/redis.conf,target=/redis.conf,readonly" in ran
    assert " redis:9-trixie timeout 2 redis-server " in ran


def test_the_compose_file_of_the_data_services_is_placed_by_that_test() -> None:
    said = placing()["Write data.yaml"]["validate"]
    assert said.startswith("_services_accepted(values.redis_image, ")


@pytest.mark.parametrize(
    ("name", "tested"),
    [
        ("x.service", "verify --man=no --recursive-errors=no x.service"),
        ("docker.service.d/app.conf", "systemctl cat docker.service >/dev/null 2>&1 || exit 0;"),
    ],
)
def test_a_unit_is_tested_under_its_own_name(name: str, tested: str) -> None:
    facts: dict[Any, Any] = {FileState: None, PendingHandlers: frozenset()}
    _, write, *_ = commands(systemd_units, facts, units={name: b"[Unit]\n"}, handler="x")
    assert tested in write
    assert f"cp /etc/systemd/system/{name}.new $d/{name}" in write
    assert write.index("systemd-analyze verify") < write.index("mv -fT")


def test_systemd_s_own_configuration_has_no_test() -> None:
    facts: dict[Any, Any] = {FileState: None, PendingHandlers: frozenset()}
    units = {"/etc/systemd/system.conf.d/app.conf": b"[Manager]\n"}
    _, write, *_ = commands(systemd_units, facts, units=units, handler="x")
    assert "verify" not in write


def placing() -> dict[str, dict[str, str]]:
    """Return the source of the arguments of every `atomic_file(…)` call in the components, by the operation's name."""
    found = {}
    for path in sorted((ROOT / "deploys/components").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "atomic_file":
                arguments = {str(one.arg): ast.unparse(one.value) for one in call.keywords}
                found[arguments["name"].removeprefix("f").strip("'\"")] = arguments
    return found


def test_every_file_of_a_component_is_validated_or_has_a_reason_why_not() -> None:
    found = placing()
    assert len(found) > 15
    assert {name for name, arguments in found.items() if "validate" not in arguments} == set(UNTESTED)


def test_a_secret_is_root_s_to_read_alone() -> None:
    secret = {name: arguments.get("mode") for name, arguments in placing().items() if arguments.get("secret") == "True"}
    assert secret == dict.fromkeys(
        [
            "Write the app environment for the next release",
            "Write PostgreSQL's password",
            "Write Redis's password",
            "Write the registry's login",
            "Write the off-site credentials",
        ],
        "'600'",
    )
