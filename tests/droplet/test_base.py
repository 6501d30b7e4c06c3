"""Checks for every droplet: packages, time, limits and the operator's account."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from deploys import build
from stackctl.core import instance
from tests.support.environment import Environment, contained

pytestmark = pytest.mark.group("everywhere")


def test_debian_13(droplet: Host) -> None:
    assert (droplet.system_info.distribution, droplet.system_info.release.split(".")[0]) == ("debian", "13")


def test_no_unit_has_failed(droplet: Host) -> None:
    assert droplet.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_no_handler_is_pending(droplet: Host, env: Environment) -> None:
    """No file of a pending handler exists. The search fails if even the parent directory is missing."""
    paths = env.settings.paths
    assert droplet.check_output(f"find {paths.var} -mindepth 2 -maxdepth 2 -path '{paths.pending_handlers}/*'") == ""


def test_security_upgrades_are_installed_automatically(droplet: Host) -> None:
    """CIS Debian 1.2.2; dev-sec os-10."""
    assert 'APT::Periodic::Unattended-Upgrade "1";' in droplet.check_output("apt-config dump")
    origins = droplet.check_output("apt-config dump Unattended-Upgrade::Origins-Pattern")
    assert "label=Debian-Security" in origins
    timer = droplet.service("apt-daily-upgrade.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_apt_waits_for_its_lock(droplet: Host) -> None:
    assert 'DPkg::Lock::Timeout "300";' in droplet.check_output("apt-config dump DPkg::Lock::Timeout")


def test_time_zone_and_clock(droplet: Host, env: Environment) -> None:
    assert droplet.check_output("timedatectl show --property=Timezone --value") == env.settings.values.timezone
    timesyncd = droplet.service("systemd-timesyncd.service")
    assert timesyncd.is_enabled
    if contained(droplet):  # A container has its host's clock, so systemd does not start timesyncd there.
        conditions = "systemctl show --property=ConditionResult --property=Result systemd-timesyncd.service"
        assert set(droplet.check_output(conditions).split()) == {"ConditionResult=no", "Result=success"}
    else:
        assert timesyncd.is_running
        assert droplet.check_output("timedatectl show --property=NTPSynchronized --value") == "yes"


def test_the_converge_recorded_this_droplet(droplet: Host, env: Environment) -> None:
    """The recorded instance ID is the present one, so the droplet is no copy. Without cloud-init, there is no ID."""
    present = droplet.run(f"cat {env.settings.paths.instance_id}").stdout
    recorded = json.loads(droplet.check_output(f"cat {env.settings.paths.config}"))["instance_id"]
    assert recorded == instance.parse(present) or (recorded and not instance.parse(present))


def test_cloud_init_keeps_the_declared_hostname(droplet: Host, env: Environment) -> None:
    assert droplet.check_output("hostname") == droplet.backend.get_hostname()
    config = droplet.file(f"/etc/cloud/cloud.cfg.d/99-{env.settings.values.app}.cfg").content_string
    assert "preserve_hostname: true" in config.splitlines()


def test_the_journal_is_kept_and_bounded(droplet: Host, env: Environment) -> None:
    config = droplet.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert f"\nSystemMaxUse={env.settings.values.journal_max_mib}M" in config
    assert droplet.file("/var/log/journal").is_directory


def test_swap_is_on_where_the_machine_allows_it(droplet: Host, env: Environment) -> None:
    """A container uses its host's swap."""
    if contained(droplet):
        assert not droplet.file("/swapfile").exists
        return
    sizes = droplet.check_output("swapon --show=SIZE --bytes --noheadings /swapfile 2>/dev/null || true").split()
    assert abs(sum(map(int, sizes)) - env.settings.values.swap_mib * 2**20) < 2**20
    declared = [line.split() for line in droplet.file("/etc/fstab").content_string.splitlines()]
    at_boot = [fields[1:3] for fields in declared if fields[:1] == ["/swapfile"]]
    assert at_boot == ([["none", "swap"]] if env.settings.values.swap_mib else [])


def test_the_operator_becomes_root_with_a_key_and_no_password(droplet: Host, env: Environment) -> None:
    operator = env.settings.values.operator
    assert droplet.check_output(f"sudo -n -u {operator} sudo -n id -u") == "0"
    assert droplet.check_output(f"passwd --status {operator}").split()[1] == "L"  # L: the password is locked
    keys = droplet.file(f"/home/{operator}/.ssh/authorized_keys")
    assert keys.content == env.settings.authorized_keys
    assert (keys.mode, keys.user) == (0o600, operator)


def test_stackctl_is_the_program_of_this_checkout(droplet: Host, env: Environment) -> None:
    program = droplet.file("/usr/local/bin/stackctl")
    assert program.content == build.stackctl(env.settings.values.app)
    assert (program.mode, program.user) == (0o755, "root")


def test_nothing_on_the_droplet_is_foreign(droplet: Host) -> None:
    """Every foreign thing on the droplet has been accepted.

    tests/unit/stackctl/host/test_foreign.py tests the comparison.
    """
    assert json.loads(droplet.run("stackctl status --json").stdout)["foreign"] == []
