"""stackctl reverts a change on trial unless a new login confirms the change."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from stackctl.core.program import TIMED_OUT, Result
from stackctl.host import trial
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.fakes.systemd import Systemd
from tests.support.trials import KEY, RIGHT, WRONG, calls, change, there


def test_a_confirmed_change_stays(bot: Droplet) -> None:
    assert stackctl(bot, "trial", "begin", "ssh")[0] == 0
    change(bot)
    assert stackctl(bot, "trial", "confirm", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == WRONG
    assert list(bot.paths.trials.iterdir()) == []
    timer = bot.paths.units.trial_timer("ssh")
    assert calls(bot, "systemctl") == [["systemctl", "restart", timer], ["systemctl", "stop", timer]]
    assert stackctl(bot, "trial", "boot")[0] == 0
    assert there(bot)["00-bot.conf"] == WRONG


@pytest.mark.parametrize("step", [("undo", "ssh"), ("expire", "ssh"), ("boot",)])
def test_what_is_not_confirmed_is_restore_whole(bot: Droplet, step: tuple[str, ...]) -> None:
    before = there(bot)
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    bot.calls.clear()
    assert stackctl(bot, "trial", *step)[0] == 0
    assert there(bot) == before
    assert (bot.paths.on_trial["ssh"][1] / "00-bot.conf").stat().st_mode & 0o777 == 0o640
    assert list(bot.paths.trials.iterdir()) == []
    # At boot, sshd has not started yet, and the trial must not wait for sshd.
    restarted = [["systemctl", verb, "ssh.service"] for verb in ("reset-failed", "restart")]
    assert calls(bot, "systemctl")[:2] == ([] if step == ("boot",) else restarted)
    assert '"op": "undo"' in bot.paths.history.read_text()


def test_keys_come_back_with_their_owner(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revert restores the owner of the key files, because sshd reads them as the operator."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    given: dict[object, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.update({path: (uid, gid)}))
    copy = (bot.paths.trial_copies("ssh") / "2").stat()
    stackctl(bot, "trial", "undo", "ssh")
    assert there(bot)["authorized_keys"] == KEY
    assert given[bot.paths.keys("deploy").with_name("authorized_keys.new")] == (copy.st_uid, copy.st_gid)


def test_a_revert_restores_the_operator_of_that_time(bot: Droplet) -> None:
    """A revert restores the earlier operator's keys, even if the trial declared another operator."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.paths.config.write_text(bot.paths.config.read_text().replace('"deploy"', '"somebody"'))
    stackctl(bot, "trial", "begin", "ssh")
    stackctl(bot, "trial", "undo", "ssh")
    assert there(bot)["authorized_keys"] == KEY


def test_a_revert_removes_a_file_that_was_not_there_before(bot: Droplet) -> None:
    shutil.rmtree(bot.paths.on_trial["ssh"][1])
    stackctl(bot, "trial", "begin", "ssh")
    bot.paths.on_trial["ssh"][1].mkdir()
    change(bot)
    stackctl(bot, "trial", "undo", "ssh")
    assert not bot.paths.on_trial["ssh"][1].exists()


@pytest.mark.parametrize(
    ("switch", "command"), [("ENABLED=yes", ["ufw", "reload"]), ("ENABLED=no", ["ufw", "--force", "disable"])]
)
def test_a_firewall_is_on_again_only_when_it_was(bot: Droplet, switch: str, command: list[str]) -> None:
    ufw, default = bot.paths.on_trial["firewall"]
    (ufw / "ufw.conf").write_text(f"{switch}\n")
    bot.failing["ufw"] = Result(0)
    stackctl(bot, "trial", "begin", "firewall")
    (ufw / "ufw.conf").write_text("ENABLED=maybe\n")
    default.write_text("IPV6=no\n")
    assert stackctl(bot, "trial", "undo", "firewall")[0] == 0
    assert calls(bot, "ufw") == [command]
    assert default.read_text() == "IPV6=yes\n"


@pytest.mark.parametrize("target", [None, b"a file", {"a": b"1", "b": b"2"}])
@pytest.mark.parametrize("source", [None, b"another", {"a": b"3"}])
def test_whatever_was_there_takes_the_place_of_whatever_is_there(
    tmp_path: Path, source: bytes | dict[str, bytes] | None, target: bytes | dict[str, bytes] | None
) -> None:
    for path, content in ((tmp_path / "source", source), (tmp_path / "target", target)):
        if isinstance(content, dict):
            path.mkdir()
            for name, text in content.items():
                (path / name).write_bytes(text)
        elif content is not None:
            path.write_bytes(content)
    trial._copy(tmp_path / "source", tmp_path / "target")
    found = tmp_path / "target"
    there = {one.name: one.read_bytes() for one in found.iterdir()} if found.is_dir() else None
    assert (there if there is not None else found.read_bytes() if found.exists() else None) == source
    assert {one.name for one in tmp_path.iterdir()} <= {"source", "target"}


def test_a_failed_copy_removes_nothing(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up at the second copy, `trial begin` fails and changes nothing."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    before = there(bot)
    (bot.paths.trial_copies("ssh") / "1/99-more.conf").write_bytes(WRONG)
    copied: list[object] = []

    def full(source: Path | str, target: Path | str) -> None:
        copied.append(target)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")
        shutil.copy2(source, target)

    monkeypatch.setattr(trial, "_copy_file", full)
    with pytest.raises(OSError, match="No space left"):
        trial._restore(bot.paths, trial.under_way(bot.paths)[0])
    assert there(bot) == before


def test_two_trials_know_nothing_of_each_other(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    stackctl(bot, "trial", "begin", "firewall")
    change(bot)
    stackctl(bot, "trial", "confirm", "firewall")
    assert [one.name for one in trial.under_way(bot.paths)] == ["ssh"]
    stackctl(bot, "trial", "undo", "ssh")
    assert there(bot)["00-bot.conf"] == RIGHT


def test_a_second_begin_keeps_the_confirmed_state_and_starts_the_time_again(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += trial.CONFIRM_TIMEOUT_S - 10
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += 20
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == WRONG
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT


def test_a_change_within_the_trial_s_time_is_made(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += trial.CONFIRM_TIMEOUT_S - 1
    assert stackctl(bot, "trial", "change", "ssh", "sshd -t")[0] == 0
    assert calls(bot, "sh") == [["sh", "-c", "sshd -t"]]


def test_the_time_starts_again_after_each_command(bot: Droplet) -> None:
    """The commands of a slow machine leave the whole time for the confirmation."""
    stackctl(bot, "trial", "begin", "ssh")
    for _ in range(3):
        bot.seconds += trial.CONFIRM_TIMEOUT_S - 1
        assert stackctl(bot, "trial", "change", "ssh", "sshd -t")[0] == 0
    bot.seconds += trial.CONFIRM_TIMEOUT_S - 1
    assert stackctl(bot, "trial", "confirm", "ssh")[0] == 0


@pytest.mark.parametrize("undone", [True, False])
def test_a_change_after_the_trial_s_time_is_refused(bot: Droplet, undone: bool) -> None:  # noqa: FBT001
    """A change after the end of its trial is refused, because nothing would revert it."""
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    if undone:
        stackctl(bot, "trial", "expire", "ssh")
    code, said = stackctl(bot, "trial", "change", "ssh", "ufw allow 22/tcp")
    assert (code, "no change to ssh is on trial any more" in said) == (2, True)
    assert calls(bot, "sh") == []


def test_a_change_that_fails_fails_as_its_command_does(bot: Droplet) -> None:
    bot.failing["sh -c"] = Result(255)
    stackctl(bot, "trial", "begin", "ssh")
    assert stackctl(bot, "trial", "change", "ssh", "sshd -t")[0] == 255


def test_an_endless_change_does_not_prevent_its_revert(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that hangs, for example because its sender sleeps, ends with the trial. The lock is then free."""
    timeouts: list[float] = []

    def endless(_: Droplet, argv: list[str], timeout: float) -> int:
        timeouts.append(timeout)
        return TIMED_OUT

    monkeypatch.setattr(Droplet, "run_attached", endless)
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += 50
    code, said = stackctl(bot, "trial", "change", "ssh", "cat")
    assert (code, "took longer than its trial" in said) == (1, True)
    assert timeouts[0] <= trial.CONFIRM_TIMEOUT_S - 50


def test_a_timer_that_took_long_to_be_set_finds_its_trial_due(bot: Droplet) -> None:
    """The trial's time starts before systemd sets the timer. Otherwise the timer would find the trial not yet due."""

    def slow(_: Systemd, verb: str, units: list[str]) -> Result:
        bot.seconds += 20
        return Result(0)

    began = bot.seconds
    with patch.object(Systemd, "systemctl", slow):
        stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds = began + trial.CONFIRM_TIMEOUT_S + 0.1
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT


def test_a_clock_that_is_set_back_does_not_delay_a_revert(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    early = bot.now()
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    monkeypatch.setattr(Droplet, "now", lambda _: early.replace(year=1999))
    stackctl(bot, "trial", "expire", "ssh")
    assert there(bot)["00-bot.conf"] == RIGHT
