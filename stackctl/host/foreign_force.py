"""Compares the settings of sshd, kernel parameters, enabled units and open ports with what the site declares."""

import os
from collections.abc import Iterator
from pathlib import Path

from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.host.declared import Declared
from stackctl.host.findings import Finding, meant, read, shown

SSHD = "/usr/sbin/sshd"
LISTENING = "0A"
DHCP = frozenset({68, 546})
FIRST_EPHEMERAL = 32768
_SYSCTL_DIRECTORIES = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")


class Force:
    """The settings, units and ports that are in force."""

    def __init__(self, paths: Paths, declared: Declared, operator: str, machine: Machine) -> None:
        self._paths, self._declared, self._operator, self._machine = paths, declared, operator, machine
        self._drop_in = paths.root / f"etc/ssh/sshd_config.d/00-{paths.app}.conf"
        self._sysctls = paths.root / f"etc/sysctl.d/60-{paths.app}.conf"
        self._sshd: dict[str, list[str]] = {}
        self._sshd_fault = ""
        if f"/{self._drop_in.relative_to(paths.root)}" in declared.files and self._drop_in.exists():
            self._sshd, self._sshd_fault = self._asked(["-T"])

    @property
    def key_files(self) -> tuple[str, ...]:
        """The patterns for the paths of authorized_keys files, from sshd's settings."""
        return tuple(" ".join(self._sshd.get("authorizedkeysfile", [])).split())

    def findings(self) -> list[Finding]:
        return [*self._of_sshd(), *self._of_sysctls(), *self._of_units(), *self._of_ports()]

    def _asked(self, arguments: list[str]) -> tuple[dict[str, list[str]], str]:
        """Ask sshd for its settings. Return the values of each keyword, and the error from sshd or ""."""
        ran = self._machine.run([SSHD, *arguments], timeout=10)
        found: dict[str, list[str]] = {}
        for line in ran.stdout.splitlines():
            keyword, _, value = line.partition(" ")
            found.setdefault(keyword, []).append(value)
        return found, shown(ran.reason) if ran.code else ""

    def _of_sshd(self) -> Iterator[Finding]:
        if self._sshd_fault:
            yield Finding("sshd", f"sshd refuses its configuration: {self._sshd_fault}", "hand")
        if not self._sshd:
            return
        # Let sshd read our drop-in alone, so that sshd prints the declared values in its own spelling.
        wanted, _ = self._asked(["-T", "-f", f"/{self._drop_in.relative_to(self._paths.root)}"])
        named = {line.split()[0].lower() for line in meant(read(self._drop_in))}
        # A Match block may apply to some logins only.
        for login in (None, "root", self._operator) if self._has_match() else (None,):
            asked = self._sshd
            if login:
                asked, _ = self._asked(["-T", "-C", f"user={login},host=localhost,addr=127.0.0.1"])
            for keyword in sorted(named & wanted.keys()):
                if asked and asked.get(keyword) != wanted[keyword]:
                    yield self._overridden(keyword, asked.get(keyword, []), login)
        for keyword in ("authorizedkeyscommand", "authorizedprincipalscommand", "trustedusercakeys", "forcecommand"):
            if keyword not in named and self._sshd.get(keyword, ["none"]) != ["none"]:
                yield self._overridden(keyword, self._sshd[keyword], None)

    def _overridden(self, keyword: str, value: list[str], login: str | None) -> Finding:
        of = f" for {login}" if login else ""
        source = self._said_by(keyword)
        what = f"sshd obeys {keyword} {shown(' '.join(value))}{of}, which is not what the site declares"
        path = f"/{source.relative_to(self._paths.root)}" if source else None
        return Finding(f"sshd:{keyword}", what + (f" (set in {shown(path)})" if path else ""), "refuse", path)

    def _configurations(self) -> list[Path]:
        etc = self._paths.root / "etc/ssh"
        return [*sorted((etc / "sshd_config.d").glob("*.conf")), etc / "sshd_config"]

    def _has_match(self) -> bool:
        return any(line.lower().startswith("match") for path in self._configurations() for line in meant(read(path)))

    def _said_by(self, keyword: str) -> Path | None:
        for path in self._configurations():
            if path != self._drop_in and any(
                line.replace("=", " ").split()[0].lower() == keyword for line in meant(read(path))
            ):
                return path
        return None

    def _of_sysctls(self) -> Iterator[Finding]:
        wanted = _assignments(self._sysctls)
        overriding = self._later_files(wanted)
        for pattern, value in wanted.items():
            for name in self._keys(pattern, wanted):
                where = self._paths.root / "proc/sys" / name
                # In the lab, a droplet is a container, which cannot set some parameters of its host's kernel.
                if os.access(where, os.W_OK) and (now := " ".join(read(where).split())) != value:
                    key = name.replace("/", ".")
                    yield Finding(
                        f"sysctl:{key}", f"the kernel has {key} = {shown(now)}, but the site declares {value}", "site"
                    )
        for name, path in overriding.items():
            shown_path = shown(f"/{path.relative_to(self._paths.root)}")
            what = f"{shown_path} sets {name.replace('/', '.')} at each boot, but the site declares another value"
            yield Finding(f"sysctl.d:{name.replace('/', '.')}", what, "hand", str(shown_path))

    def _keys(self, pattern: str, wanted: dict[str, str]) -> list[str]:
        """Return the parameters that a sysctl line sets.

        A line with a pattern does not set parameters that another line names.
        """
        if "*" not in pattern:
            return [pattern] if (self._paths.root / "proc/sys" / pattern).is_file() else []
        base = self._paths.root / "proc/sys"
        found = (str(path.relative_to(base)) for path in base.glob(pattern))
        return sorted(name for name in found if name not in wanted)

    def _later_files(self, wanted: dict[str, str]) -> dict[str, Path]:
        """Return the declared parameters that a later file sets to another value, each with the path of that file."""
        named: dict[str, Path] = {}
        for directory in reversed(_SYSCTL_DIRECTORIES):
            named |= {path.name: path for path in (self._paths.root / directory).glob("*.conf")}
        later = [named[name] for name in sorted(named) if name > self._sysctls.name]
        return {
            key: path for path in later for key, value in _assignments(path).items() if wanted.get(key, value) != value
        }

    def _of_units(self) -> Iterator[Finding]:
        system = self._paths.root / "etc/systemd/system"
        enabled = {path.name for path in system.glob("*.wants/*")} | {path.name for path in system.glob("*.requires/*")}
        for unit in sorted(self._declared.units - enabled):
            yield Finding(f"unit:{unit}", f"{unit} is not enabled, but the site needs it", "site")

    def _of_ports(self) -> Iterator[Finding]:
        for protocol in ("tcp", "udp"):
            ports: set[int] = set()
            for name in (protocol, f"{protocol}6"):
                ports |= _open_ports(read(self._paths.root / "proc/net" / name, 1 << 22), protocol)
            for port in sorted(ports - (self._declared.ports if protocol == "tcp" else DHCP)):
                what = f"a program listens on {protocol} port {port}, which other machines can reach (sudo ss -lnp)"
                yield Finding(f"listener:{protocol}:{port}", what, "hand")


def _open_ports(table: str, protocol: str) -> set[int]:
    """Read a table of /proc/net, and return the ports that listen on an address that other machines can reach."""
    ports = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4:
            continue
        address, _, port = fields[1].partition(":")
        remote, state = fields[2], fields[3]
        number = int(port, 16)
        loopback = address.endswith("7F") if len(address) == 8 else address == "0" * 24 + "01000000"
        is_open = state == LISTENING if protocol == "tcp" else not remote.strip("0:") and number < FIRST_EPHEMERAL
        if is_open and not loopback:
            ports.add(number)
    return ports


def _assignments(path: Path) -> dict[str, str]:
    """Return the value of each parameter in a sysctl.d file, by the path of the parameter below /proc/sys."""
    found = {}
    for line in meant(read(path), "#;"):
        name, equals, value = line.removeprefix("-").partition("=")
        if equals:
            # If the first separator is a slash, the name stays as written. If the first separator is a dot, dots and
            # slashes are swapped (sysctl.d(5)).
            name = name.strip()
            swapped = name.translate(str.maketrans("./", "/."))
            slash, dot = name.find("/"), name.find(".")
            found[name if slash >= 0 and (dot < 0 or slash < dot) else swapped] = " ".join(value.split())
    return found
