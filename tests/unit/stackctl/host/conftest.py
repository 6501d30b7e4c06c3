"""Droplets for the tests of trials and of foreign findings."""

import json
from pathlib import Path

import pytest

from stackctl.core.program import Result
from tests.support import foreign_droplet
from tests.support.fakes.droplet import Droplet, installed
from tests.support.trials import KEY, RIGHT


@pytest.fixture
def bot(tmp_path: Path) -> Droplet:
    bot = installed(tmp_path)
    main, drop_ins = bot.paths.on_trial["ssh"]
    drop_ins.mkdir(parents=True)
    main.write_bytes(b"Include\n")
    (drop_ins / "00-bot.conf").write_bytes(RIGHT)
    (drop_ins / "00-bot.conf").chmod(0o640)
    keys = bot.paths.keys("deploy")
    keys.parent.mkdir(parents=True)
    keys.write_bytes(KEY)
    bot.failing["sh -c"] = bot.failing["sshd -T"] = Result(0)
    ufw, default = bot.paths.on_trial["firewall"]
    ufw.mkdir(parents=True)
    (ufw / "ufw.conf").write_text("ENABLED=yes\n")
    default.parent.mkdir()
    default.write_text("IPV6=yes\n")
    known = json.loads(bot.paths.declared.read_text())
    known["files"] = ["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/00-bot.conf"]
    bot.paths.declared.write_text(json.dumps(known))
    return bot


@pytest.fixture
def bare(tmp_path: Path) -> foreign_droplet.Droplet:
    return foreign_droplet.Droplet(tmp_path)
