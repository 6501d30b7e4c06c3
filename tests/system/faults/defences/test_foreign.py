"""Changes by hand are reported.

A converge reverts changes that override the site. Other changes are removed by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.support import converge, environment
from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("edge")

SSHD = "/etc/ssh/sshd_config.d/00-aaa.conf"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
FINGERPRINT = "SHA256:UnaPFMglArmuVyv4/0dhJn8L3VB8N2X4YtMrOoRv6gU"
UNIT = "/etc/systemd/system/stranger.service"
PLANTED = {
    "account:toor": "echo toor:x:0:0::/root:/bin/bash >>/etc/passwd; echo 'toor:*:1::::::' >>/etc/shadow",
    "/etc/sudoers.d/zz": "echo 'nobody ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/zz",
    f"key:root:{FINGERPRINT}": f"install -d -m 700 /root/.ssh; echo {KEY} >/root/.ssh/authorized_keys2",
    SSHD: f"echo PasswordAuthentication yes >{SSHD}",
    "member:docker:nobody": "gpasswd -a nobody docker",
    "/etc/cron.d/job": "echo '* * * * * root true' >/etc/cron.d/job",
    UNIT: f"printf '[Service]\\nExecStart=/bin/sleep 1000\\n[Install]\\nWantedBy=multi-user.target\\n' >{UNIT}; "
    "systemctl enable --now stranger",
    "/etc/sysctl.d/99-zz.conf": "echo net.ipv4.conf.all.rp_filter=0 >/etc/sysctl.d/99-zz.conf",
}
"""The commands that plant foreign things, by the name with which each thing is removed."""
SWITCHED_OFF = {
    "sysctl:net.ipv4.conf.all.rp_filter": "sysctl --quiet --write net.ipv4.conf.all.rp_filter=0",
    "/etc/systemd/system/fail2ban.service": "systemctl mask --now fail2ban",
}
"""The changes that the next converge reverts by itself."""


def planned() -> dict[str, Any]:
    command = [sys.executable, "-m", "deploys.converge.plan", "inventories/lab.py", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout))


def found(droplet: Host) -> set[str]:
    return {one["name"] for one in environment.status(droplet)["foreign"]}


@pytest.fixture
def _planted(droplet: Host) -> Iterator[None]:
    assert found(droplet) == set()
    assert planned()["foreign"] == {}
    try:
        for command in (*PLANTED.values(), *SWITCHED_OFF.values()):
            droplet.check_output(command)
        yield
    finally:
        # Remove all planted things, even if the test failed half-way.
        droplet.run(
            f"systemctl disable --now stranger; rm -f {UNIT} {SSHD} /etc/sudoers.d/zz /etc/cron.d/job "
            "/etc/sysctl.d/99-zz.conf /root/.ssh/authorized_keys2; gpasswd -d nobody docker; userdel -f toor; "
            "systemctl unmask fail2ban; systemctl daemon-reload; systemctl enable --now fail2ban; "
            "sysctl --quiet --write net.ipv4.conf.all.rp_filter=1"
        )


@pytest.mark.usefixtures("_planted")
def test_manual_changes_are_reported_mended_and_removed_by_name(lab: Environment, droplet: Host) -> None:
    everything = {*PLANTED, *SWITCHED_OFF, "sshd:passwordauthentication"}
    assert found(droplet) == everything
    assert droplet.run("stackctl status").rc == 4
    told = "\n".join(planned()["foreign"][droplet.backend.get_hostname()])
    assert {name for name in everything if f"{name}: " not in told} == set()

    refused = converge.failing_site()
    assert f"make site REMOVE={SSHD}" in refused
    assert found(droplet) == everything

    # The change to sshd's file goes on trial. The converge restores masked and overridden units. Unnamed things stay.
    converge.site("--data", f'foreign_removed="{SSHD}"')
    assert found(droplet) == PLANTED.keys() - {SSHD}
    assert droplet.service("fail2ban").is_running
    assert droplet.check_output("cat /proc/sys/net/ipv4/conf/all/rp_filter") == "1"

    accepted = {**lab.data["foreign_accepted"], "/etc/cron.d/job": "a test's"}
    converge.site("--data", f"foreign_accepted={json.dumps(accepted)}")
    assert found(droplet) == PLANTED.keys() - {SSHD, "/etc/cron.d/job"}
    assert "/etc/cron.d/job" in environment.status(droplet)["foreign_accepted"]

    converge.site("--data", f'foreign_removed="{" ".join(found(droplet))}"')
    assert found(droplet) == {"/etc/cron.d/job"}
    assert droplet.run("id toor").rc == 1
    assert droplet.run("systemctl is-active stranger").rc != 0
    converge.site("--data", 'foreign_removed="/etc/cron.d/job"')
    assert (found(droplet), planned()["changed"]) == (set(), 0)
