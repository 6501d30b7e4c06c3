"""status reports the droplet's state to people and to programs."""

import json
import os
from pathlib import Path

import pytest

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.core import lock
from stackctl.core.program import Result
from stackctl.core.version import VERSION
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import killed_at, killed_at_its_watch
from tests.support.status import status, web


def test_all_is_well(live: Droplet) -> None:
    code, report = status(live)
    assert (code, report["drift"], report["problems"]) == (0, [], [])
    assert report.keys() == {
        *(
            "version",
            "stackctl",
            "app",
            "lock",
            "maintenance",
            "active",
            "release",
            "colours",
            "worker",
            "kept",
            "webhook",
        ),
        *("data", "certificate", "reboot_due", "environment_differs", "drift", "stale", "problems", "trials"),
        *("isolated", "restoring", "telegram", "left", "gone", "under_way", "database_settings", "foreign"),
        *("foreign_accepted", "copy", "settled_restore"),
    }
    assert report["release"]["tag"] == "1.0.0"
    assert report["colours"]["green"] is None
    image = web(live)["image"]
    assert report["colours"]["blue"]["containers"] == [
        {"service": "web", "state": "running", "health": "healthy", "image": image, "sha256": web(live)["sha256"]}
    ]
    of_worker = report["worker"]["containers"]
    assert [(c["service"], c["state"], c["sha256"]) for c in of_worker] == [("worker", "running", web(live)["sha256"])]
    assert report["worker"]["id"] == report["release"]["id"]
    assert report["kept"] == [report["release"]]
    assert report["webhook"] == "https://bot.lab.test/webhook"
    assert [container["service"] for container in report["data"]] == ["postgres", "redis"]


def rows(droplet: Droplet) -> list[str]:
    return stackctl(droplet, "status")[1].splitlines()


def test_status_during_a_release_says_what_is_under_way(live: Droplet) -> None:
    """During a release, nothing is recorded yet, and status names the lock's holder."""
    left = killed_at_its_watch(live, "1.1.0")
    with lock.exclusive(left.paths.work, "ada's stackctl release (process 7)", 0):
        _, report = status(left)
        shown = rows(left)
    at = report["under_way"]
    assert (at["op"], at["tag"], at["by"], at["step"]) == ("release", "1.1.0", "root", "watch")
    assert shown[0].endswith("1.1.0 in green but not recorded yet")
    assert f"under way   release 1.1.0 by root since {at['since'][:19]}, at watch" in shown
    # this is the status after the release was killed
    assert status(left)[1]["under_way"] is None
    assert rows(left)[0].endswith("1.1.0 in green but never recorded, because a release was interrupted")


def test_before_its_flip_a_release_is_under_way_beside_the_live_one(live: Droplet) -> None:
    left = killed_at(live, (Stack, "wait_until_well"), "--by", "ada", "--key", "ada@laptop", "release", "1.1.0")
    with lock.exclusive(left.paths.work, "ada's stackctl release (process 7)", 0):
        shown = rows(left)
    assert shown[0].startswith("bot         1.0.0 in blue since 20")
    assert any(row.startswith("under way   release 1.1.0 by ada (ada@laptop) since") for row in shown)


def test_an_nginx_that_does_not_run_is_a_problem_where_it_should(live: Droplet) -> None:
    live.systemd.beside_ours.clear()
    assert status(live)[0] == 0, "a host without nginx must have no problem"
    declared = {"domain": "bot.lab.test", "server": "https://acme.test/dir", "email": "a@lab.test"}
    live.paths.config.write_text(json.dumps(json.loads(live.paths.config.read_text()) | {"certificate": declared}))
    told = (
        "nginx.service is not active, so nobody is served. Next: sudo nginx -t && sudo systemctl restart nginx.service"
    )
    assert told in status(live)[1]["problems"]
    live.systemd.beside_ours.add("nginx.service")
    assert told not in status(live)[1]["problems"]


def test_people_read_the_same(live: Droplet) -> None:
    code, shown = stackctl(live, "status")
    assert code == 0
    assert shown.splitlines() == [
        f"bot         1.0.0 in blue since {state.load(live.paths).release.since}",  # type: ignore[union-attr]
        "  web       running, healthy",
        "  worker    running, healthy",
        "  postgres  running, healthy",
        "  redis     running, healthy",
        f"stackctl    {VERSION}",
        "lock        free",
    ]


def test_a_due_reboot_is_shown_and_is_no_problem(live: Droplet) -> None:
    assert status(live)[1]["reboot_due"] is None
    assert "reboot" not in stackctl(live, "status")[1]
    live.paths.reboot_required.parent.mkdir(exist_ok=True)
    live.paths.reboot_required.touch()
    assert status(live)[1]["reboot_due"] == []
    live.paths.reboot_packages.write_text("linux-image-6.12\nlibc6\nlibc6\n")
    code, report = status(live)
    assert (code, report["reboot_due"]) == (0, ["libc6", "linux-image-6.12"])
    rows = stackctl(live, "status")[1].splitlines()
    assert "reboot      due, for libc6, linux-image-6.12. Next: sudo systemctl reboot" in rows


def test_files_of_debian_s_that_were_changed_are_a_problem(live: Droplet) -> None:
    live.programs["debsums"] = lambda _: Result(2, "/bin/ls\n", "debsums: missing file /bin/cp\n")
    code, shown = stackctl(live, "integrity")
    assert code == 4
    assert "have changed since they were installed: /bin/ls, debsums: missing file /bin/cp" in shown
    # The problem must stay even if the next debsums fails, for example because a reboot interrupts it.
    live.failing["debsums"] = Result(1, stderr="interrupted")
    code, report = status(live)
    assert (code, report["problems"]) == (
        4,
        [
            "files of Debian's packages have changed since they were installed. "
            f"Next: sudo cat {live.paths.integrity_failure}"
        ],
    )
    assert live.paths.integrity_failure.read_text() == "/bin/ls\ndebsums: missing file /bin/cp\n"


def test_files_that_are_as_installed_again_are_no_problem(live: Droplet) -> None:
    live.programs["debsums"] = lambda _: Result(2, "/bin/ls\n")
    assert stackctl(live, "integrity")[0] == 4
    live.programs["debsums"] = lambda _: Result(0)
    assert stackctl(live, "integrity")[0] == 0
    assert status(live)[1]["problems"] == []


def test_files_that_could_not_be_compared_are_a_problem(live: Droplet) -> None:
    live.failing["debsums"] = Result(127, stderr="debsums is not installed")
    assert stackctl(live, "integrity")[0] == 4
    assert status(live)[0] == 4
    assert live.paths.integrity_failure.read_text() == "debsums is not installed\n"


def upgrade(droplet: Droplet, *, made: bool, code: int = 0) -> None:
    """Run Debian's upgrade, whose program may exit with 0 although the upgrade failed.

    A stamp file has the time of the last successful upgrade.
    """
    stamp = droplet.paths.upgrade_stamp
    stamp.parent.mkdir(parents=True, exist_ok=True)

    def daily(_argv: list[str]) -> Result:
        if made:
            stamp.touch()
            os.utime(stamp, (droplet.now().timestamp(),) * 2)
        return Result(code)

    droplet.programs["/usr/lib/apt/apt.systemd.daily"] = daily
    droplet.programs.setdefault("needrestart", lambda _: Result(0, "NEEDRESTART-VER: 3.8\n"))
    assert stackctl(droplet, "upgrade")[0] == code


@pytest.mark.parametrize("code", [0, 1])
def test_upgrades_that_fail_for_a_second_day_are_a_problem_until_one_is_made(live: Droplet, code: int) -> None:
    upgrade(live, made=True)
    live.seconds += 86400
    upgrade(live, made=False, code=code)
    assert status(live)[1]["problems"] == []
    since = live.now()
    live.seconds += 86400 + 3 * 3600
    upgrade(live, made=False, code=code)
    assert status(live)[1]["problems"] == [
        f"Debian's upgrades have failed since {since:%Y-%m-%d}. Next: see /var/log/unattended-upgrades"
    ]
    upgrade(live, made=True)
    assert status(live)[0] == 0


def test_an_upgrade_that_was_made_before_on_the_same_day_is_enough(live: Droplet) -> None:
    upgrade(live, made=True)
    upgrade(live, made=False)
    assert not live.paths.upgrade_failure.exists()


def test_services_with_old_libraries_make_a_reboot_due(live: Droplet) -> None:
    """status lists services that use old libraries. README.batch.md of needrestart describes the output format."""
    live.paths.reboot_required.parent.mkdir(exist_ok=True)
    live.paths.reboot_packages.write_text("linux-image-6.12\n")
    upgrade(live, made=True)
    assert status(live)[1]["reboot_due"] is None
    found = (
        "NEEDRESTART-VER: 3.8\nNEEDRESTART-SVC: nginx.service\nNEEDRESTART-SVC: ssh.service\nNEEDRESTART-SESS: ada\n"
    )
    live.programs["needrestart"] = lambda _: Result(0, found)
    upgrade(live, made=False)  # a person ran the upgrade by hand
    for _ in range(2):
        upgrade(live, made=True)
        assert status(live)[1]["reboot_due"] == ["linux-image-6.12", "nginx.service", "ssh.service"]
    assert live.paths.reboot_packages.read_text() == "linux-image-6.12\nnginx.service\nssh.service\n"
    assert live.ran("needrestart")[0] == ["needrestart", "-b", "-l"]


def test_an_upgrade_fails_if_needrestart_does(live: Droplet) -> None:
    upgrade(live, made=True)
    live.programs["needrestart"] = lambda _: Result(2, stderr="Can't locate NeedRestart.pm in @INC")
    code, shown = stackctl(live, "upgrade")
    assert (code, "which programs still use old libraries: Can't locate NeedRestart.pm" in shown) == (1, True)
    assert not live.paths.reboot_required.exists()
    assert not live.paths.upgrade_failure.exists()


def test_before_the_first_release_nothing_is_wrong(fresh: Droplet) -> None:
    code, report = status(fresh)
    assert (code, report["active"], report["release"], report["drift"]) == (0, None, None, [])
    assert "no release yet. Next: sudo stackctl release TAG" in stackctl(fresh, "status")[1]


def test_people_are_told_what_a_rollback_can_bring_back(live: Droplet) -> None:
    assert "kept" not in stackctl(live, "status")[1]
    for tag in ("1.1.0", "1.2.0", "1.3.0"):
        assert stackctl(live, "release", tag)[0] == 0
    assert stackctl(live, "status")[1].splitlines()[-1] == "kept        1.2.0, 1.1.0: sudo stackctl rollback"
    assert [release["tag"] for release in status(live)[1]["kept"]] == ["1.3.0", "1.2.0", "1.1.0"]


def test_maintenance_is_shown_and_is_no_problem(live: Droplet) -> None:
    assert stackctl(live, "maintenance", "on")[0] == 0
    code, report = status(live)
    assert (code, report["maintenance"]) == (0, True)
    row = next(line for line in stackctl(live, "status")[1].splitlines() if line.startswith("maintenance"))
    assert row == "maintenance  on, so everybody gets 503. Next: sudo stackctl maintenance off"
    assert stackctl(live, "maintenance", "off")[0] == 0
    assert status(live)[1]["maintenance"] is False


def test_without_a_worker_none_is_missed(tmp_path: Path) -> None:
    droplet = installed(tmp_path, worker=False, webhook_path=None)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    code, report = status(droplet)
    assert (code, report["worker"], report["webhook"], report["drift"]) == (0, None, None, [])
    assert "worker" not in stackctl(droplet, "status")[1]


def test_without_data_on_this_host_none_is_missed(tmp_path: Path) -> None:
    droplet = installed(tmp_path, data=None)
    droplet.docker.containers.clear()
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    code, report = status(droplet)
    assert (code, report["data"]) == (0, [])
