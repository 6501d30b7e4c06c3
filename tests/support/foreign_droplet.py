"""A root file system with an sshd, into which tests plant foreign files."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackctl.core import config
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
    """A machine with a fake sshd that uses the first value of each option. Calls of other programs are recorded."""

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
    """A root directory without foreign things."""

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
        """Write the files of the image, the installer and cloud-init, which belong to no package."""
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
