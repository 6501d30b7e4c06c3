"""Tests of trials whose timer, record or copies fail, and of trials at boot."""

import json
import shutil
from dataclasses import replace

import pytest

from stackctl.core.program import Result
from stackctl.host import trial
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.fakes.kills import killed
from tests.support.trials import RIGHT, calls, change, there


def test_no_trial_begins_without_a_timer(bot: Droplet) -> None:
    bot.failing["systemctl restart"] = Result(5, stderr="Unit bot-trial@ssh.timer not found.")
    code, said = stackctl(bot, "trial", "begin", "ssh")
    assert (code, "Nothing was changed" in said) == (1, True)
    assert trial.under_way(bot.paths) == []


@pytest.mark.parametrize("step", ["confirm", "undo"])
def test_a_change_that_is_not_on_trial_is_neither_confirmed_nor_reverted(bot: Droplet, step: str) -> None:
    code, said = stackctl(bot, "trial", step, "ssh")
    assert (code, "no change to ssh is on trial" in said) == (2, True)


def test_a_timer_that_finds_no_trial_ends(bot: Droplet) -> None:
    """A timer that finds no trial ends, because a confirmation may be killed before it stops the timer."""
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


def test_a_failed_revert_is_repeated(bot: Droplet) -> None:
    """The timer repeats a failed revert until it succeeds."""
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += trial.CONFIRM_TIMEOUT_S
    bot.failing["systemctl restart ssh"] = Result(1, stderr="Job for ssh.service failed.")
    code, said = stackctl(bot, "trial", "expire", "ssh")
    assert (code, "have not taken effect: Job for ssh.service failed." in said) == (1, True)
    assert calls(bot, "systemctl")[-1] == ["systemctl", "restart", "ssh.service"]
    bot.seconds += 30
    assert "the change to ssh could not be reverted. Next: journalctl -u bot-trial@ssh" in stackctl(bot, "status")[1]
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


def test_the_timer_repeats_a_revert_that_failed_at_boot(bot: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial from before the boot is due immediately, although the new monotonic clock shows time left."""
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
    assert "the change to ssh could not be reverted" in stackctl(bot, "status")[1]
    code, said = stackctl(bot, "trial", "change", "ssh", "sshd -t")
    assert (code, "no change to ssh is on trial any more" in said) == (2, True)
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] == RIGHT
    assert trial.under_way(bot.paths) == []


def test_a_broken_trial_does_not_prevent_another_s_revert_at_boot(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    stackctl(bot, "trial", "begin", "firewall")
    shutil.rmtree(bot.paths.trial_copies("ssh"))
    switch = bot.paths.on_trial["firewall"][0] / "ufw.conf"
    switch.write_text("ENABLED=maybe\n")
    code, said = stackctl(bot, "trial", "boot")
    assert (code, "ssh is not reverted: " in said) == (4, True)
    assert switch.read_text() == "ENABLED=yes\n"
    # without copies, no later attempt could succeed
    assert not bot.ran(f"start --no-block {bot.paths.units.trial_timer('ssh')}")
    assert [one.name for one in trial.under_way(bot.paths)] == ["ssh"]


def test_status_shows_a_trial_and_that_no_person_is_needed(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    code, said = stackctl(bot, "status")
    assert code == 0, said
    assert "ssh, reverted at 20" in said
    (told,) = json.loads(stackctl(bot, "status", "--json")[1])["trials"]
    assert told["name"] == "ssh"


def test_only_root_can_read_the_copies(bot: Droplet) -> None:
    stackctl(bot, "trial", "begin", "ssh")
    assert bot.paths.trials.stat().st_mode & 0o777 == 0o700


def test_a_kill_during_begin_changes_nothing(bot: Droplet) -> None:
    """A kill of `trial begin` leaves either no record or a record with all its copies.

    `trial begin` changes nothing itself, so nothing has to be reverted.
    """
    recorded: list[bool] = []
    for moment in range(1, 20):
        left = killed(bot, moment, "trial", "begin", "ssh")
        if left is None:
            break
        recorded.append(left.paths.trial_record("ssh").exists())
        left = replace(left, killed_at=None)
        assert stackctl(left, "trial", "boot")[0] == 0
        assert there(left)["00-bot.conf"] == RIGHT
        assert stackctl(left, "trial", "begin", "ssh")[0] == 0
        change(left)
        assert stackctl(left, "trial", "undo", "ssh")[0] == 0
        assert there(left)["00-bot.conf"] == RIGHT
    else:
        pytest.fail("begin never ended")
    assert len(recorded) > 4
    assert set(recorded) == {False, True}, "the test needs kills before and after the record was written"


def test_an_unconfirmed_change_is_reverted_after_two_minutes(bot: Droplet) -> None:
    """An unconfirmed change is reverted after the two minutes that the documentation states."""
    assert trial.CONFIRM_TIMEOUT_S == 120
    stackctl(bot, "trial", "begin", "ssh")
    change(bot)
    bot.seconds += 110
    assert stackctl(bot, "trial", "expire", "ssh")[0] == 0
    assert there(bot)["00-bot.conf"] != RIGHT
    bot.seconds += 11
    stackctl(bot, "trial", "expire", "ssh")
    assert there(bot)["00-bot.conf"] == RIGHT
