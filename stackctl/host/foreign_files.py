"""Finds undeclared files in directories where every file has an effect."""

import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stackctl.core.paths import Paths
from stackctl.host.declared import Declared
from stackctl.host.findings import Finding, meant, named, read, shown
from stackctl.host.packaged import Packaged

UNIT_DIRECTORIES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
WATCHED = {
    "etc/ssh/sshd_config.d": "sshd reads it",
    "etc/sudoers.d": "sudo reads it",
    **dict.fromkeys(
        [f"etc/cron.{when}" for when in ("d", "hourly", "daily", "weekly", "monthly", "yearly")], "cron runs it as root"
    ),
    "var/spool/cron/crontabs": "cron runs it",
    "var/spool/cron/atjobs": "at runs it",
    **dict.fromkeys(
        ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"), "it sets kernel parameters"
    ),
    **dict.fromkeys(
        [
            f"{place}/{what}"
            for place in UNIT_DIRECTORIES
            for what in ("system", "user", "system.control", "system.attached")
        ],
        "systemd reads it",
    ),
    **dict.fromkeys(
        [
            f"{place}/{what}-{kind}"
            for place in UNIT_DIRECTORIES
            for what in ("system", "user")
            for kind in ("generators", "environment-generators")
        ],
        "systemd runs it as root at each boot",
    ),
    **dict.fromkeys(
        [
            f"etc/systemd/{what}.conf.d"
            for what in ("system", "journald", "logind", "coredump", "resolved", "timesyncd")
        ],
        "systemd reads it",
    ),
    **dict.fromkeys(
        [f"usr/lib/systemd/system-{when}" for when in ("shutdown", "sleep")],
        "systemd runs it as root at shutdown or sleep",
    ),
    "var/lib/cloud/scripts/per-boot": "cloud-init runs it as root at each boot",
    "usr/share/pam-configs": "pam-auth-update makes the rules for logins from it",
    "run/systemd/transient": "systemd runs it",
    "var/lib/systemd/linger": "systemd runs this account's own units without a login",
    "etc/init.d": "systemd runs it as root",
    "etc/apt/sources.list.d": "apt installs from it",
    "etc/apt/mirrors": "apt installs from it",
    "etc/apt/trusted.gpg.d": "apt trusts packages signed with its keys",
    "etc/apt/keyrings": "apt may trust packages signed with its keys",
    "etc/apt/apt.conf.d": "apt obeys it",
    "etc/apt/preferences.d": "it decides which packages apt installs",
    "etc/apt/auth.conf.d": "apt takes passwords from it",
    "etc/nginx": "nginx may read it",
    **dict.fromkeys(("etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d"), "it configures the kernel's modules"),
    **dict.fromkeys(("etc/modules-load.d", "run/modules-load.d", "usr/lib/modules-load.d"), "it loads kernel modules"),
    **dict.fromkeys(
        ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d"), "udev may run programs that it names"
    ),
    **dict.fromkeys(("etc/tmpfiles.d", "run/tmpfiles.d", "usr/lib/tmpfiles.d"), "systemd creates files from it"),
    "etc/profile.d": "each login runs it",
    "etc/ld.so.conf.d": "it decides where programs find libraries",
    "etc/logrotate.d": "logrotate runs its commands as root",
    "etc/fail2ban": "fail2ban may read it",
    "etc/docker": "Docker may read it",
    "etc/pam.d": "logins and sudo obey it",
    "etc/security": "logins obey it",
    "etc/polkit-1": "polkit obeys it",
    "etc/update-motd.d": "each login runs it as root",
    **dict.fromkeys(
        [f"etc/network/if-{when}.d" for when in ("up", "down", "pre-up", "post-down")], "ifupdown runs it as root"
    ),
    "etc/network/interfaces.d": "ifupdown runs its commands as root",
    "etc/default/grub.d": "update-grub runs it as root",
    **dict.fromkeys([f"etc/dhcp/dhclient-{when}-hooks.d" for when in ("enter", "exit")], "dhclient runs it as root"),
    "etc/networkd-dispatcher": "it runs as root when the network changes",
    "etc/letsencrypt/renewal-hooks": "certbot runs it as root",
    "etc/ufw": "ufw reads it",
    "etc/initramfs-tools/hooks": "it decides what the next boot runs",
    "etc/kernel": "it runs as root when a kernel is installed",
    "etc/dpkg/dpkg.cfg.d": "dpkg obeys it",
    "etc/needrestart": "needrestart runs it as root",
    "usr/local/share/ca-certificates": "the droplet trusts this authority",
    "usr/local/bin": "it takes the place of Debian's program of that name",
    "usr/local/sbin": "it takes the place of Debian's program of that name, for root too",
}
SINGLE = {
    "etc/ssh/sshd_config": "sshd reads it",
    "etc/sudoers": "sudo reads it",
    "etc/sudo.conf": "sudo obeys it",
    "etc/crontab": "cron runs it",
    "etc/anacrontab": "anacron runs it",
    "etc/ld.so.preload": "each program loads its libraries",
    **dict.fromkeys(
        ("etc/systemd/system.conf", "etc/systemd/user.conf"), "systemd passes its settings to everything it starts"
    ),
    "etc/rc.local": "systemd runs it as root at each boot",
    "etc/ssh/sshrc": "each login by SSH runs it",
    "etc/apt/sources.list": "apt installs from it",
    "etc/apt/apt.conf": "apt obeys it",
    "etc/apt/preferences": "it decides which packages apt installs",
    "etc/sysctl.conf": "it sets kernel parameters",
    "etc/pam.conf": "logins obey it",
    "etc/default/ssh": "sshd is started with it",
    "etc/default/cron": "cron is started with it",
    "etc/default/docker": "Docker is started with it",
    "etc/default/nginx": "nginx is started with it",
    "etc/environment": "it sets variables of each login",
    "etc/modules": "it loads kernel modules",
    "etc/network/interfaces": "ifupdown runs its commands as root",
    **dict.fromkeys(
        [f"root/.{name}" for name in ("bashrc", "profile", "bash_profile", "bash_login", "bash_logout")],
        "root's shell runs it",
    ),
}
# In these directories, report only files that Python loads by itself, because the name of a module does not show which
# programs load the module.
PYTHONS = ("usr/lib/python3*/dist-packages", "usr/local/lib/python3*/dist-packages")
_LOADED_BY_PYTHON = re.compile(r".*\.pth|(?:site|user)customize\..+")
# The names of files that dpkg and ucf leave beside another file. Most programs that read these directories ignore such
# files. However, run-parts and certbot run some of these files, so the original file must belong to a package or to the
# site.
_LEFT_BY_DPKG = re.compile(r"(.+)\.(?:dpkg-(?:dist|old|new|bak|tmp)|ucf-(?:dist|old|new))")
_MOST = 1 << 18
# The operation that sets the firewall compares the content of these files.
_COMPARED = frozenset({"/etc/ufw/user.rules", "/etc/ufw/user6.rules", "/etc/ufw/ufw.conf"})
_HOSTS = r"(?:[a-z0-9-]+\.)*debian\.org|(?:mirrors|repos-droplet|repos\.insights)\.digitalocean\.com"
_URI = rf"https?://(?:{_HOSTS})(?:/\S*)?"
# Debian's own cloud images list the mirrors in a file.
_SOURCE = rf"(?:{_URI}|mirror\+file:///etc/apt/mirrors/[\w-]+\.list)"
# cloud-init and netplan give an interface a name that depends on its address.
_NAMES_INTERFACE = r'SUBSYSTEM=="net", (?:[\w{}]+=="[^"]*", )*NAME="\w+"'
_WAIT = "systemd-networkd-wait-online"
_PATH = r"(?:(?:/usr(?:/local)?)?/s?bin|/usr(?:/local)?/games|/snap/bin)"
_APT_OPTIONS = r"(?:\[(?:arch=\w+ ?|signed-by=/usr/share/keyrings/\S+ ?)+\] )?"
# Files that Debian, cloud-init or DigitalOcean create on the droplet. Each path has a pattern that all lines must
# match.
_MADE = {
    r"/etc/ssh/sshd_config\.d/50-cloud-init\.conf": r"PasswordAuthentication (?:yes|no)",
    r"/etc/ssh/sshd_config\.d/60-cloudimg-settings\.conf": r"PasswordAuthentication no",
    r"/etc/apt/sources\.list(?:\.d/[\w-]+\.list)?": rf"deb(?:-src)? {_APT_OPTIONS}{_SOURCE} [\w/-]+(?: [\w-]+)*",
    r"/etc/apt/sources\.list\.d/[\w-]+\.sources": rf"URIs:(?: {_SOURCE})+|Signed-By: /usr/share/keyrings/\S+|"
    r"(?:Types|Suites|Components|Enabled): [\w /.-]+",
    r"/etc/apt/mirrors/[\w-]+\.list": _URI,
    r"/etc/apt/apt\.conf\.d/(?:20auto-upgrades|10periodic)": r'APT::Periodic::[\w-]+ "\d+";',
    r"/etc/apt/apt\.conf\.d/(?:90|94)cloud-init\S*": r'Acquire::https?::(?:Proxy|Pipeline-Depth) "[\w:/.-]*";|'
    r'APT::(?:Install-(?:Recommends|Suggests)|Periodic::[\w-]+) "\w*";',
    r"/etc/environment": rf'(?:PATH="?{_PATH}(?::{_PATH})*"?|LANG=\S+|LC_\w+=\S+)',
    r"/etc/udev/rules\.d/70-persistent-net\.rules": _NAMES_INTERFACE,
    r"/run/udev/rules\.d/99-netplan-[\w.-]+\.rules": _NAMES_INTERFACE,
    r"/run/systemd/system/systemd-networkd-wait-online\.service\.d/10-netplan\.conf": r"\[(?:Unit|Service)\]|"
    rf"ConditionPathIsSymbolicLink=/run/systemd/generator/network-online\.target\.wants/{_WAIT}\.service|"
    rf"ExecStart=(?:(?:/usr)?/lib/systemd/{_WAIT}(?: [\w:.-]+)*)?",
    # kmod lists the device nodes of the kernel's modules.
    r"/run/tmpfiles\.d/static-nodes\.conf": r"[bc]!? /dev/[\w/.-]+ 0[0-7]{3} - - - \d+:\d+|"
    r"d /dev/[\w/.-]+ 0755 - - - ?",
    r"/etc/network/interfaces(?:\.d/50-cloud-init(?:\.cfg)?)?": r"(?:auto|allow-hotplug)(?: [\w.:-]+)+|"
    r"iface [\w.:-]+ inet6? (?:loopback|static|dhcp|manual|auto)|"
    r"source(?:-directory)? /etc/network/interfaces\.d(?:/\*)?|"
    r"(?:address|netmask|broadcast|gateway|network|hwaddress|mtu|metric|dns-(?:nameservers|search))(?: [\w.:/-]+)*|"
    r"(?:post-up|pre-down) route (?:add|del)(?: [\w.:/-]+)* \|\| true",
    # Files of the cloud images. Any plain value in these files is accepted, but no command.
    r"/etc/default/grub\.d/[\w-]+\.cfg": r"""GRUB_\w+=(?:"(?:[^"`$\\]|\$\{?GRUB_\w+\}?)*"|'[^']*'|[\w.,:/=-]*)""",
    r"/etc/modules": r"",
    r"/etc/docker/key\.json": r".*",
    r"/etc/security/opasswd": r".*",
}
# Files that a package copied once at its installation. dpkg's lists do not contain these files.
_COPIES = {
    **{f"/etc/ufw/{when}.init": f"usr/share/ufw/{when}.init" for when in ("before", "after")},
    **{f"/root/.{name}": f"usr/share/base-files/dot.{name}" for name in ("bashrc", "profile")},
}
_DENY, _PERMIT, _PASSES_DENY = "requisite pam_deny.so", "required pam_permit.so", "[default=N] pam_permit.so"
_STATIC_PAM = (_DENY, _PERMIT, _PASSES_DENY, "optional pam_umask.so")
# Without these files there is no network, or sshd and sudo admit no one. A converge never removes these files.
_LETS_US_IN = re.compile(
    r"/etc/(?:network/interfaces(?:\.d/.*)?|ssh/sshd_config|sudoers|pam\.d/(?:common-\w+|sshd|sudo|sudo-i|su|login|other))"
)
_TRANSIENT = re.compile(r"\.(?:scope|slice)$")


class Seen(NamedTuple):
    """A file in a watched directory."""

    path: str
    """The path on the droplet."""
    file: str
    """The path under which this process finds the file. In tests the droplet's root is another directory."""
    reason: str
    """Why the directory matters."""

    @property
    def where(self) -> Path:
        return Path(self.file)


class Files:
    """The files in the watched directories."""

    def __init__(self, paths: Paths, declared: Declared, operator: str, packaged: Packaged) -> None:
        self._paths, self._declared, self._operator, self._packaged = paths, declared, operator, packaged

    def findings(self) -> list[Finding]:
        found = [finding for seen in self._seen() if (finding := self._judged(seen))]
        return [replace(one, remedy="hand") if _LETS_US_IN.fullmatch(one.name) else one for one in found]

    def _seen(self) -> Iterator[Seen]:
        root = self._paths.root
        for path, reason in SINGLE.items():
            if os.path.lexists(root / path):
                yield Seen(f"/{path}", str(root / path), reason)
        for directory in sorted(found for pattern in PYTHONS for found in root.glob(pattern)):
            for name in filter(_LOADED_BY_PYTHON.fullmatch, sorted(os.listdir(directory))):  # noqa: PTH208
                file = directory / name
                yield Seen(f"/{file.relative_to(root)}", str(file), "each program in Python runs it, root's too")
        for path, reason in WATCHED.items():
            yield from _below(str(root / path), f"/{path}", reason)

    def _judged(self, seen: Seen) -> Finding | None:
        path = seen.path
        if path in self._declared.files or path in _COMPARED or self._is_left(path):
            return None
        if self._packaged.has(path):
            if not self._packaged.is_changed(path) or self._is_sshd_of_an_image(seen):
                return None
            return Finding(named(path), f"differs from its package, and {seen.reason}", "hand", path)
        found = os.lstat(seen.file)
        if stat.S_ISLNK(found.st_mode):
            return self._judged_link(seen)
        if not stat.S_ISREG(found.st_mode):
            return Finding(named(path), f"is not a regular file, and {seen.reason}", "remove", path)
        return self._judged_file(seen, found)

    def _is_sshd_of_an_image(self, seen: Seen) -> bool:
        """Return whether sshd_config differs from Debian's file only in PermitRootLogin and PasswordAuthentication.

        DigitalOcean's images change these two settings
        (docs.digitalocean.com/support/i-lost-the-ssh-key-for-my-droplet). The site's drop-in overrides both settings.
        """
        if seen.path != "/etc/ssh/sshd_config":
            return False
        here, debians = (meant(read(path)) for path in (seen.where, self._paths.root / "usr/share/openssh/sshd_config"))
        set_by_images = re.compile("(?:PermitRootLogin|PasswordAuthentication) [a-z-]+")
        return [line for line in here if not set_by_images.fullmatch(line)] == debians

    def _is_left(self, path: str) -> bool:
        left = _LEFT_BY_DPKG.fullmatch(path)
        if left:
            return left[1] in self._declared.files or self._packaged.has(left[1])
        return path.endswith("/.placeholder")

    def _judged_file(self, seen: Seen, found: os.stat_result) -> Finding | None:
        path = seen.path
        if not found.st_size and seen.where.suffix in {".service", ".timer", ".socket"}:
            return self._masked(seen)
        # A longer file is always foreign, because only its beginning would be read.
        if found.st_size <= _MOST and self._is_made(seen):
            return None
        return Finding(named(path), f"{self._described(seen, found)}, and {seen.reason}", "remove", path)

    def _judged_link(self, seen: Seen) -> Finding | None:
        path, target = seen.path, os.fspath(seen.where.readlink())
        if target == "/dev/null" and "/systemd/" in path:
            return self._masked(seen)
        target = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120
        if target.startswith("/lib/"):
            target = f"/usr{target}"
        if "/systemd/" in path:
            known = self._is_enabled_as_meant(path, target)
        else:
            known = path.startswith("/etc/nginx/") and self._packaged.has(target)
        return (
            None if known else Finding(named(path), f"is a link to {shown(target)}, and {seen.reason}", "remove", path)
        )

    def _masked(self, seen: Seen) -> Finding:
        unit = os.path.basename(seen.path)  # noqa: PTH119
        ours = unit in self._declared.units or any(f"/{unit}.d/" in path for path in self._declared.files)
        what = f"masks {shown(unit)}, which the site needs" if ours else f"masks {shown(unit)}"
        return Finding(named(seen.path), what, "site" if ours else "remove", seen.path)

    def _is_enabled_as_meant(self, path: str, target: str) -> bool:
        """Return whether systemctl made this link for a declared unit, or for a unit that Debian enables by default."""
        unit, of = os.path.basename(path), os.path.basename(target)  # noqa: PTH119
        # A foreign unit in these directories is reported by its own path, so a link to the unit need not be reported.
        is_known = target in self._declared.files or self._packaged.has(target)
        if not is_known and not target.startswith(("/etc/systemd/system/", "/run/systemd/system/")):
            return False
        directory = os.path.basename(os.path.dirname(path))  # noqa: PTH119, PTH120
        if directory.endswith((".wants", ".requires", ".upholds")):
            template = re.sub(r"@[^.]+\.", "@.", unit)
            if of not in {unit, template}:
                return False
            return of in self._declared.units or (
                target not in self._declared.files and not self._packaged.disables(unit)
            )
        aliases = [line for line in meant(read(self._paths.root / target[1:])) if line.startswith("Alias=")]
        return any(unit in line.partition("=")[2].split() for line in aliases)

    def _is_made(self, seen: Seen) -> bool:
        path = seen.path
        if path == "/etc/sudoers.d/90-cloud-init-users":
            # In sudoers, "#" does not always begin a comment: "#0" is a uid, and "#include" is a directive.
            rule = rf"(?:#(?: .*)?|{re.escape(self._operator)} ALL=\(ALL(?::ALL)?\) NOPASSWD: ?ALL|\s*)"
            return all(re.fullmatch(rule, line) for line in read(seen.where).splitlines())
        if path.startswith("/etc/pam.d/common-"):
            return self._is_pam_as_packaged(seen.where)
        if original := _COPIES.get(path):
            return read(seen.where) == read(self._paths.root / original)
        if path.startswith("/run/systemd/transient/"):
            unit = path.removeprefix("/run/systemd/transient/").partition(".d/")[0]
            return bool(_TRANSIENT.search(unit)) or unit == self._paths.units.release
        for pattern, line in _MADE.items():
            if re.fullmatch(pattern, path):
                rows = read(seen.where).splitlines()
                # "#include" and "#clear" are directives of apt, and the text after "/* */" takes effect (apt.conf(5)).
                comment = r"#(?!include|clear).*|//.*" if path.startswith("/etc/apt/apt") else "#.*"
                return all(re.fullmatch(rf"(?:{line}|{comment})?", row.strip()) for row in rows)
        return False

    def _is_pam_as_packaged(self, where: Path) -> bool:
        """Return whether each line could come from a package's profile, through pam-auth-update."""
        profiles = self._paths.root / "usr/share/pam-configs"
        offered = set(_STATIC_PAM)
        for profile in profiles.glob("*"):
            offered |= {_pam(line) for line in meant(read(profile))}
        lines = [line.removeprefix("-").partition(" ") for line in map(_pam, meant(read(where)))]
        of, rules = where.name.split("-")[1], [rule for _, _, rule in lines]
        if {kind for kind, _, _ in lines} - {of} or not offered.issuperset(rules):
            return False
        if of == "session":
            return True
        # pam_permit admits everyone, so pam_permit must stand after pam_deny, which a login skips only after a
        # successful check.
        return _PASSES_DENY not in rules and (_PERMIT not in rules or _DENY in rules[: rules.index(_PERMIT)])

    def _described(self, seen: Seen, found: os.stat_result) -> str:
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = f"uid {found.st_uid}"
        told = _summary(seen, read(seen.where))
        return f"belongs to {owner}" + (f", says {told}" if told else "")


def _below(directory: str, path: str, reason: str) -> Iterator[Seen]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, f"{path}/{entry.name}", reason)
        else:
            yield Seen(f"{path}/{entry.name}", entry.path, reason)


def _pam(line: str) -> str:
    line = re.sub(r"=(?:end|\d+)(?=[ \]])", "=N", line)
    return " ".join(line.split())


def _summary(seen: Seen, text: str) -> str:
    """Summarise the file without secrets: show rules, names and programs, but do not show the arguments of programs."""
    path, lines = seen.path, meant(text, "#;")
    if path.startswith(("/etc/sudoers.d/", "/etc/ssh/sshd_config.d/")):
        said = lines
    elif "sysctl.d/" in path:
        said = [line.partition("=")[0].strip() for line in lines]
    elif "/systemd/" in path:
        runs = [line.partition("=")[2].split() for line in lines if line.startswith("Exec")]
        said = [words[0] for words in runs if words]
    else:
        said = []
    return shown("; ".join(said[:3])) if said else ""
