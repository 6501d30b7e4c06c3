"""Upgrades and reboots wait, renewals run in a sandbox, logs are bounded, and changed files are found."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab.layout import by_name
from tests.support import converge
from tests.support.environment import Environment

pytestmark = pytest.mark.group("edge")

UPGRADE = "apt-daily-upgrade.service"
LOG = "/var/log/nginx/access.log"
BOOT = "stat --format=%Y /proc/1"
"""The time when init started. A container keeps its boot ID."""


@contextmanager
def somebody_at_work(droplet: Host, lab: Environment) -> Iterator[None]:
    """Hold both of stackctl's locks for at most half a minute, as a release or a backup does."""
    paths = lab.settings.paths
    droplet.check_output(f"systemd-run --quiet --unit=at-work flock {paths.lock} flock {paths.work} sleep 30")
    try:
        yield
    finally:
        droplet.check_output("systemctl stop at-work")


def state(droplet: Host, unit: str) -> str:
    return str(droplet.check_output(f"systemctl show --property=ActiveState --value {unit}"))


def wait_until(droplet: Host, unit: str, wanted: str) -> None:
    asked = f"systemctl show --property=ActiveState --value {unit}"
    droplet.check_output(f"timeout 120 sh -c 'until [ $({asked}) = {wanted} ]; do sleep 0.2; done'")


def test_the_daily_upgrade_waits_for_what_is_under_way(droplet: Host, lab: Environment) -> None:
    with somebody_at_work(droplet, lab):
        droplet.check_output(f"systemctl start --no-block {UPGRADE}")
        time.sleep(3)
        assert state(droplet, UPGRADE) == "activating"
        assert droplet.run("pgrep --full apt[.]systemd[.]daily").rc == 1
    wait_until(droplet, UPGRADE, "inactive")
    assert droplet.check_output(f"systemctl show --property=Result --value {UPGRADE}") == "success"
    assert droplet.run("stackctl status").rc == 0


def test_a_release_is_refused_by_name_while_packages_are_upgraded(droplet: Host, lab: Environment) -> None:
    """dpkg's lock makes the upgrade wait, while the upgrade already holds both of stackctl's locks."""
    hold_dpkg = (
        "import fcntl, time; fcntl.lockf(open('/var/lib/dpkg/lock-frontend', 'w'), fcntl.LOCK_EX); time.sleep(20)"
    )
    droplet.check_output(f'systemd-run --quiet --unit=at-dpkg python3 -c "{hold_dpkg}"')
    try:
        # Make today's upgrade run again.
        droplet.check_output("rm -f /var/lib/apt/periodic/upgrade-stamp")
        droplet.check_output(f"systemctl start --no-block {UPGRADE}")
        droplet.check_output("timeout 30 sh -c 'until pgrep --full apt[.]systemd[.]daily; do sleep 0.1; done'")
        refused = droplet.run("stackctl release 1.0.0")
        assert refused.rc == 3
        assert "the daily upgrade of Debian's packages has held the lock since" in refused.stderr
    finally:
        droplet.check_output("systemctl stop at-dpkg")
        wait_until(droplet, UPGRADE, "inactive")


@pytest.fixture
def forced(droplet: Host) -> Iterator[str]:
    """Make certbot's own unit renew a certificate of any age, in the unit's sandbox. Remove the change afterwards."""
    lines = "[Service]\\nExecStart=\\nExecStart=/usr/bin/certbot -q renew --force-renewal --no-random-sleep-on-renew\\n"
    directory = "/run/systemd/system/certbot.service.d"
    droplet.check_output(f"mkdir -p {directory} && printf '{lines}' > {directory}/zz.conf && systemctl daemon-reload")
    yield "certbot.service"
    droplet.check_output(f"rm -r {directory} && systemctl daemon-reload")


def test_a_renewal_works_in_its_sandbox(droplet: Host, lab: Environment, forced: str) -> None:
    paths, domain = lab.settings.paths, lab.settings.values.domain
    served = f"openssl s_client -connect 127.0.0.1:443 -servername {domain} </dev/null 2>/dev/null"
    asked = f"{served} | openssl x509 -noout -serial"
    before = droplet.check_output(asked)
    droplet.check_output(f"systemctl start {forced}")
    assert droplet.check_output(asked) != before
    # Our own unit has the same sandbox.
    droplet.check_output(f"systemctl start {paths.units.certificate_service}")


def test_the_sandbox_keeps_it_from_the_rest(droplet: Host, lab: Environment) -> None:
    """A program in the renewal's unit can write only to the files of a renewal.

    As the control, the same program also runs without the sandbox.
    """
    paths = lab.settings.paths
    unit = paths.units.certificate_service
    properties = droplet.check_output(
        f"systemctl cat {unit} | sed -n '/ExecStart=/,$p' | grep = | grep -v ExecStart"
    ).splitlines()
    sandbox = " ".join(f"--property='{line}'" for line in properties)
    probes = {"/etc/of-the-tests": 1, f"{paths.opt}/of-the-tests": 1, f"{paths.tls}/of-the-tests": 0}
    for path, code in probes.items():
        inside = droplet.run(f"systemd-run --quiet --wait --collect {sandbox} touch {path}")
        assert bool(inside.rc) == bool(code), path
        assert droplet.run(f"systemd-run --quiet --wait --collect touch {path}").rc == 0
        droplet.check_output(f"rm -f {path}")


def test_a_flood_in_the_access_log_is_cut_within_one_look(droplet: Host) -> None:
    droplet.check_output(f"rm -f {LOG}.[0-9]*; head -c 70000000 /dev/zero | tr '\\0' x >> {LOG}; echo >> {LOG}")
    droplet.check_output("systemctl start logrotate.service")
    assert droplet.file(LOG).size < 1_000_000
    assert droplet.file(f"{LOG}.1").size > 60_000_000
    droplet.check_output(f"rm {LOG}.1")
    # nginx now writes to the new log.
    size = droplet.file(LOG).size
    droplet.run("curl -s -o /dev/null http://127.0.0.1/ -H 'Host: nobody.test'; sleep 1")
    assert droplet.file(LOG).size > size


def test_debian_s_own_rotation_would_wait_for_the_night(droplet: Host) -> None:
    """Control: without the rule for the size, the log of the same flood is rotated only at night."""
    rules, status = "/root/logrotate-of-the-tests", "/root/logrotate-of-the-tests.status"
    droplet.check_output(f"grep -v maxsize /etc/logrotate.d/nginx > {rules}; logrotate --state {status} {rules}")
    try:
        droplet.check_output(f"head -c 70000000 /dev/zero | tr '\\0' x >> {LOG}; echo >> {LOG}")
        droplet.check_output(f"logrotate --state {status} {rules}")
        assert droplet.file(LOG).size > 60_000_000
    finally:
        droplet.check_output(f"rm {rules} {status}; systemctl start logrotate.service; rm -f {LOG}.1")


def test_a_changed_file_of_a_debian_package_is_reported(droplet: Host, lab: Environment) -> None:
    unit = lab.settings.paths.units.integrity_service
    file = droplet.check_output("dpkg --listfiles debsums | grep '/bin/debsums$'")
    droplet.check_output(f"systemctl start {unit}")
    assert droplet.run("stackctl status").rc == 0
    droplet.check_output(f"cp --preserve=all {file} /root/of-the-tests && echo '# changed' >> {file}")
    try:
        assert droplet.run(f"systemctl start {unit}").rc != 0
        said = droplet.run("stackctl status")
        assert said.rc == 4
        assert "files of Debian's packages have changed since they were installed" in said.stdout
        assert file in droplet.check_output(f"journalctl --unit={unit} --lines=10 --output=cat --no-pager")
    finally:
        droplet.check_output(f"mv /root/of-the-tests {file}")
        droplet.check_output(f"systemctl start {unit}")
    assert droplet.run("stackctl status").rc == 0


def test_a_service_with_a_replaced_program_has_a_reboot_due(droplet: Host) -> None:
    """A replaced program makes a reboot due, just like a replaced library, because needrestart reports both."""
    marks, program = "/run/reboot-required /run/reboot-required.pkgs", "/root/of-the-tests"
    droplet.check_output(f"rm -f {marks}; systemctl start {UPGRADE}")
    assert "outdated.service" not in droplet.run("stackctl status").stdout
    droplet.check_output(f"cp /usr/bin/sleep {program}")
    droplet.check_output(f"systemd-run --quiet --collect --unit=outdated --property=Type=exec {program} 300")
    try:
        droplet.check_output(f"rm {program}; systemctl start {UPGRADE}")
        said = droplet.run("stackctl status")
        assert re.search(r"reboot +due, for .*outdated\.service", said.stdout)
        # The only problem in `status` is the undeclared unit, because a due reboot is no problem.
        problems = json.loads(droplet.run("stackctl status --json").stdout)["problems"]
        assert [one.partition(":")[0] for one in problems] == ["/run/systemd/transient/outdated.service"]
    finally:
        droplet.check_output(f"systemctl stop outdated; rm -f {marks}")


def test_a_reboot_that_is_due_waits_for_its_window_and_for_what_is_under_way(droplet: Host, lab: Environment) -> None:
    paths, name = lab.settings.paths, droplet.backend.get_hostname()
    booted = droplet.check_output(BOOT)
    droplet.check_output("rm -f /run/reboot-required")
    droplet.check_output(f"systemctl start {paths.units.reboot_service}")  # does nothing, because no reboot is due
    assert droplet.check_output(BOOT) == booted
    droplet.check_output("touch /run/reboot-required; echo linux-image-of-the-tests > /run/reboot-required.pkgs")
    said = droplet.run("stackctl status")
    assert "due, for linux-image-of-the-tests. Next: sudo systemctl reboot" in said.stdout
    assert said.rc == 0
    with somebody_at_work(droplet, lab):
        droplet.check_output(f"systemctl start --no-block {paths.units.reboot_service}")
        time.sleep(3)
        assert state(droplet, paths.units.reboot_service) == "activating"
    after = _back(lab, name, booted)
    assert not after.file("/run/reboot-required").exists
    after.check_output(f"timeout 120 sh -c 'until systemctl is-active --quiet {paths.units.app}; do sleep 0.5; done'")
    assert after.run("stackctl status").rc == 0


def test_every_check_passes_after_a_crash(droplet: Host, lab: Environment) -> None:
    """`make test` runs the short version, tests/system/converge/test_boot.py."""
    name = droplet.backend.get_hostname()
    machines.crash(by_name(name))
    lab.reconnect(name).check_output("systemctl is-system-running --wait")
    converge.checks()


def _back(lab: Environment, name: str, before: str) -> Host:
    """Return the droplet after its reboot, as soon as it accepts logins."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        time.sleep(1)
        host = lab.reconnect(name)
        with suppress(RuntimeError):  # testinfra raises RuntimeError if the host does not answer
            if host.check_output(BOOT) != before:
                return host
    raise AssertionError(f"{name} was not rebooted")
