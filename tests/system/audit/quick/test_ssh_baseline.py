"""Checks the numbered controls of dev-sec ssh-baseline for servers, against the output of `sshd -T`.

The droplet opens no SSH connections, so the client's controls (ssh-01 to ssh-22) do not apply. An option that OpenSSH
10 no longer has must be absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from testinfra.host import Host

from tests.system.audit.conftest import Control
from tests.system.audit.files import too_open

pytestmark = pytest.mark.group("everywhere")

Values = Sequence[str]
Fits = Callable[[Values], bool]

CIPHERS = "chacha20-poly1305@openssh.com aes256-gcm@openssh.com aes128-gcm@openssh.com aes256-ctr aes192-ctr aes128-ctr"
# The baseline's list, with the post-quantum algorithms that OpenSSH added later.
KEX = (
    "sntrup761x25519-sha512@openssh.com curve25519-sha256@libssh.org diffie-hellman-group-exchange-sha256 "
    "sntrup761x25519-sha512 mlkem768x25519-sha256 curve25519-sha256"
)
MACS = (
    "hmac-sha2-512-etm@openssh.com hmac-sha2-256-etm@openssh.com umac-128-etm@openssh.com hmac-sha2-512 hmac-sha2-256"
)
HOST_KEYS = "/etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_rsa_key"


def is_(*allowed: str) -> Fits:
    return lambda values: len(values) == 1 and values[0] in allowed


def among(allowed: str) -> Fits:
    return lambda values: (
        bool(values) and {part for value in values for part in value.split(",")} <= set(allowed.split())
    )


def up_to(most: int) -> Fits:
    return lambda values: len(values) == 1 and 0 < int(values[0]) <= most


def startups_up_to(most: int) -> Fits:
    return lambda values: 0 < int(values[0].split(":")[-1]) <= most


def gone(values: Values) -> bool:
    return not values


def some(values: Values) -> bool:
    return bool(values)


CONTROLS: dict[str, tuple[str, Fits]] = {
    "sshd-01": ("ciphers", among(CIPHERS)),
    "sshd-02": ("kexalgorithms", among(KEX)),
    "sshd-03": ("macs", among(MACS)),
    "sshd-06": ("permitrootlogin", is_("no")),
    "sshd-07": ("port", is_("22")),
    "sshd-08": ("addressfamily", is_("any", "inet", "inet6")),
    "sshd-09": ("listenaddress", some),
    "sshd-10": ("protocol", gone),
    "sshd-11": ("strictmodes", is_("yes")),
    "sshd-12": ("syslogfacility", is_("AUTH")),
    "sshd-13": ("loglevel", is_("VERBOSE")),
    "sshd-14": ("hostkey", among(HOST_KEYS)),
    "sshd-15": ("uselogin", gone),
    "sshd-16": ("useprivilegeseparation", gone),
    "sshd-17": ("permituserenvironment", is_("no")),
    "sshd-18": ("logingracetime", up_to(30)),
    "sshd-19": ("maxauthtries", up_to(2)),
    "sshd-20": ("maxsessions", up_to(10)),
    "sshd-21": ("maxstartups", startups_up_to(60)),
    "sshd-22": ("pubkeyauthentication", is_("yes")),
    "sshd-23": ("ignorerhosts", is_("yes")),
    "sshd-24": ("ignoreuserknownhosts", is_("yes")),
    "sshd-25": ("hostbasedauthentication", is_("no")),
    "sshd-27": ("passwordauthentication", is_("no")),
    "sshd-28": ("permitemptypasswords", is_("no")),
    "sshd-29": ("kbdinteractiveauthentication", is_("no")),
    "sshd-30": ("kerberosauthentication", is_("no")),
    "sshd-31": ("kerberosorlocalpasswd", is_("no")),
    "sshd-32": ("kerberosticketcleanup", is_("yes")),
    "sshd-33": ("gssapiauthentication", is_("no")),
    "sshd-34": ("gssapicleanupcredentials", is_("yes")),
    "sshd-35": ("tcpkeepalive", is_("no")),
    "sshd-36": ("clientaliveinterval", up_to(300)),
    "sshd-37": ("clientalivecountmax", up_to(3)),
    "sshd-38": ("permittunnel", is_("no")),
    "sshd-39": ("allowtcpforwarding", is_("no")),
    "sshd-40": ("allowagentforwarding", is_("no")),
    "sshd-41": ("gatewayports", is_("no")),
    "sshd-42": ("x11forwarding", is_("no")),
    "sshd-43": ("x11uselocalhost", is_("yes")),
    "sshd-44": ("printmotd", is_("no")),
    "sshd-45": ("printlastlog", is_("no")),
    "sshd-46": ("banner", is_("none")),
    "sshd-47": ("debianbanner", is_("no")),
}


@pytest.fixture(scope="module")
def sshd(droplet: Host) -> dict[str, list[str]]:
    """Return each option's values from `sshd -T`, for a connection to which no Match block applies."""
    options: dict[str, list[str]] = {}
    for line in droplet.check_output("sshd -T").splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


@pytest.mark.parametrize("number", CONTROLS)
def test_option(sshd: dict[str, list[str]], control: Control, number: str) -> None:
    option, fits = CONTROLS[number]
    values = sshd.get(option, [])
    control("dev-sec ssh-baseline", number, "" if fits(values) else f"{option} is {values}")


@pytest.mark.parametrize(
    ("number", "path", "most"), [("sshd-04", "/etc/ssh", 0o755), ("sshd-05", "/etc/ssh/sshd_config", 0o600)]
)
def test_file(droplet: Host, control: Control, number: str, path: str, most: int) -> None:
    control("dev-sec ssh-baseline", number, too_open(droplet, path, "root:root", most))


def test_no_prime_is_weak(droplet: Host, control: Control) -> None:
    sizes = [
        int(line.split()[4])
        for line in droplet.file("/etc/ssh/moduli").content_string.splitlines()
        if line[:1].isdigit()
    ]
    control(
        "dev-sec ssh-baseline", "sshd-48", "" if min(sizes, default=4095) >= 2047 else f"a prime of {min(sizes)} bits"
    )


def test_no_option_is_on_its_command_line(droplet: Host, control: Control) -> None:
    running = droplet.check_output("ps -C sshd -o args=")
    control("dev-sec ssh-baseline", "sshd-49", "" if not re.search(r"-o\S", running) else running)


def test_its_rsa_key_is_long(droplet: Host, sshd: dict[str, list[str]], control: Control) -> None:
    """An RSA key that sshd does not offer may have any length."""
    offered = [key for key in sshd["hostkey"] if "rsa" in key]
    bits = [int(droplet.check_output(f"ssh-keygen -lf {key}.pub").split()[0]) for key in offered]
    control("dev-sec ssh-baseline", "sshd-50", "" if min(bits, default=4096) >= 4096 else f"{bits} bits")
