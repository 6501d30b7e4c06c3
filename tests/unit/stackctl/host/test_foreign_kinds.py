"""stackctl reports each kind of foreign thing, and each can be accepted."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from stackctl.host import foreign
from tests.support.foreign_droplet import FINGERPRINT, HEAD, KEY, LISTEN, MODULES, OPERATORS, Droplet


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
    # kinds of programs that run by themselves
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
    # run-parts --lsbsysinit and certbot run these programs
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
    "a list of device nodes with another file": (
        put("run/tmpfiles.d/static-nodes.conf", "c! /dev/fuse 0600 - - - 10:229\nf /etc/cron.d/x 0644 - - - *\n"),
        "/run/tmpfiles.d/static-nodes.conf",
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
    # other kinds
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
