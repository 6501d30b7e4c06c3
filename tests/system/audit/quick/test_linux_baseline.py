"""Checks the numbered controls of dev-sec linux-baseline for files, packages, mounts and kernel parameters.

If the droplet deviates from one part of a control, that part has a separate name (`os-05:ages`), so that a waiver
covers only this part. The tests omit os-05b, which is for Red Hat. The tests also omit sysctl-31b, which is about the
place of core dumps, because sysctl-31a allows no dumps. The baseline has no package-04 and no sysctl-18.
"""

from __future__ import annotations

from collections import Counter

import pytest
from testinfra.host import Host

from tests.system.audit.conftest import Control
from tests.system.audit.files import too_open

pytestmark = pytest.mark.group("everywhere")

BASELINE = "dev-sec linux-baseline"

SYSCTLS: dict[str, dict[str, tuple[int, ...]]] = {
    "sysctl-01": {"net.ipv4.ip_forward": (0,), "net.ipv4.conf.all.forwarding": (0,)},
    "sysctl-02": {"net.ipv4.conf.all.rp_filter": (1,), "net.ipv4.conf.default.rp_filter": (1,)},
    "sysctl-03": {"net.ipv4.icmp_ignore_bogus_error_responses": (1,)},
    "sysctl-04": {"net.ipv4.icmp_echo_ignore_broadcasts": (1,)},
    "sysctl-05": {"net.ipv4.icmp_ratelimit": (100,)},
    "sysctl-06": {"net.ipv4.icmp_ratemask": (88089,)},
    "sysctl-07": {"net.ipv4.tcp_timestamps": (0,)},
    "sysctl-08": {"net.ipv4.conf.all.arp_ignore": (1, 2)},
    "sysctl-09": {"net.ipv4.conf.all.arp_announce": (2,)},
    "sysctl-10": {"net.ipv4.tcp_rfc1337": (1,)},
    "sysctl-11": {"net.ipv4.tcp_syncookies": (1,)},
    "sysctl-12": {"net.ipv4.conf.all.shared_media": (1,), "net.ipv4.conf.default.shared_media": (1,)},
    "sysctl-13": {
        f"net.{ip}.conf.{of}.accept_source_route": (0,) for ip in ("ipv4", "ipv6") for of in ("all", "default")
    },
    "sysctl-14": {f"net.ipv4.conf.{of}.accept_redirects": (0,) for of in ("all", "default")},
    "sysctl-15": {f"net.ipv4.conf.{of}.secure_redirects": (0,) for of in ("all", "default")},
    "sysctl-16": {f"net.ipv4.conf.{of}.send_redirects": (0,) for of in ("all", "default")},
    "sysctl-17": {f"net.ipv4.conf.{of}.log_martians": (1,) for of in ("all", "default")},
    "sysctl-19": {"net.ipv6.conf.all.forwarding": (0,)},
    "sysctl-20": {f"net.ipv6.conf.{of}.accept_redirects": (0,) for of in ("all", "default")},
    "sysctl-21": {f"net.ipv6.conf.{of}.router_solicitations": (0,) for of in ("all", "default")},
    "sysctl-22": {"net.ipv6.conf.default.accept_ra_rtr_pref": (0,)},
    "sysctl-23": {"net.ipv6.conf.default.accept_ra_pinfo": (0,)},
    "sysctl-24": {"net.ipv6.conf.default.accept_ra_defrtr": (0,)},
    "sysctl-25": {f"net.ipv6.conf.{of}.accept_ra": (0,) for of in ("all", "default")},
    "sysctl-26": {f"net.ipv6.conf.{of}.autoconf": (0,) for of in ("all", "default")},
    "sysctl-27": {"net.ipv6.conf.default.dad_transmits": (0,)},
    "sysctl-28": {"net.ipv6.conf.default.max_addresses": (1,)},
    # The baseline makes this control optional, because a kernel that loads no more modules cannot run Docker.
    "sysctl-29": {"kernel.modules_disabled": (0,)},
    "sysctl-30": {"kernel.sysrq": (0,)},
    "sysctl-31a": {"fs.suid_dumpable": (0,)},  # with the value 2, sysctl-31b would apply
    "sysctl-32": {"kernel.randomize_va_space": (2,)},
    "sysctl-34": {
        "fs.protected_fifos": (1, 2),
        "fs.protected_hardlinks": (1,),
        "fs.protected_regular": (2,),
        "fs.protected_symlinks": (1,),
    },
    "sysctl-35": {"kernel.yama.ptrace_scope": (2, 3)},
}

FILES: dict[str, list[tuple[str, str, int]]] = {
    "os-02": [("/etc/shadow", "root:shadow", 0o640)],
    "os-03": [("/etc/passwd", "root:root", 0o644)],
    "os-05:file": [("/etc/login.defs", "root:root", 0o644)],
    "os-11": [("/var/log", "root:root", 0o755)],
    "os-13": [
        ("/etc/crontab", "root:root", 0o700),
        *((f"/etc/cron.{when}", "root:root", 0o700) for when in ("hourly", "daily", "weekly", "monthly", "d")),
    ],
}
"""The owner of each file, and the most permissive mode that it may have."""

PACKAGES = {
    "package-01": ("inetutils-inetd", "openbsd-inetd", "xinetd"),
    "package-02": ("telnetd", "inetutils-telnetd"),
    "package-03": ("rsh-server", "rsh-redone-server"),
    "package-05": ("ypserv", "nis"),
    "package-06": ("tftpd", "tftpd-hpa", "atftpd"),
    "package-09": ("prelink",),
}
"""Packages that must not be installed, by Debian's names."""

LOGS = ("/var/log", "/var/log/audit")
MOUNTS = {
    "os-14": ("noexec", ("/boot", "/dev", "/dev/shm", "/tmp", *LOGS, "/var/tmp")),
    "os-15": ("nosuid", ("/boot", "/dev", "/dev/shm", "/home", "/run", "/tmp", "/var", *LOGS, "/var/tmp")),
    "os-16": ("nodev", ("/boot", "/dev/shm", "/home", "/run", "/tmp", "/var", *LOGS, "/var/tmp")),
}
"""The mount option that these file systems must have, by control."""

SYSTEMS = ("cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "squashfs", "udf")
"""File systems that a droplet never mounts. vfat has a separate test."""

SUID = {
    *("chage", "chfn", "chsh", "crontab", "dbus-daemon-launch-helper", "expiry", "fusermount3", "gpasswd", "mount"),
    *("newgidmap", "newgrp", "newuidmap", "passwd", "ssh-agent", "su", "sudo", "umount", "unix_chkpwd"),
}
"""The setuid and setgid programs of Debian 13 and our packages. The baseline's list of forbidden programs is longer."""
KEYSIGN = "/usr/lib/openssh/ssh-keysign"
"""The only program of the baseline's list that Debian has."""


@pytest.mark.parametrize("number", SYSCTLS)
def test_sysctl(droplet: Host, control: Control, number: str) -> None:
    wanted = SYSCTLS[number]
    lines = droplet.run(f"sysctl --ignore {' '.join(wanted)}").stdout.splitlines()
    running = dict(line.split(" = ") for line in lines)  # without the keys that this kernel hides
    wrong = [f"{key} is {running.get(key)}" for key, fit in wanted.items() if running.get(key) not in {*map(str, fit)}]
    control(BASELINE, number, ", ".join(wrong))


@pytest.mark.parametrize("number", FILES)
def test_files(droplet: Host, control: Control, number: str) -> None:
    complaints = (too_open(droplet, *entry) for entry in FILES[number])
    control(BASELINE, number, ", ".join(filter(None, complaints)))


@pytest.mark.parametrize("number", PACKAGES)
def test_packages(droplet: Host, control: Control, number: str) -> None:
    control(BASELINE, number, ", ".join(name for name in PACKAGES[number] if droplet.package(name).is_installed))


def test_no_host_is_trusted(droplet: Host, control: Control) -> None:
    control(BASELINE, "os-01", "/etc/hosts.equiv" if droplet.file("/etc/hosts.equiv").exists else "")


def test_no_login_lies_about(droplet: Host, control: Control) -> None:
    found = droplet.check_output(r"find / -xdev -maxdepth 3 \( -iname .rhosts -o -iname .netrc \)")
    control(BASELINE, "os-09", ", ".join(found.splitlines()))


@pytest.mark.parametrize("number", MOUNTS)
def test_mounts(droplet: Host, control: Control, number: str) -> None:
    option, points = MOUNTS[number]
    mounted = dict(
        line.split() for line in droplet.check_output("findmnt --raw --noheadings -o TARGET,OPTIONS").splitlines()
    )
    wrong = [point for point in points if point in mounted and option not in mounted[point].split(",")]
    control(BASELINE, number, f"without {option}: {', '.join(wrong)}" if wrong else "")


def test_no_password_is_in_passwd(droplet: Host, control: Control) -> None:
    fields = [line.split(":") for line in droplet.file("/etc/passwd").content_string.splitlines()]
    control(BASELINE, "os-03b", ", ".join(one[0] for one in fields if one[1] not in {"x", "*"}))


def test_ids_are_unique(droplet: Host, control: Control) -> None:
    users = Counter(line.split(":")[2] for line in droplet.file("/etc/passwd").content_string.splitlines())
    groups = Counter(line.split(":")[2] for line in droplet.file("/etc/group").content_string.splitlines())
    control(BASELINE, "os-07", ", ".join(one for one, times in [*users.items(), *groups.items()] if times > 1))


def test_no_dot_is_in_the_path(droplet: Host, control: Control) -> None:
    parts = droplet.check_output("bash -lc 'echo $PATH'").split(":")
    control(BASELINE, "os-04", "" if not {"", "."} & {*parts} else ":".join(parts))


LOGIN_DEFS = {
    "os-05": {"UMASK": "027", "LOGIN_RETRIES": "5", "LOGIN_TIMEOUT": "60", "UID_MIN": "1000", "GID_MIN": "1000"},
    "os-05:ages": {"PASS_MAX_DAYS": "60", "PASS_MIN_DAYS": "7", "PASS_WARN_AGE": "7"},
}


@pytest.mark.parametrize("number", LOGIN_DEFS)
def test_login_defs(droplet: Host, control: Control, number: str) -> None:
    content = droplet.file("/etc/login.defs").content_string.splitlines()
    values = dict(line.split(None, 1) for line in content if line[:1].isalpha() and len(line.split(None, 1)) == 2)
    wanted = LOGIN_DEFS[number]
    wrong = [f"{key} is {values.get(key)}" for key, value in wanted.items() if values.get(key, "").strip() != value]
    control(BASELINE, number, ", ".join(wrong))


def test_nothing_unknown_is_setuid(droplet: Host, control: Control) -> None:
    """Search outside Docker's images, because setuid programs give no privileges in a container (CIS Docker 5.25)."""
    found = droplet.check_output("find / -xdev -path /var/lib/docker -prune -o -perm /6000 -type f -print").splitlines()
    unknown = [path for path in found if path != KEYSIGN and path.rsplit("/", 1)[-1] not in SUID]
    control(BASELINE, "os-06", ", ".join(unknown))
    control(BASELINE, "os-06:ssh-keysign", KEYSIGN if KEYSIGN in found else "")


def test_unused_file_systems_stay_unloaded(droplet: Host, control: Control) -> None:
    rules = droplet.check_output("cat /etc/modprobe.d/*.conf")
    missing = {
        one
        for one in (*SYSTEMS, "vfat")
        if not any(f"install {one} {program}" in rules for program in ("/bin/true", "/bin/false"))
    }
    control(BASELINE, "os-10", ", ".join(missing - {"vfat"}))
    control(BASELINE, "os-10:vfat", ", ".join(missing & {"vfat"}))


def test_the_processor_leaks_nothing(droplet: Host, control: Control) -> None:
    lines = droplet.check_output("grep -r . /sys/devices/system/cpu/vulnerabilities/").splitlines()
    control(BASELINE, "os-12", ", ".join(line.rsplit("/", 1)[-1] for line in lines if "vulnerable" in line.lower()))


def test_pages_can_be_not_executable(droplet: Host, control: Control) -> None:
    control(BASELINE, "sysctl-33", "" if " nx " in droplet.file("/proc/cpuinfo").content_string else "no nx")


def test_randomness(droplet: Host, control: Control) -> None:
    """The kernel's entropy pool must be full, with 256 bits.

    The baseline's 1000 bits are impossible since Linux 5.18.
    """
    available = int(droplet.file("/proc/sys/kernel/random/entropy_avail").content_string)
    control(BASELINE, "os-08", "" if available >= 256 else f"{available} bits")
    control(BASELINE, "os-08:1000", "" if available >= 1000 else f"{available} bits")


def test_syslog(droplet: Host, control: Control) -> None:
    control(BASELINE, "package-07", "" if droplet.package("rsyslog").is_installed else "not installed")


def test_auditd(droplet: Host, control: Control) -> None:
    control(BASELINE, "package-08", "" if droplet.package("auditd").is_installed else "not installed")
