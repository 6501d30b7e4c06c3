"""Changes on trial: what is kept, put back and forgotten, wherever somebody died."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from stackctl.core.program import TIMED_OUT, Result
from stackctl.host import trial
from tests.support.fakes.droplet import Droplet, installed, killed, stackctl
from tests.support.fakes.systemd import Systemd

RIGHT, WRONG = b"AllowUsers deploy\n", b"AllowUsers nobody\n"
KEY = b"ssh-ed25519 AAAA operator\n"


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


def change(bot: Droplet) -> None:
    drop_ins = bot.paths.on_trial["ssh"][1]
    (drop_ins / "00-bot.conf").write_bytes(WRONG)
    (drop_ins / "99-more.conf").write_bytes(WRONG)
    bot.paths.keys("deploy").write_bytes(b"somebody else's")


def there(bot: Droplet) -> dict[str, bytes]:
    """All of sshd's configuration, and whom it admits."""
    main, drop_ins = bot.paths.on_trial["ssh"]
    return {path.name: path.read_bytes() for path in [main, *drop_ins.iterdir(), bot.paths.keys("deploy")]}


def calls(bot: Droplet, program: str) -> list[list[str]]:
    return [call for call in bot.calls if call[0] == program]


def test_what_is_confirmed_stays(bot: Droplet) -> None:
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
    # At boot sshd has not started yet, and must not be waited for.
    restarted = [["systemctl", verb, "ssh.service"] for verb in ("reset-failed", "restart")]
    assert calls(bot, "systemctl")[:2] == ([] if step == ("boot",) else restarted)
    assert '"op": "undo"' in bot.paths.history.read_text()


def test_keys_come_back_with_their_owner(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd reads them as the operator; what root copies is root's."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    given: dict[object, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.update({path: (uid, gid)}))
    copy = (bot.paths.trial_copies("ssh") / "2").stat()
    stackctl(bot, "trial", "undo", "ssh")
    assert there(bot)["authorized_keys"] == KEY
    assert given[bot.paths.keys("deploy").with_name("authorized_keys.new")] == (copy.st_uid, copy.st_gid)


def test_what_comes_back_is_the_operators_of_that_time(bot: Droplet) -> None:
    """A converge may declare another operator while the trial goes on."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.paths.config.write_text(bot.paths.config.read_text().replace('"deploy"', '"somebody"'))
    stackctl(bot, "trial", "begin", "ssh")
    stackctl(bot, "trial", "undo", "ssh")
    assert there(bot)["authorized_keys"] == KEY


def test_what_was_not_there_before_goes_again(bot: Droplet) -> None:
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


def test_what_can_t_be_copied_takes_nothing_away(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full, at the second file of the directory."""
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


def test_a_second_begin_keeps_what_was_confirmed_last_and_has_time_anew(bot: Droplet) -> None:
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


def test_what_comes_within_the_time_is_done(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += trial.CONFIRM_TIMEOUT_S - 1
    assert stackctl(bot, "trial", "change", "ssh", "sshd -t")[0] == 0
    assert calls(bot, "sh") == [["sh", "-c", "sshd -t"]]


@pytest.mark.parametrize("undone", [True, False])
def test_what_comes_too_late_is_not_done(bot: Droplet, undone: bool) -> None:  # noqa: FBT001
    """The converge's machine slept: nothing would undo it any more."""
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    if undone:
        stackctl(bot, "trial", "expire", "ssh")
    code, said = stackctl(bot, "trial", "change", "ssh", "ufw allow 22/tcp")
    assert (code, "no change of ssh is on trial any more" in said) == (2, True)
    assert calls(bot, "sh") == []


def test_a_change_that_fails_fails_as_its_command_does(bot: Droplet) -> None:
    bot.failing["sh -c"] = Result(255)
    stackctl(bot, "trial", "begin", "ssh")
    assert stackctl(bot, "trial", "change", "ssh", "sshd -t")[0] == 255


def test_a_change_without_an_end_keeps_nobody_from_undoing_it(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose sender sleeps, say: it is ended with the trial, and with it the lock is free."""
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
    """It counts from when systemd got to it; a trial that counted from later would never be undone."""

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


def test_a_clock_that_is_set_back_keeps_nobody_out(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    early = bot.now()
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    monkeypatch.setattr(Droplet, "now", lambda _: early.replace(year=1999))
    stackctl(bot, "trial", "expire", "ssh")
    assert there(bot)["00-bot.conf"] == RIGHT


def test_without_a_timer_nothing_is_begun(bot: Droplet) -> None:
    bot.failing["systemctl restart"] = Result(5, stderr="Unit bot-trial@ssh.timer not found.")
    code, said = stackctl(bot, "trial", "begin", "ssh")
    assert (code, "Nothing was changed" in said) == (1, True)
    assert trial.under_way(bot.paths) == []


@pytest.mark.parametrize("step", ["confirm", "undo"])
def test_what_is_not_on_trial_is_neither_confirmed_nor_undone(bot: Droplet, step: str) -> None:
    code, said = stackctl(bot, "trial", step, "ssh")
    assert (code, "no change of ssh is on trial" in said) == (2, True)


def test_a_timer_that_finds_no_trial_ends(bot: Droplet) -> None:
    """Whoever confirmed was killed before it was stopped."""
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT
    assert calls(bot, "systemctl") == [["systemctl", "stop", bot.paths.units.trial_timer("ssh")]]


def test_a_timer_that_asks_too_early_goes_on_and_leaves_no_trace(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    bot.seconds += trial.CONFIRM_TIMEOUT_S - 1
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert calls(bot, "systemctl") == [["systemctl", "restart", bot.paths.units.trial_timer("ssh")]]
    assert stackctl(bot, "history", "--json")[1].strip() == "[]"


@pytest.mark.parametrize("step", ["begin", "change", "confirm", "expire", "undo"])
def test_of_what_has_to_be_said(bot: Droplet, step: str) -> None:
    code, said = stackctl(bot, "trial", step)
    assert (code, "ssh|firewall" in said) == (2, True)


def test_an_undoing_that_fails_is_done_again(bot: Droplet) -> None:
    """The timer goes on to ask."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    bot.failing["systemctl restart ssh"] = Result(1, stderr="Job for ssh.service failed.")
    code, said = stackctl(bot, "trial", "expire", "ssh")
    assert (code, "not in force: Job for ssh.service failed." in said) == (1, True)
    assert calls(bot, "systemctl")[-1] == ["systemctl", "restart", "ssh.service"]
    bot.seconds += 30
    assert "the change of ssh could not be reverted: journalctl -u bot-trial@ssh" in stackctl(bot, "status")[1]
    bot.failing.clear()
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT
    assert "could not be reverted" not in stackctl(bot, "status")[1]


def test_copies_that_are_gone_take_nothing_with_them(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    shutil.rmtree(bot.paths.trial_copies("ssh"))
    code, said = stackctl(bot, "trial", "undo", "ssh")
    assert (code, "by hand" in said) == (4, True)
    assert there(bot)["00-bot.conf"] == RIGHT


def test_what_could_not_be_undone_is_not_begun(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    shutil.rmtree(bot.paths.trial_copies("ssh"))
    bot.calls.clear()
    code, said = stackctl(bot, "trial", "begin", "ssh")
    assert (code, "by hand" in said) == (4, True)
    assert bot.calls == []


@pytest.mark.parametrize("record", ["", "{}", '{"name": "ssh", "due": "soon"}'])
def test_a_record_that_cannot_be_read_is_left_to_a_person(bot: Droplet, record: str) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    bot.paths.trial_record("ssh").write_text(record)
    bot.calls.clear()
    code, said = stackctl(bot, "trial", "boot")
    assert (code, "ssh.json can't be read" in said, "check ssh by hand" in said) == (4, True, True)
    assert bot.calls == []


def test_what_a_boot_could_not_undo_is_tried_again_by_its_timer(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock begins anew, with two minutes to come: the record is another boot's."""
    bot.seconds = 5000
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.boot, bot.seconds = "the second", 3
    bot.calls.clear()
    with monkeypatch.context() as full:
        full.setattr(trial, "_copy_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        code, said = stackctl(bot, "trial", "boot")
        assert (code, "ssh is not reverted: [Errno 28] No space left on device" in said) == (4, True)
    assert bot.calls == [["systemctl", "start", "--no-block", bot.paths.units.trial_timer("ssh")]]
    assert "the change of ssh could not be reverted" in stackctl(bot, "status")[1]
    code, said = stackctl(bot, "trial", "change", "ssh", "sshd -t")
    assert (code, "no change of ssh is on trial any more" in said) == (2, True)
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT
    assert trial.under_way(bot.paths) == []


def test_one_broken_trial_keeps_no_other_from_being_undone_at_boot(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    stackctl(bot, "trial", "begin", "firewall")
    shutil.rmtree(bot.paths.trial_copies("ssh"))
    switch = bot.paths.on_trial["firewall"][0] / "ufw.conf"
    switch.write_text("ENABLED=maybe\n")
    code, said = stackctl(bot, "trial", "boot")
    assert (code, "ssh is not reverted: " in said) == (4, True)
    assert switch.read_text() == "ENABLED=yes\n"
    # Without copies there is nothing to try again.
    assert not bot.ran(f"start --no-block {bot.paths.units.trial_timer('ssh')}")
    assert [one.name for one in trial.under_way(bot.paths)] == ["ssh"]


def test_status_tells_of_a_trial_and_that_nobody_is_needed(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    code, said = stackctl(bot, "status")
    assert code == 0, said
    assert "ssh, reverted at 20" in said
    (told,) = json.loads(stackctl(bot, "status", "--json")[1])["trials"]
    assert told["name"] == "ssh"


def test_nobody_but_root_reads_the_copies(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    assert bot.paths.trials.stat().st_mode & 0o777 == 0o700


def test_wherever_begin_is_killed_a_boot_finds_what_was_there(bot: Droplet) -> None:
    """Before the record nothing has been changed, and nothing is put back; with it all of the copies are there."""
    for moment in range(1, 20):
        left = killed(bot, moment, "trial", "begin", "ssh")
        if left is None:
            assert moment > 3, "hardly a kill"
            break
        left = replace(left, killed_at=None)
        assert stackctl(left, "trial", "boot")[0] == 0
        assert there(left)["00-bot.conf"] == RIGHT
        assert stackctl(left, "trial", "begin", "ssh")[0] == 0
        change(left)
        assert stackctl(left, "trial", "undo", "ssh")[0] == 0
        assert there(left)["00-bot.conf"] == RIGHT
    else:
        pytest.fail("begin never ended")


def test_a_change_that_nobody_confirms_is_undone_after_two_minutes(bot: Droplet) -> None:
    """As docs say: a number, and not the program's own."""
    assert trial.CONFIRM_TIMEOUT_S == 120
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += 110
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] != RIGHT
    bot.seconds += 11
    stackctl(bot, "trial", "expire", "ssh")
    assert there(bot)["00-bot.conf"] == RIGHT
