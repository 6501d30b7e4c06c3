"""Each foreign thing is removed by the command for its kind."""

from __future__ import annotations

from typing import Any

import pytest

from deploys.facts.stackctl import Status
from deploys.operations import foreign, this_run
from deploys.operations.handlers import Handler
from tests.support.operations import Facts, commands, droplet


def seen(*found: dict[str, Any]) -> Facts:
    return {Status: {"foreign": list(found)}}


def finding(name: str, remedy: str, path: str | None = None) -> dict[str, Any]:
    return {"name": name, "what": "x", "remedy": remedy, "path": path, "next": "make site"}


MASK = finding("/run/systemd/system/x.service", "site", "/run/systemd/system/x.service")
SYSCTL = finding("sysctl:vm.swappiness", "site")
JOB = finding("/etc/cron.d/job", "remove", "/etc/cron.d/job")
OVERRIDE = finding("/etc/ssh/sshd_config.d/00-a.conf", "remove", "/etc/ssh/sshd_config.d/00-a.conf")


@pytest.mark.parametrize("status", [None, {}, {"foreign": None}, {"foreign": []}, {"foreign": [JOB]}])
def test_nothing_is_switched_off(status: Any) -> None:
    assert commands(foreign.undo_overrides, {Status: status}, sysctls="/etc/sysctl.d/60-app.conf") == []


@pytest.mark.parametrize("executing", [True, False])
def test_a_mask_goes_and_parameters_are_set_by_our_file_alone(*, executing: bool) -> None:
    arguments: dict[str, Any] = {"executing": executing, "sysctls": "/etc/sysctl.d/60-app.conf"}
    assert commands(foreign.undo_overrides, seen(MASK, SYSCTL, JOB), **arguments) == [
        "rm -f /run/systemd/system/x.service",
        "systemctl daemon-reload",
        "/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-app.conf",
    ]


def test_only_what_is_there_and_named_is_removed() -> None:
    names = ["/etc/cron.d/job", "/etc/cron.d/gone", MASK["name"]]
    assert commands(foreign.remove, seen(JOB, MASK, OVERRIDE), names=names, sshd=Handler("ssh", ["restart"])) == [
        "/usr/local/bin/stackctl remove-foreign /etc/cron.d/job"
    ]
    assert commands(foreign.remove, seen(JOB), names=[], sshd=Handler("ssh", ["restart"])) == []


def test_a_file_of_sshd_s_is_removed_on_trial() -> None:
    begin, remove, restart, confirm = commands(
        foreign.remove, seen(OVERRIDE), names=[OVERRIDE["name"]], sshd=Handler("ssh", ["restart"])
    )
    assert "trial begin ssh" in begin
    assert "remove-foreign /etc/ssh/sshd_config.d/00-a.conf" in remove
    assert "trial change ssh restart" in restart
    assert "confirm_by_new_login" in confirm


def test_a_converge_that_sshd_would_not_obey_ends_before_its_first_change(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(this_run, "refuse_to_begin", lambda _, cause: refused.append(cause))
    monkeypatch.setattr(this_run, "tell_foreign", lambda *_: None)
    overridden = {**finding("sshd:passwordauthentication", "refuse", OVERRIDE["path"]), "next": "make site REMOVE=x"}
    with droplet(seen(JOB, overridden)):
        foreign.report([OVERRIDE["path"]])
        assert refused == []
        foreign.report([])
    assert refused == ["x. Nothing was changed. Next: make site REMOVE=x"]
