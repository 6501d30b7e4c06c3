"""Swap, packages, file modes and accounts are changed as declared."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File, FindInFile

from deploys.facts.accounts import LoginShell
from deploys.facts.machine import CloudInitStatus, Container, HalfInstalled, Modes, SwapfileMib, Swaps
from deploys.operations.accounts import user
from deploys.operations.machine import new_machine_id, permissions, swapfile, wait_for_cloud_init
from deploys.operations.packages import packages, repair_interrupted_dpkg
from tests.support.operations import Facts, commands


def test_cloud_init_is_waited_for_only_while_it_runs() -> None:
    assert commands(wait_for_cloud_init, {CloudInitStatus: "done"}) == []
    assert commands(wait_for_cloud_init, {CloudInitStatus: None}) == []
    assert commands(wait_for_cloud_init, {CloudInitStatus: "running"}) == ["timeout 600 cloud-init status --wait"]


@pytest.mark.parametrize("old", ["0" * 32, ""])
def test_a_copy_gets_a_machine_id_of_its_own_and_keeps_the_journal(old: str, tmp_path: Path) -> None:
    """systemd-id128 and systemctl are fakes here."""
    (programs := tmp_path / "programs").mkdir()
    for name, does in {"systemd-id128": f"echo {'1' * 32}", "systemctl": f'echo "$@" > {tmp_path}/called'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    journal = tmp_path / "var/log/journal"
    (journal / ("0" * 32)).mkdir(parents=True)
    (journal / ("0" * 32) / "system.journal").touch()
    (machine_id := tmp_path / "etc/machine-id").parent.mkdir()
    machine_id.write_text(old)
    [command] = commands(new_machine_id, {})
    line = command.replace("/etc/", f"{tmp_path}/etc/").replace("/var/", f"{tmp_path}/var/")
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", line], check=True, env={"PATH": path})
    assert machine_id.read_text() == "1" * 32 + "\n"
    assert machine_id.stat().st_mode & 0o777 == 0o444
    assert [one.name for one in journal.iterdir()] == ["1" * 32 if old else "0" * 32]
    assert (tmp_path / "called").read_text() == "restart systemd-journald.service\n"


def test_a_swap_file_is_made_whole_and_swapped_on() -> None:
    there: Facts = {Container: False, SwapfileMib: 1024, Swaps: frozenset({"/swapfile"}), FindInFile: ["x"]}
    assert commands(swapfile, there, mib=1024) == []
    assert commands(swapfile, {**there, Swaps: frozenset()}, mib=1024) == ["swapon /swapfile"]
    assert commands(swapfile, {Container: True}, mib=1024) == []
    made = commands(swapfile, {**there, SwapfileMib: 0}, mib=1024)
    assert [one.split()[0] for one in made] == ["swapoff", "fallocate", "mkswap", "swapon"]


def test_packages_are_installed_only_when_one_is_missing() -> None:
    assert commands(packages, {DebPackages: {"ufw": {"1"}}}, packages=["ufw"]) == []
    there: Facts = {DebPackages: {"ufw": {"1"}}, File: None}
    waits, *rest = commands(packages, there, packages=["ufw", "nginx"])
    assert waits == "timeout 600 python3 -"
    assert "apt-get update" in " ".join(rest[:-1])
    assert rest[-1].endswith("install --no-install-recommends nginx")


def test_packages_are_removed_only_when_they_are_there() -> None:
    there: Facts = {DebPackages: {"telnet": {"1"}, "curl": {"1"}}}
    assert commands(packages, there, present=False, packages=["nis"]) == []
    waits, purge = commands(packages, there, present=False, packages=["nis", "telnet"])
    assert waits == "timeout 600 python3 -"
    assert purge.endswith("apt-get --yes purge telnet")


def test_modes_are_mended_of_what_is_there() -> None:
    there: Facts = {Modes: {"/boot": "755", "/etc/cron.d": "700"}}
    wanted = {"/boot": "700", "/etc/cron.d": "700", "/etc/crontab": "600"}
    assert commands(permissions, there, wanted=wanted) == ["chmod 700 /boot"]
    assert commands(permissions, {Modes: {"/boot": "700"}}, wanted=wanted) == []


def test_an_account_is_made_once() -> None:
    assert commands(user, {LoginShell: "/bin/bash"}, login="deploy") == []
    assert commands(user, {LoginShell: None}, login="deploy") == ["useradd --create-home --shell /bin/bash deploy"]
    assert commands(user, {LoginShell: "/bin/sh"}, login="deploy") == ["usermod --shell /bin/bash deploy"]


def test_a_half_installed_package_is_finished() -> None:
    assert commands(repair_interrupted_dpkg, {HalfInstalled: False}) == []
    wait, configure, fix = commands(repair_interrupted_dpkg, {HalfInstalled: True})
    assert wait == "timeout 600 python3 -", "another user of dpkg must get time to finish"
    assert "--configure --pending" in configure
    assert "--fix-broken" in fix
