"""A lock keeps other runs out and names its holder.

The tests use real processes, because flock(2) locks between processes.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from deploys.components import backups
from stackctl.cli import background, timers
from stackctl.core import config, lock
from stackctl.core.errors import LockedError
from stackctl.core.paths import Paths
from stackctl.core.program import Result
from stackctl.host import certificate, trial, upkeep
from tests.support.fakes.droplet import installed, stackctl
from tests.support.settings import settings_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT_S", 0.05)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return installed(tmp_path).paths


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that waits until another thread has tried a taken lock three times.

    Three attempts take longer than LOCK_TIMEOUT_S in these tests, so a caller with that timeout has given up.
    """
    refusals = threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            refusals.release()
        time.sleep(seconds)

    def wait() -> None:
        for _ in range(3):
            assert refusals.acquire(timeout=30), "nobody waits for a lock"

    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return wait


@contextmanager
def another(paths: Paths, *files: Path) -> Iterator[multiprocessing.Process]:
    """Hold locks in another process: the given ones, or else `lock` and `work`."""
    ready, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(paths, files, theirs))
    process.start()
    assert ready.recv() == "held"
    try:
        yield process  # type: ignore[misc]
    finally:
        ready.send("end")
        process.join()


def _hold(paths: Paths, files: tuple[Path, ...], pipe: Connection) -> None:
    with lock.exclusive(files[0], "ada's converge", 0) if files else lock.hold(paths, "ada's release"):
        pipe.send("held")
        pipe.recv()


def test_the_second_run_is_told_who_holds_the_lock_and_since_when(paths: Paths) -> None:
    with another(paths):
        holder = lock.holder_of(paths.lock)
        assert holder
        with pytest.raises(LockedError, match=f"ada's release has held the lock since {holder.since[:10]}"):
            lock.hold(paths, "me").__enter__()
    with lock.hold(paths, "me"):
        pass
    assert lock.holder_of(paths.lock) is None


def test_a_killed_holder_leaves_no_lock(paths: Paths) -> None:
    with another(paths) as process:
        process.kill()
        process.join()
        assert lock.holder_of(paths.lock) is None
        with lock.hold(paths, "me"):
            holder = lock.holder_of(paths.lock)
            assert holder
            assert holder.holder == "me"


def test_release_is_locked_out_with_exit_3(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    with another(droplet.paths):
        code, shown = stackctl(droplet, "release", "1.0.0")
    assert code == 3
    assert "ada's release" in shown
    assert not droplet.calls


def test_no_unit_is_started_while_containers_are_moved(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    with another(droplet.paths, droplet.paths.work):
        with pytest.raises(LockedError, match="ada's converge has held the lock since"):
            background.start(droplet.paths, config.load(droplet.paths), droplet, ["release", "1.0.0"])
        assert stackctl(droplet, "rollback")[0] == 3
    assert not droplet.calls


def test_a_release_during_a_converge_names_who_runs_it(tmp_path: Path) -> None:
    """A converge holds the lock, so the release's unit may not start. The follower shows the holder."""
    droplet = installed(tmp_path)
    with another(droplet.paths, droplet.paths.lock):
        code, shown = stackctl(droplet, "release", "1.0.0")
    assert code == 3
    assert "ada's converge has held the lock since" in shown.splitlines()[-1]
    assert not droplet.ran("docker ")


def test_a_release_can_be_followed_while_it_holds_its_locks(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    with another(droplet.paths):
        assert stackctl(droplet, "release", "--follow")[0] == 0
        assert stackctl(droplet, "history")[0] == 0
        assert stackctl(droplet, "status")[0] == 0


def test_a_part_of_the_run_is_admitted_by_its_id(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    with another(droplet.paths, droplet.paths.lock):
        holder = lock.holder_of(droplet.paths.lock)
        assert holder
        assert stackctl(droplet, "--lock-id", holder.id, "release", "1.0.0")[0] == 0
        assert lock.holder_of(droplet.paths.lock) == holder
        assert stackctl(droplet, "--lock-id", "another", "release", "1.0.0")[0] == 3
        assert stackctl(droplet, "release", "1.0.0")[0] == 3
    assert stackctl(droplet, "--lock-id", holder.id, "release", "1.0.0")[0] == 3


def test_a_release_whose_converge_is_gone_keeps_others_out(paths: Paths) -> None:
    with another(paths, paths.work), pytest.raises(LockedError, match="ada's converge"):
        lock.hold(paths, "me").__enter__()


def test_boot_does_not_mind_a_converge_and_waits_for_a_release(tmp_path: Path, refused: Callable[[], None]) -> None:
    """boot ignores the lock of a converge, because a converge starts APP.service while it holds the lock."""
    droplet = installed(tmp_path)
    with another(droplet.paths, droplet.paths.lock):
        assert stackctl(droplet, "boot")[0] == 0
    codes: list[int] = []
    boot = threading.Thread(target=lambda: codes.append(stackctl(droplet, "boot")[0]))
    with another(droplet.paths):
        boot.start()
        refused()
        assert not codes
    boot.join()
    assert codes == [0]


def test_the_daily_upgrade_waits_for_a_release_and_keeps_others_out(
    tmp_path: Path, refused: Callable[[], None]
) -> None:
    droplet = installed(tmp_path)
    seen: list[str] = []
    locks = (droplet.paths.lock, droplet.paths.work, droplet.paths.backup_lock)

    def upgrade(argv: list[str]) -> Result:
        holders = [lock.holder_of(path) for path in locks]
        seen.extend(holder.holder for holder in holders if holder)
        return Result(0)

    droplet.programs["/usr/lib/apt/apt.systemd.daily"] = upgrade
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(stackctl(droplet, "upgrade")[0]))
    with another(droplet.paths):
        waiting.start()
        refused()
        assert not codes
        assert not seen
    waiting.join()
    assert codes == [0]
    assert seen == ["the daily upgrade of Debian's packages"] * 3


@pytest.mark.parametrize("held", ["the site's", "the backups'"])
def test_the_night_s_backup_waits_for_what_is_under_way_and_is_not_passed_over(
    tmp_path: Path, refused: Callable[[], None], held: str
) -> None:
    """The nightly backup waits for a holder of any lock, such as Debian's upgrade, which holds all locks."""
    droplet = installed(tmp_path)
    files = () if held == "the site's" else (droplet.paths.backup_lock,)
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(stackctl(droplet, "backup", "--nightly")[0]))
    with another(droplet.paths, *files):
        assert stackctl(droplet, "backup")[0] == 3
        waiting.start()
        refused()
        assert not codes
    waiting.join()
    assert codes == [0]
    # If the wait takes too long, the unit fails, and the night has no backup.
    settings = settings_of("prod")
    assert b"SuccessExitStatus" not in backups.units(settings)[settings.paths.units.backup_service]


def test_no_signal_ends_half_an_upgrade_and_a_failed_one_says_so(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    droplet.programs["/usr/lib/apt/apt.systemd.daily"] = lambda _: Result(1, stderr="E: held broken packages\n")
    code, shown = stackctl(droplet, "upgrade")
    assert code == 1
    assert "the daily upgrade failed: E: held broken packages. Next: see /var/log/unattended-upgrades" in shown
    assert [call[0] for call in droplet.calls] == ["ignore_signals", "/usr/lib/apt/apt.systemd.daily"]
    # Only the journal has the refusal, because the history is for runs that people start.
    assert not droplet.paths.history.exists()


def test_a_full_disk_does_not_prevent_locking(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, a run can still take the lock, and the message names no former holder."""

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with lock.hold(paths, "yesterday's release"):
        pass
    monkeypatch.setattr(os, "pwrite", full)
    with lock.hold(paths, "me"), pytest.raises(LockedError, match="another program has held the lock"):
        lock.hold(paths, "you").__enter__()


def test_a_shorter_name_takes_the_place_of_a_longer_one(paths: Paths) -> None:
    for name in ("yesterday's release", "me"):
        with lock.hold(paths, name):
            holder = lock.holder_of(paths.lock)
            assert holder
            assert holder.holder == name


def test_a_refusal_names_the_waiting_run_and_not_an_earlier_one(paths: Paths) -> None:
    """A waiting run already holds `lock`, so a refusal names this run."""
    with lock.hold(paths, "yesterday's release"):
        pass

    got: list[str] = []

    def wait() -> None:
        with lock.hold(paths, "the upgrade", timeout=60):
            got.append("both")

    with another(paths, paths.work):
        waiting = threading.Thread(target=wait)
        waiting.start()
        deadline = time.monotonic() + 30
        while getattr(lock.holder_of(paths.lock), "holder", "") != "the upgrade":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(LockedError, match="the upgrade has held the lock"):
            lock.hold(paths, "me", timeout=0.05).__enter__()
        assert not got
    waiting.join()
    assert got == ["both"]


def test_a_reboot_waits_for_what_is_under_way_and_keeps_others_out(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    seen: list[str] = []

    def reboot(paths: Paths = droplet.paths) -> None:
        seen.extend(holder.holder for path in (paths.lock, paths.work) if (holder := lock.holder_of(path)))

    with another(droplet.paths), patch.object(timers, "REBOOT_LOCK_TIMEOUT_S", 0.05):
        code, shown = stackctl(droplet, "reboot")
    assert code == 3
    assert "ada's release has held the lock since" in shown
    assert not droplet.calls
    with patch.object(upkeep, "reboot", lambda _machine: reboot()):
        assert stackctl(droplet, "reboot")[0] == 0
    assert seen == ["the reboot that an upgrade asks for"] * 2
    assert stackctl(droplet, "reboot")[0] == 0
    assert droplet.calls == [["systemctl", "reboot"]]
    droplet.failing = {"systemctl reboot": Result(1, stderr="Access denied")}
    code, shown = stackctl(droplet, "reboot")
    assert (code, "cannot reboot: Access denied" in shown) == (1, True)


def test_two_looks_at_the_certificate_are_never_at_work_at_once(tmp_path: Path) -> None:
    """The timer and a converge may check the certificate at the same time. The second check waits for the first."""
    declared = {"domain": "bot.lab.test", "server": "https://acme.test/dir", "email": "a@lab.test"}
    droplet = installed(tmp_path, certificate=declared)
    seen: list[object] = []
    timeout = patch.object(timers, "CERTIFICATE_LOCK_TIMEOUT_S", 0.05)
    ensure = patch.object(
        certificate, "ensure", lambda stack, _: seen.append(lock.holder_of(stack.paths.certificate_lock))
    )
    with timeout, ensure:
        with another(droplet.paths, droplet.paths.certificate_lock):
            code, shown = stackctl(droplet, "certificate")
        assert (code, "ada's converge has held the lock since" in shown) == (3, True)
        assert not seen
        assert stackctl(droplet, "certificate")[0] == 0
    assert all(seen)
    assert len(seen) == 1


def test_two_steps_of_trials_are_never_at_work_at_once(tmp_path: Path) -> None:
    """A timer's revert must not overlap with the change that it reverts."""
    droplet = installed(tmp_path)
    seen: list[object] = []
    timeout = patch.object(trial, "LOCK_TIMEOUT_S", 0.05)
    undo = patch.object(trial, "revert", lambda paths, *_: seen.append(lock.holder_of(paths.trial_lock)))
    with timeout, undo:
        with another(droplet.paths, droplet.paths.trial_lock):
            code, shown = stackctl(droplet, "trial", "undo", "ssh")
        assert (code, "ada's converge has held the lock since" in shown) == (3, True)
        assert not seen
        assert stackctl(droplet, "trial", "undo", "ssh")[0] == 0
    assert all(seen)
    assert len(seen) == 1


def test_halt_needs_no_lock(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    with another(droplet.paths):
        assert stackctl(droplet, "halt")[0] == 0


def test_reading_the_holder_locks_no_run_out(paths: Paths) -> None:
    with lock.hold(paths, "me"):
        pass
    with lock._flock(paths.lock, 0):
        assert lock.holder_of(paths.lock) is not None
    assert lock.holder_of(paths.lock) is None
    with lock._flock(paths.lock, 0):
        pass
