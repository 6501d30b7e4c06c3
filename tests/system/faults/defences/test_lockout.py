"""The droplet itself reverts a mistake that locks everybody out of SSH, with and without a reboot in between.

The tests make the mistakes as an operator would, by a converge with the site's own operations (lockout.py). The tests
watch the locked droplet over a connection that was already open, or from the droplet's console.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from stackctl.core.paths import Paths
from tests.lab import lab as machines
from tests.lab import machine, processes
from tests.lab.layout import Machine, by_name
from tests.support import converge
from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("edge")

PATHS = Paths("toogoodtogo")
SLIP = "a slip in sshd's configuration"
DEAF = "an sshd that cannot start"
NOBODY = "an sshd that admits nobody"
KEYS = "a key file without the operator's key"
DENY = "a firewall that denies SSH"
MISTAKES = {DEAF: "ssh", NOBODY: "ssh", KEYS: "ssh", DENY: "firewall"}
WORDS = {
    DEAF: "Job for ssh.service failed",
    NOBODY: "no new login succeeded",
    KEYS: "no new login succeeded",
    DENY: "no new login succeeded",
}
ADMIT = "ssh | Configure SSH: keys only, no root"
PATIENCE_S = 120
"""The two minutes in docs/explanation/security.md. The test does not read them from the product."""
TAKES_S = 15
"""More seconds than the droplet needs to restore a firewall."""


def name_of(droplet: Host) -> str:
    return str(droplet.backend.get_hostname())


@pytest.fixture(autouse=True)
def way_back(lab: Environment, droplet: Host) -> Iterator[None]:
    """Open a connection before the mistake, to watch the droplet. At the end, revert open trials at the console."""
    droplet.check_output("true")
    yield
    there = by_name(name_of(droplet))
    for trial in ("ssh", "firewall"):
        machine.inside(there, "sh", "-c", f"! test -e {PATHS.trial_record(trial)} || stackctl trial undo {trial}")
    machine.inside(there, "systemctl", "enable", "--quiet", PATHS.units.trial_boot)
    lab.reconnect(name_of(droplet))


def make(mistake: str) -> str:
    """Run a converge with the mistake, which must fail. Return the output."""
    site = [*converge.PYINFRA[:-1], "tests/system/faults/defences/lockout.py", "-y", "--data", f"mistake={mistake}"]
    ran = subprocess.run(site, cwd=ROOT, capture_output=True, text=True, check=False)
    said = ran.stdout + ran.stderr
    assert ran.returncode != 0, said
    assert "Traceback" not in said
    return said


def admitted(lab: Environment, droplet: Host) -> bool:
    """Return whether the operator can open a new connection."""
    anew = ["-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=3"]
    command = ["ssh", "-F", lab.data["ssh_config_file"], *anew, name_of(droplet), "sudo -n true"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def what_counts(droplet: Host) -> str:
    """Return everything that a trial may change."""
    keys = "/home/deploy/.ssh/authorized_keys"
    return str(
        droplet.check_output(
            f"sha256sum /etc/ssh/sshd_config.d/* {keys} /etc/ufw/*.rules /etc/ufw/ufw.conf; "
            f"stat --format '%U:%G %a' /etc/ssh/sshd_config.d/* {keys}; ufw status"
        )
    )


def undone(droplet: Host, trial: str) -> bool:
    return not droplet.file(str(PATHS.trial_record(trial))).exists


def wait_until_undone(droplet: Host, trial: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not undone(droplet, trial):
        assert time.monotonic() < deadline, f"{trial} is still on trial after {within_s} s"
        time.sleep(1)


def last_run(droplet: Host) -> dict[str, object]:
    return dict(json.loads(droplet.check_output("stackctl history --json"))[-1])


def reboot_without_a_login(there: Machine) -> None:
    """Reboot the machine. The lab's own reboot waits for a login, which is impossible here."""
    before = processes.leader(there.name)
    machine.inside(there, "systemctl", "reboot")
    deadline = time.monotonic() + 60
    while processes.leader(there.name) in {before, None} and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(10)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_undone_within_two_minutes(lab: Environment, droplet: Host, mistake: str) -> None:
    trial = MISTAKES[mistake]
    before = what_counts(droplet)
    assert WORDS[mistake] in make(mistake)
    assert what_counts(droplet) != before
    assert not admitted(lab, droplet)
    assert f"on trial     {trial}, reverted at " in droplet.run("stackctl status").stdout
    time.sleep(PATIENCE_S / 2)
    droplet.check_output("systemctl daemon-reload")  # a package's script may reload systemd at any time
    wait_until_undone(droplet, trial, PATIENCE_S / 2 + TAKES_S)
    assert admitted(lab, droplet)
    assert what_counts(droplet) == before
    assert (last_run(droplet)["op"], last_run(droplet)["tag"], last_run(droplet)["code"]) == ("undo", trial, 0)
    assert "no new login had confirmed the change" in droplet.check_output(
        f"journalctl -b -u '{PATHS.units.trial_service(trial)}' --since -1min --output=cat"
    )
    # A declared value that is not in force is drift, which the converge corrects.
    assert converge.changed(converge.site()) == ({ADMIT} if trial == "ssh" else set())
    assert converge.planned() == set()


def test_a_slip_that_sshd_itself_finds_never_gets_there(lab: Environment, droplet: Host) -> None:
    before = what_counts(droplet)
    assert "Bad configuration option: PermitRootLogni" in make(SLIP)
    assert what_counts(droplet) == before
    assert admitted(lab, droplet)
    droplet.check_output("stackctl trial undo ssh")
    # The handler has been pending since the undone trial, so sshd is restarted once.
    assert converge.changed(converge.site()) == {ADMIT}
    assert converge.planned() == set()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_undone_by_a_reboot(lab: Environment, droplet: Host, mistake: str) -> None:
    trial = MISTAKES[mistake]
    before = what_counts(droplet)
    assert WORDS[mistake] in make(mistake)
    machines.reboot(by_name(name_of(droplet)))
    after = lab.reconnect(name_of(droplet))
    assert undone(after, trial)
    after.check_output("systemctl is-system-running --wait")
    assert what_counts(after) == before
    assert last_run(after)["op"] in {"undo", "boot"}
    assert "no new login had confirmed the change" in after.check_output(
        f"journalctl -b -u {PATHS.units.trial_boot} -o cat"
    )
    converge.site()
    assert converge.planned() == set()


def test_a_revert_that_fails_at_boot_is_repeated_until_it_succeeds(lab: Environment, droplet: Host) -> None:
    """A revert can fail at boot, for example because a file can't be written."""
    before = what_counts(droplet)
    make(NOBODY)
    record = PATHS.trial_record("ssh")
    # Change the boot ID in the record, because a container may keep its machine's boot ID.
    good, bad = 's|"boot": "|&another|', 's|"/etc/ssh/sshd_config"|"/proc/version"|'
    droplet.check_output(f"sed '{good}' {record} > /root/record && sed '{bad}' /root/record > /root/bad")
    droplet.check_output(f"mv /root/bad {record}")
    there = by_name(name_of(droplet))
    reboot_without_a_login(there)
    assert not admitted(lab, droplet)
    assert "could not be reverted" in machine.inside(there, "sh", "-c", "stackctl status || true")
    machine.inside(there, "mv", "/root/record", str(record))
    time.sleep(TAKES_S)
    assert admitted(lab, droplet)
    after = lab.reconnect(there.name)
    assert undone(after, "ssh")
    assert what_counts(after) == before
    after.check_output("systemctl reset-failed")
    converge.site()


def test_without_the_timer_a_lock_out_lasts(lab: Environment, droplet: Host) -> None:
    """As the control for the revert after two minutes, a droplet without the timer stays locked.

    The test also covers the operator's own `stackctl trial undo`.
    """
    make(NOBODY)
    droplet.check_output(f"systemctl stop {PATHS.units.trial_timer('ssh')}")
    time.sleep(PATIENCE_S + TAKES_S)
    assert not admitted(lab, droplet)
    assert "could not be reverted" in droplet.run("stackctl status").stdout
    droplet.check_output("stackctl trial undo ssh")
    assert admitted(lab, droplet)
    converge.site()


def test_without_its_unit_a_reboot_keeps_everybody_out(lab: Environment, droplet: Host) -> None:
    """As the control for the revert at boot, a droplet without the unit stays locked.

    The test also shows that the operator can return through the console.
    """
    there = by_name(name_of(droplet))
    make(DEAF)
    droplet.check_output(f"systemctl disable {PATHS.units.trial_boot}")
    reboot_without_a_login(there)
    assert not admitted(lab, droplet)
    machine.inside(there, "stackctl", "trial", "undo", "ssh")
    assert admitted(lab, droplet)
    lab.reconnect(there.name)
    machine.inside(there, "systemctl", "is-system-running", "--wait")
    converge.site()


def test_a_second_converge_keeps_what_was_confirmed_last(lab: Environment, droplet: Host) -> None:
    """A second converge during the trial of a failed converge must not take the mistake for the earlier state."""
    before = what_counts(droplet)
    make(DEAF)
    make(DEAF)
    droplet.check_output("stackctl trial undo ssh")
    assert what_counts(droplet) == before
    converge.site()


def test_a_change_that_comes_after_the_trial_is_refused(lab: Environment, droplet: Host) -> None:
    """The operator's machine sleeps after `trial begin` until the trial is over.

    Nothing would revert a change after the end of its trial.
    """
    before = what_counts(droplet)
    droplet.check_output("stackctl trial begin ssh")
    try:
        droplet.check_output("stackctl trial change ssh 'touch /etc/ssh/sshd_config.d/in-time.conf'")
        assert what_counts(droplet) != before
        wait_until_undone(droplet, "ssh", PATIENCE_S + TAKES_S)
        late = droplet.run("stackctl trial change ssh 'touch /etc/ssh/sshd_config.d/too-late.conf' || exit $?")
    finally:
        droplet.run("! test -e %s || stackctl trial undo ssh", str(PATHS.trial_record("ssh")))
    assert (late.rc, "no change to ssh is on trial any more" in late.stderr) == (2, True)
    assert what_counts(droplet) == before


def test_a_confirmation_without_a_trial_is_refused(lab: Environment, droplet: Host) -> None:
    ran = droplet.run("stackctl trial confirm ssh || exit $?")
    assert (ran.rc, "no change to ssh is on trial" in ran.stderr) == (2, True)


def test_root_logs_in_at_the_console_with_a_password(lab: Environment, droplet: Host) -> None:
    """If SSH is broken, root can log in at DigitalOcean's recovery console, after "Reset root password"."""
    there = by_name(name_of(droplet))
    locked = machine.inside(there, "getent", "shadow", "root").split(":")[1]
    machine.inside(there, "chpasswd", stdin="root:a password for the console\n")
    try:
        program = Path(__file__).with_name("log_in_at_a_terminal.py")
        right = lab.run_python(droplet, program, stdin=b"a password for the console")
        assert b"\nI am root" in right.stdout, right.stdout
        wrong = lab.run_python(droplet, program, stdin=b"a guess")
        assert b"Login incorrect" in wrong.stdout
        assert b"\nI am root" not in wrong.stdout
    finally:
        machine.inside(there, "usermod", "--password", locked, "root")
