"""stackctl removes exactly the foreign things that the operator names."""

from __future__ import annotations

import pytest

from stackctl.core.errors import FailedError, RefusedError
from tests.support.foreign_droplet import FINGERPRINT, KEY, OPERATORS, Droplet


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
    with pytest.raises(RefusedError, match="is not the name of a foreign thing that can be removed"):
        bare.remove("/etc/cron.d/job", name)
    assert (bare.root / "etc/cron.d/job").exists()
