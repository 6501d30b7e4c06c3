"""The host's hardening.

Tests of the droplet's hardening. The tests cite dev-sec's linux-baseline (os-, package-, sysctl-) and CIS Debian Linux
12 (1.1 …).
"""

from __future__ import annotations

import re
import shlex

import pytest
from testinfra.host import Host

from deploys import build
from deploys.components import hardening
from tests.support.environment import Environment, contained

pytestmark = pytest.mark.group("everywhere")


def parameters(env: Environment, droplet: Host) -> dict[str, str]:
    """Return the kernel parameters in /etc/sysctl.d by name."""
    lines = droplet.file(f"/etc/sysctl.d/60-{env.settings.values.app}.conf").content_string.splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def test_the_kernel_has_its_parameters(droplet: Host, env: Environment) -> None:
    """dev-sec sysctl-02, sysctl-03, sysctl-04, sysctl-05, sysctl-06, sysctl-08, sysctl-09, sysctl-10, sysctl-11,
    sysctl-12, sysctl-13, sysctl-14, sysctl-15, sysctl-16, sysctl-17, sysctl-20, sysctl-21, sysctl-22, sysctl-23,
    sysctl-24, sysctl-25, sysctl-26, sysctl-28, sysctl-30, sysctl-31a, sysctl-31b, sysctl-32, sysctl-34, sysctl-35.
    CIS 1.5, 3.3.

    A container has only the parameters of its network. The other parameters are checked on machines with their own
    kernel.
    """
    declared = parameters(env, droplet)
    files = {name: "/proc/sys/" + name.replace(".", "/") for name in declared}
    writable = set(
        droplet.check_output(f"for f in {' '.join(files.values())}; do test -w $f && echo $f; done; true").split()
    )
    names = [name for name, file in files.items() if file in writable]
    values = droplet.check_output(f"sysctl --values {' '.join(names)}").splitlines()
    assert dict(zip(names, values, strict=True)) == {name: declared[name] for name in names}
    assert len([name for name in names if name.startswith("net.")]) > 30
    if not contained(droplet):
        assert names == list(declared)
        assert {"kernel.kptr_restrict", "fs.suid_dumpable", "kernel.yama.ptrace_scope"} <= set(names)


def test_the_kernel_drops_packets_with_an_unroutable_source(droplet: Host) -> None:
    """dev-sec sysctl-02; CIS 3.3.7. Each interface's own value counts, because the value of `all` is only a minimum."""
    values = droplet.check_output("grep . /proc/sys/net/ipv4/conf/*/rp_filter").splitlines()
    assert len(values) > 3
    assert [line for line in values if not line.endswith(":1")] == []


def test_ufw_overrides_no_kernel_parameter(droplet: Host) -> None:
    """ufw applies its own file of kernel parameters after systemd-sysctl."""
    assert "IPT_SYSCTL=/etc/ufw/sysctl.conf" in droplet.file("/etc/default/ufw").content_string
    lines = droplet.file("/etc/ufw/sysctl.conf").content_string.splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize(
    "module",
    [
        *("cramfs", "freevxfs", "hfs", "hfsplus", "jffs2", "udf", "dccp", "sctp", "usb-storage"),
        *("algif_aead", "can", "ax25", "n_hdlc", "rxrpc", "cifs", "ksmbd"),
    ],
)
def test_unneeded_kernel_modules_are_not_loaded(droplet: Host, module: str) -> None:
    """dev-sec os-10; CIS 1.1.1, 3.2."""
    modules = droplet.check_output("cat /proc/modules 2>/dev/null || true").splitlines()  # containers lack this file
    loaded = [line.split()[0] for line in modules]
    assert f"install {module} /bin/false" in droplet.check_output("cat /etc/modprobe.d/*.conf").splitlines()
    assert module.replace("-", "_") not in loaded


@pytest.mark.parametrize("mount", ["/tmp", "/dev/shm"])
def test_no_program_runs_from_a_world_writable_mount(droplet: Host, mount: str) -> None:
    """dev-sec os-14, os-15, os-16; CIS 1.1.2."""
    options = droplet.check_output(f"findmnt --noheadings --output OPTIONS {mount}").split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)


def test_no_program_runs_from_dev(droplet: Host) -> None:
    """dev-sec os-14; lynis FILE-6374."""
    assert {"nosuid", "noexec"} <= set(droplet.check_output("findmnt --noheadings --output OPTIONS /dev").split(","))


def test_no_program_runs_from_tmp_even_if_it_is_no_mount(droplet: Host) -> None:
    """Unmount /tmp in a mount namespace of the test, as on a droplet where tmp.mount is masked."""
    lines = build.file("hardening/mounts.service").decode().splitlines()
    unit = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    seen = "findmnt --noheadings --output OPTIONS /tmp"
    program = " && ".join(["umount --lazy /tmp", f"! {seen}", *unit, seen])
    options = droplet.check_output(f"unshare --mount sh -c {shlex.quote(program)}").split(",")
    assert {"nosuid", "nodev", "noexec"} <= set(options)


def test_no_process_dumps_core(droplet: Host, env: Environment) -> None:
    """dev-sec sysctl-31a; CIS 1.5.4.

    `limits.d` limits the core dumps of logins, and systemd limits the core dumps of services.
    """
    operator = env.settings.values.operator
    assert droplet.check_output(f"sudo -u {operator} -i bash -c 'ulimit -H -c'") == "0"
    assert droplet.check_output("systemctl show --property=DefaultLimitCORE --value") == "0"


@pytest.mark.group("edge")
@pytest.mark.parametrize("service", ["ssh", "nginx"])
def test_a_service_outlives_a_process_of_its_own_that_the_kernel_kills(droplet: Host, service: str) -> None:
    """The kernel kills a process if the memory is used up. The service's other processes continue, or it restarts."""
    shown = droplet.check_output(f"systemctl show --property=OOMPolicy --property=Restart {service}.service")
    assert set(shown.splitlines()) == {"OOMPolicy=continue", "Restart=on-failure"}


def test_the_umask_of_people_is_strict_and_that_of_a_converge_is_as_declared(droplet: Host, env: Environment) -> None:
    """dev-sec os-05; CIS 5.4.3.3."""
    assert droplet.check_output(f"sudo -u {env.settings.values.operator} bash -lc umask") == "0027"
    assert "UMASK 027" in droplet.file("/etc/login.defs").content_string.splitlines()
    assert droplet.check_output("sudo bash -c umask") == "0022"


def test_an_idle_shell_ends(droplet: Host, env: Environment) -> None:
    """CIS 5.4.3.2."""
    said = droplet.run(f"sudo -u {env.settings.values.operator} bash -lc 'echo $TMOUT; TMOUT=0'")
    assert said.stdout.strip() == "1800"
    assert "readonly variable" in said.stderr


def test_password_ageing_locks_no_account_without_a_password(droplet: Host, env: Environment) -> None:
    """Unlike os-05 and CIS 5.4.1.1, no password expires, because sshd would then refuse even the account's key."""
    fields = droplet.check_output(f"getent shadow {env.settings.values.operator}").split(":")
    assert fields[4] in ("", "99999")
    assert fields[7] == ""


def test_sudo_uses_a_new_terminal_and_logs_each_call(droplet: Host, env: Environment) -> None:
    """CIS 5.2.2, 5.2.3."""
    droplet.check_output(f"sudo -u {env.settings.values.operator} sudo -n true")
    assert "use_pty" in droplet.check_output(f"sudo -l -U {env.settings.values.operator}")
    assert "COMMAND=/usr/bin/true" in droplet.check_output("journalctl -t sudo -n 20 --no-pager --output=cat")


def test_only_root_may_schedule_jobs(droplet: Host) -> None:
    """dev-sec os-13; CIS 2.4."""
    for path in ("/etc/cron.allow", "/etc/at.allow"):
        file = droplet.file(path)
        assert (file.content_string, file.mode, file.user) == ("root\n", 0o600, "root")


@pytest.mark.parametrize(("path", "mode"), hardening.ROOT_ONLY.items())
def test_only_root_can_read_sensitive_files(droplet: Host, path: str, mode: str) -> None:
    """dev-sec os-13; CIS 1.4.1, 2.4.1, 5.1.1."""
    file = droplet.file(path)
    assert file.exists or "/cron" in path  # a droplet may lack cron and its files
    assert not file.exists or (oct(file.mode)[2:], file.user) == (mode, "root")


def test_accounts(droplet: Host) -> None:
    """dev-sec os-02, os-03, os-03b, os-07, os-09; CIS 7.1, 7.2: one root, passwords only in shadow, unique IDs."""
    accounts = [line.split(":") for line in droplet.check_output("getent passwd").splitlines()]
    assert [one[0] for one in accounts if one[2] == "0"] == ["root"]
    assert {one[1] for one in accounts} == {"x"}
    assert len({one[2] for one in accounts}) == len({one[0] for one in accounts}) == len(accounts)
    for path, mode, group in (("passwd", 0o644, "root"), ("group", 0o644, "root"), ("shadow", 0o640, "shadow")):
        file = droplet.file(f"/etc/{path}")
        assert (file.mode, file.user, file.group) == (mode, "root", group)
    assert droplet.check_output("find /root /home -name .rhosts -o -name .netrc") == ""


def test_no_clear_text_service_or_client_is_installed(droplet: Host) -> None:
    """dev-sec package-01, package-02, package-03, package-05, package-06; CIS 2.1, 2.2."""
    there = set(droplet.check_output("dpkg-query --show --showformat='${Package}\\n'").splitlines())
    assert set(hardening.WATCHING) <= there
    assert not there & set(hardening.UNWANTED)


def test_only_known_programs_listen(droplet: Host) -> None:
    """CIS 2.1.22. The test ignores programs that listen on the loopback, such as Docker's containerd."""
    listening = droplet.check_output("ss --listening --tcp --udp --numeric --processes --no-header").splitlines()
    outside = [line for line in listening if not re.search(r"\s(127\.\S+|\[::1\]):\d+\s", line)]
    # systemd-networkd's sockets are for DHCP. timesyncd and fail2ban accept no connection.
    programs = {name for line in outside for name in re.findall(r'\("([^"]+)",pid', line)}
    assert "sshd" in programs
    assert programs <= {"sshd", "nginx", "systemd-network"}


@pytest.mark.group("edge")
def test_nginx_runs_in_its_sandbox(droplet: Host, env: Environment) -> None:
    """Check the running process. A declared sandbox works only after nginx was started with it."""
    pid = droplet.check_output("systemctl show --property=MainPID --value nginx.service")
    status = dict(
        line.split(":\t", 1)
        for line in droplet.file(f"/proc/{pid}/status").content_string.splitlines()
        if ":\t" in line
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    inside = f"nsenter --target {pid} --mount"
    assert droplet.run(f"{inside} test -w /run").rc == 0
    assert droplet.run(f"{inside} test -w /etc/nginx").rc == 1
    assert droplet.check_output(f"{inside} ls {env.settings.paths.secrets}/") == ""
    assert droplet.check_output(f"ls {env.settings.paths.secrets}/") != ""


def test_upgrades_take_the_lock_of_stackctl(droplet: Host, env: Environment) -> None:
    unit = "apt-daily-upgrade.service"
    shown = droplet.check_output(f"systemctl show --property=ExecStart --property=After {unit}")
    assert shown.count("argv[]=") == 1
    assert "argv[]=/usr/local/bin/stackctl upgrade" in shown
    assert env.settings.paths.units.app in shown


def test_upgrades_keep_the_files_of_the_site(droplet: Host) -> None:
    assert "--force-confold" in droplet.check_output("apt-config dump Dpkg::Options")


def test_needrestart_lists_services_with_old_libraries_and_restarts_none(droplet: Host) -> None:
    """lynis DEB-0831. `needrestart -b` restarts nothing and prints a list for programs."""
    assert "NEEDRESTART-VER" in droplet.check_output("needrestart -b")
    settings = "perl -e 'our %nrconf; do $_ for glob \"/etc/needrestart/conf.d/*.conf\"; print $nrconf{restart}'"
    assert droplet.check_output(settings) == "l"


def test_the_reboot_window(droplet: Host, env: Environment) -> None:
    timer, at = env.settings.paths.units.reboot_timer, env.settings.values.reboot_at
    assert droplet.service(timer).is_enabled == bool(at)
    if at:
        assert f"*-*-* {at}:00" in droplet.check_output(f"systemctl show --property=TimersCalendar {timer}")
        assert droplet.service(timer).is_running


def test_installed_files_are_compared_with_their_packages(droplet: Host, env: Environment) -> None:
    """CIS 6.3; lynis PKGS-7370."""
    timer = droplet.service(env.settings.paths.units.integrity_timer)
    assert timer.is_enabled
    assert timer.is_running


def test_the_console_shows_a_login_banner(droplet: Host) -> None:
    """CIS 1.6."""
    for path in ("/etc/issue", "/etc/issue.net"):
        assert "authorised users only" in droplet.file(path).content_string
        assert "Debian" not in droplet.file(path).content_string


BOUNDED_OTHERWISE = re.compile(
    r"/var/log/(journal/|README$|lastlog|faillog|private|runit/|fail2ban\.log|cloud-init|apt/eipp)"
)
"""Logs that journald limits, that have one line per account, that are rewritten or that fail2ban's package rotates."""


def test_every_log_is_rotated(droplet: Host) -> None:
    """CIS 6.2.1.4; dev-sec os-11. Every program's log is rotated."""
    considered = droplet.run("logrotate --debug /etc/logrotate.conf").stderr
    logs = droplet.check_output("find /var/log -type f -not -name '*.gz' -not -name '*.[0-9]'").splitlines()
    rotated = set(re.findall(r"considering log (\S+)", considered))
    assert rotated & set(logs)
    assert [log for log in logs if log not in rotated and not BOUNDED_OTHERWISE.match(log)] == []
    assert oct(droplet.file("/var/log").mode)[2:] == "755"


@pytest.mark.group("edge")
def test_nginx_s_log_is_rotated_by_size(droplet: Host) -> None:
    shown = droplet.check_output("systemctl show --property=TimersCalendar logrotate.timer")
    assert "*:00/10:00" in shown
    assert "maxsize 64M" in droplet.file("/etc/logrotate.d/nginx").content_string


def test_the_journal_leaves_disk_space(droplet: Host) -> None:
    config = droplet.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
    assert "SystemKeepFree=1G" in config
    assert "RuntimeMaxUse=64M" in config
