"""boot, halt and status: what runs after a reset, what doesn't, and what an operator is told."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.app.stack import Stack
from stackctl.app.state import Webhook
from stackctl.core import lock
from stackctl.core.program import Result
from stackctl.core.version import VERSION
from tests.support.fakes.droplet import (
    CONFIG,
    ENVIRONMENT,
    Droplet,
    installed,
    killed_at,
    killed_at_its_watch,
    stackctl,
)


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.fixture
def live(fresh: Droplet) -> Droplet:
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    fresh.calls.clear()
    return fresh


def web(droplet: Droplet) -> dict[str, Any]:
    return next(c for c in droplet.docker.containers if c["service"] == "web")


def worker(droplet: Droplet) -> dict[str, Any]:
    return next(c for c in droplet.docker.containers if c["service"] == "worker")


@pytest.fixture
def uncommitted(live: Droplet) -> Droplet:
    """1.1.0 was killed while it was watched: nginx leads to it, and 1.0.0 is warm."""
    left = killed_at_its_watch(live, "1.1.0")
    assert (state.load(left.paths).active, left.docker.running()) == ("green", ["blue", "green"])
    left.calls.clear()
    return left


def serves(droplet: Droplet) -> tuple[str | None, str, list[str]]:
    """The colour that nginx leads to, what it runs, and the colours that run."""
    current = state.load(droplet.paths)
    assert current.release
    return current.active, current.release.tag, droplet.docker.running()


def status(droplet: Droplet) -> tuple[int, dict[str, Any]]:
    code, shown = stackctl(droplet, "status", "--json")
    return code, json.loads(shown)


# boot and halt


def test_halt_stops_the_app_before_its_data_and_boot_brings_the_same_back(live: Droplet) -> None:
    before = [(c["id"], c["image"]) for c in live.docker.containers]
    assert stackctl(live, "halt")[0] == 0
    app, jobs, data = live.ran("docker stop")
    assert app == ["docker", "stop", "-t", "5", web(live)["id"]]
    assert jobs == ["docker", "stop", "-t", "7", worker(live)["id"]]
    assert data == ["docker", "stop", *(c["id"] for c in live.docker.containers if c["project"] == "bot-data")]
    live.systemd.units.clear()
    assert stackctl(live, "boot")[0] == 0
    assert [(c["id"], c["image"]) for c in live.docker.containers] == before
    assert {c["state"] for c in live.docker.containers} == {"running"}
    assert live.systemd.units == {"bot-blue.socket"}
    assert not live.ran("docker pull")


def test_boot_uses_what_the_release_started_with(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({"OTHER": "environment"}))
    sha256 = web(live)["sha256"]
    live.docker.containers = live.docker.of("bot-data")
    assert stackctl(live, "boot")[0] == 0
    assert web(live)["sha256"] == worker(live)["sha256"] == sha256
    assert web(live)["image"] == worker(live)["image"]


def test_boot_starts_the_worker_that_is_there_and_makes_none_anew(live: Droplet) -> None:
    """Though its file has changed: that is for a release to mend."""
    before = worker(live)["id"]
    live.paths.worker_yaml.write_text("services: {worker: {}}\n")
    assert stackctl(live, "halt")[0] == 0
    assert worker(live)["state"] == "exited"
    assert stackctl(live, "boot")[0] == 0
    assert (worker(live)["id"], worker(live)["state"]) == (before, "running")


def test_boot_without_a_worker_starts_none(live: Droplet) -> None:
    live.docker.containers.remove(worker(live))
    live.paths.config.write_text(json.dumps(CONFIG | {"worker": False}))
    assert stackctl(live, "boot")[0] == 0
    assert not live.docker.of("bot-worker")


def test_a_worker_that_does_not_start_keeps_nobody_from_being_served(live: Droplet) -> None:
    stackctl(live, "halt")
    live.failing = {"--project-name bot-worker": Result(1, stderr="no such network")}
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert "worker: worker doesn't start: no such network" in shown.splitlines()[-1]
    assert live.docker.running() == ["blue"]
    assert live.systemd.units == {"bot-blue.socket"}


def test_boot_stops_the_colour_that_does_not_serve(live: Droplet) -> None:
    live.docker.create("bot-green", "web", web(live)["image"], {})
    assert live.docker.running() == ["blue", "green"]
    assert stackctl(live, "boot")[0] == 0
    assert live.docker.running() == ["blue"]


def test_boot_takes_an_uncommitted_release_back(uncommitted: Droplet) -> None:
    """Nobody saw whether it does well, and after a hard reset both colours run."""
    uncommitted.reset()
    assert stackctl(uncommitted, "boot")[0] == 0
    assert serves(uncommitted) == ("blue", "1.0.0", ["blue"])
    assert uncommitted.systemd.units == {"bot-blue.socket"}
    code, report = status(uncommitted)
    assert (code, report["drift"], report["worker"]["tag"]) == (0, [], "1.0.0")


def test_boot_leaves_a_recorded_release_where_it_is(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert stackctl(live, "boot")[0] == 0
    assert serves(live) == ("green", "1.1.0", ["green"])


RECORDED = "1.0.0 in blue, as it was recorded"


def settled(droplet: Droplet, *verb: str) -> tuple[int, list[str]]:
    """Exit code, and what was told of the step `settle`."""
    code, shown = stackctl(droplet, *verb, "--json")
    heard = [json.loads(line) for line in shown.splitlines()]
    return code, [event["message"] for event in heard if (event["step"], event["state"]) == ("settle", "done")]


@pytest.mark.parametrize("tag", ["1.1.0", "1.2.0"])
def test_what_was_recorded_serves_again_before_the_next_release_begins(uncommitted: Droplet, tag: str) -> None:
    """It is what the next one is judged by, and undone to."""
    assert settled(uncommitted, "release", tag) == (0, [RECORDED])
    assert serves(uncommitted) == ("green", tag, ["green"])
    assert [known.tag for known in state.load(uncommitted.paths).kept] == [tag, "1.0.0"]


def test_a_release_that_fails_after_one_that_was_killed_leaves_what_was_recorded(uncommitted: Droplet) -> None:
    uncommitted.app = {"ready": 200, "update": 500}
    assert settled(uncommitted, "release", "1.1.0") == (1, [RECORDED])
    assert serves(uncommitted) == ("blue", "1.0.0", ["blue"])


def test_what_was_recorded_serves_again_though_its_health_is_not_known_yet(uncommitted: Droplet) -> None:
    """After a start of Docker's."""
    for container in uncommitted.docker.of("bot-blue"):
        container["health"] = "starting"
    assert settled(uncommitted, "release", "9.9.9") == (1, [RECORDED])
    assert serves(uncommitted)[:2] == ("blue", "1.0.0")


@pytest.mark.parametrize("how", [{"state": "exited"}, {"health": "unhealthy"}])
def test_what_serves_is_not_given_up_for_a_recorded_one_that_does_not(
    uncommitted: Droplet, how: dict[str, str]
) -> None:
    for container in uncommitted.docker.of("bot-blue"):
        container.update(how)
    assert settled(uncommitted, "release", "9.9.9") == (2, [])
    assert serves(uncommitted)[:2] == ("green", "1.1.0")


def test_a_dry_run_settles_nothing_and_says_what_would_give_way(uncommitted: Droplet) -> None:
    code, shown = stackctl(uncommitted, "release", "1.2.0", "--dry-run")
    assert code == 0, shown
    assert "a release was interrupted: what was recorded before it is brought back first" in shown
    assert "goes live in green; it replaces 1.0.0 in blue" in shown
    assert serves(uncommitted) == ("green", "1.1.0", ["blue", "green"])


def test_a_refusal_after_something_was_settled_is_none(uncommitted: Droplet) -> None:
    """Exit 2 says that nothing was changed."""
    uncommitted.docker.registry.clear()
    code, shown = stackctl(uncommitted, "release", "1.1.0")
    assert code == 1
    assert "cannot pull" in shown.splitlines()[-1]
    assert "what an interrupted release had left was taken back before" in shown.splitlines()[-1]
    assert stackctl(uncommitted, "release", "1.1.0")[0] == 2


def test_what_was_recorded_needs_no_settling(live: Droplet) -> None:
    assert settled(live, "release", "1.1.0") == (0, [])


def test_boot_without_a_release_starts_data(fresh: Droplet) -> None:
    stackctl(fresh, "halt")
    assert stackctl(fresh, "boot")[0] == 0
    assert {c["state"] for c in fresh.docker.of("bot-data")} == {"running"}
    assert fresh.docker.containers == fresh.docker.of("bot-data")


@pytest.mark.parametrize("verb", ["boot", "halt"])
def test_on_a_bare_droplet_there_is_nothing_to_do(fresh: Droplet, verb: str) -> None:
    fresh.paths.config.unlink()
    assert stackctl(fresh, verb)[0] == 0
    assert not fresh.calls


def test_boot_without_data_on_this_host(live: Droplet) -> None:
    live.paths.data_yaml.unlink()
    assert stackctl(live, "boot")[0] == 0
    assert not live.ran("bot-data")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"failing": {"--project-name bot-data": Result(1, stderr="bind source path does not exist")}}, "source path"),
        ({"app": {"ready": 200}, "data": "unhealthy"}, "redis is running, unhealthy after 20 s"),
    ],
)
def test_boot_starts_what_it_can_and_then_fails(live: Droplet, broken: dict[str, Any], said: str) -> None:
    stackctl(live, "halt")
    live.failing = broken.get("failing", {})
    for container in live.docker.of("bot-data") if "data" in broken else []:
        container["health"] = "unhealthy"
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert said in shown.splitlines()[-1]
    assert live.docker.running() == ["blue"]


@pytest.mark.parametrize("lost", ["snapshot", "state"])
def test_boot_with_something_lost_says_what(live: Droplet, lost: str) -> None:
    release = state.load(live.paths).release
    assert release
    (live.paths.snapshot(release.id) if lost == "snapshot" else live.paths.state).unlink()
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert ("is missing" if lost == "snapshot" else "doesn't know what blue runs") in shown.splitlines()[-1]


# status


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
        "foreign_accepted",
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


def test_status_amid_a_release_says_what_is_under_way(live: Droplet) -> None:
    """Nothing is recorded yet, and somebody holds the lock."""
    left = killed_at_its_watch(live, "1.1.0")
    with lock.exclusive(left.paths.work, "ada's stackctl release (process 7)", 0):
        _, report = status(left)
        shown = rows(left)
    at = report["under_way"]
    assert (at["op"], at["tag"], at["by"], at["step"]) == ("release", "1.1.0", "root", "watch")
    assert shown[0].endswith("1.1.0 in green and not recorded yet")
    assert f"under way   release 1.1.0 by root since {at['since'][:19]}, at watch" in shown
    # And when it was killed:
    assert status(left)[1]["under_way"] is None
    assert rows(left)[0].endswith("1.1.0 in green and never recorded: a release was interrupted")


def test_before_its_flip_a_release_is_under_way_beside_the_live_one(live: Droplet) -> None:
    left = killed_at(live, (Stack, "wait_until_well"), "--by", "ada", "--key", "ada@laptop", "release", "1.1.0")
    with lock.exclusive(left.paths.work, "ada's stackctl release (process 7)", 0):
        shown = rows(left)
    assert shown[0].startswith("bot         1.0.0 in blue since 20")
    assert any(row.startswith("under way   release 1.1.0 by ada (ada@laptop) since") for row in shown)


def test_an_nginx_that_does_not_run_is_a_problem_where_it_should(live: Droplet) -> None:
    live.systemd.beside_ours.clear()
    assert status(live)[0] == 0, "nginx is on another host"
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


def test_a_reboot_that_is_due_is_told_and_is_no_problem(live: Droplet) -> None:
    assert status(live)[1]["reboot_due"] is None
    assert "reboot" not in stackctl(live, "status")[1]
    live.paths.reboot_required.parent.mkdir()
    live.paths.reboot_required.touch()
    assert status(live)[1]["reboot_due"] == []
    live.paths.reboot_packages.write_text("linux-image-6.12\nlibc6\nlibc6\n")
    code, report = status(live)
    assert (code, report["reboot_due"]) == (0, ["libc6", "linux-image-6.12"])
    rows = stackctl(live, "status")[1].splitlines()
    assert "reboot      due, for libc6, linux-image-6.12: sudo systemctl reboot" in rows


def test_files_of_debian_s_that_were_changed_are_a_problem(live: Droplet) -> None:
    live.programs["debsums"] = lambda _: Result(2, "/bin/ls\n", "debsums: missing file /bin/cp\n")
    code, shown = stackctl(live, "integrity")
    assert code == 4
    assert "not as installed: /bin/ls, debsums: missing file /bin/cp" in shown
    live.failing["debsums"] = Result(1, stderr="interrupted")  # and whatever else becomes of it, a reboot among it
    code, report = status(live)
    assert (code, report["problems"]) == (
        4,
        [f"files of Debian's packages are not as installed: sudo cat {live.paths.integrity_failure}"],
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
    """Debian's program ends well whatever became of it; a stamp has the day of an upgrade that was made."""
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
        f"Debian's upgrades have failed since {since:%Y-%m-%d}: see /var/log/unattended-upgrades"
    ]
    upgrade(live, made=True)
    assert status(live)[0] == 0


def test_an_upgrade_that_was_made_before_on_the_same_day_is_enough(live: Droplet) -> None:
    upgrade(live, made=True)
    upgrade(live, made=False)
    assert not live.paths.upgrade_failure.exists()


def test_an_upgrade_that_services_still_run_without_asks_for_a_reboot(live: Droplet) -> None:
    """Beside what Debian's packages ask for. needrestart's words: its README.batch.md."""
    live.paths.reboot_required.parent.mkdir()
    live.paths.reboot_packages.write_text("linux-image-6.12\n")
    upgrade(live, made=True)
    assert status(live)[1]["reboot_due"] is None
    found = (
        "NEEDRESTART-VER: 3.8\nNEEDRESTART-SVC: nginx.service\nNEEDRESTART-SVC: ssh.service\nNEEDRESTART-SESS: ada\n"
    )
    live.programs["needrestart"] = lambda _: Result(0, found)
    upgrade(live, made=False)  # somebody did it by hand
    for _ in range(2):
        upgrade(live, made=True)
        assert status(live)[1]["reboot_due"] == ["linux-image-6.12", "nginx.service", "ssh.service"]
    assert live.paths.reboot_packages.read_text() == "linux-image-6.12\nnginx.service\nssh.service\n"
    assert live.ran("needrestart")[0] == ["needrestart", "-b", "-l"]


def test_what_still_runs_with_old_libraries_has_to_be_known(live: Droplet) -> None:
    upgrade(live, made=True)
    live.programs["needrestart"] = lambda _: Result(2, stderr="Can't locate NeedRestart.pm in @INC")
    code, shown = stackctl(live, "upgrade")
    assert (code, "not known: Can't locate NeedRestart.pm" in shown) == (1, True)
    assert not live.paths.reboot_required.exists()
    assert not live.paths.upgrade_failure.exists()


def test_before_the_first_release_nothing_is_wrong(fresh: Droplet) -> None:
    code, report = status(fresh)
    assert (code, report["active"], report["release"], report["drift"]) == (0, None, None, [])
    assert "no release yet: sudo stackctl release TAG" in stackctl(fresh, "status")[1]


def test_people_are_told_what_a_rollback_can_bring_back(live: Droplet) -> None:
    assert "kept" not in stackctl(live, "status")[1]
    for tag in ("1.1.0", "1.2.0", "1.3.0"):
        assert stackctl(live, "release", tag)[0] == 0
    assert stackctl(live, "status")[1].splitlines()[-1] == "kept        1.2.0, 1.1.0: sudo stackctl rollback"
    assert [release["tag"] for release in status(live)[1]["kept"]] == ["1.3.0", "1.2.0", "1.1.0"]


def test_maintenance_is_told_and_is_no_problem(live: Droplet) -> None:
    assert stackctl(live, "maintenance", "on")[0] == 0
    code, report = status(live)
    assert (code, report["maintenance"]) == (0, True)
    row = next(line for line in stackctl(live, "status")[1].splitlines() if line.startswith("maintenance"))
    assert row == "maintenance  on, everybody gets 503: sudo stackctl maintenance off"
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


UNTOLD = "Telegram was not told where this release takes updates"


def lose_the_snapshot(droplet: Droplet) -> None:
    release = state.load(droplet.paths).release
    assert release
    droplet.paths.snapshot(release.id).unlink()


def tell_telegram(droplet: Droplet, webhook: Webhook | None) -> None:
    state.save(droplet.paths, replace(state.load(droplet.paths), webhook=webhook))


DRIFT: dict[str, tuple[Callable[[Droplet], Any], str]] = {
    "stopped": (lambda d: web(d).update(state="exited", exit_code=137), "web is exited (exit code 137)"),
    "missing": (lambda d: d.docker.containers.remove(web(d)), "web is missing"),
    "unhealthy": (lambda d: web(d).update(health="unhealthy"), "web is running, unhealthy"),
    "another image": (lambda d: web(d).update(image="evil"), "web is of another image, evil"),
    "worker missing": (lambda d: d.docker.containers.remove(worker(d)), "worker is missing"),
    "worker ended": (lambda d: worker(d).update(state="exited", exit_code=3), "worker is exited (exit code 3)"),
    "worker unhealthy": (lambda d: worker(d).update(health="unhealthy"), "worker is running, unhealthy"),
    "socket closed": (lambda d: d.systemd.units.clear(), "bot-blue.socket is not active"),
    "snapshot lost": (lose_the_snapshot, "what blue was started with is lost"),
    "state lost": (lambda d: d.paths.state.unlink(), "what blue was started with is lost"),
    "interrupted": (
        lambda d: d.docker.create("bot-green", "web", "data", {}),
        "green still runs: a release was interrupted",
    ),
    "webhook not told": (lambda d: tell_telegram(d, None), UNTOLD),
    "webhook elsewhere": (lambda d: tell_telegram(d, Webhook("https://bot.lab.test/webhook", "x")), UNTOLD),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_told_and_a_release_mends_it(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    code, report = status(live)
    assert (code, report["drift"]) == (4, [line])
    assert [problem for problem in report["problems"] if problem.startswith(line)]
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[0] == 0


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda d: d.paths.app_yaml.write_text("x"), ["web", "worker"]),
        (lambda d: d.paths.worker_yaml.write_text("x"), ["web", "worker"]),
        (lambda d: web(d).update(sha256="x"), ["web"]),
        (lambda d: worker(d).update(sha256="x"), ["worker"]),
    ],
)
def test_what_was_made_from_something_else_is_stale(
    live: Droplet, change: Callable[[Droplet], Any], stale: list[str]
) -> None:
    change(live)
    code, report = status(live)
    assert (code, report["drift"], report["stale"]) == (4, [], stale)
    assert [problem.split()[0] for problem in report["problems"]] == stale
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[1]["stale"] == []


def test_a_link_that_is_gone_is_not_taken_for_no_release(live: Droplet) -> None:
    live.paths.active.unlink()
    code, report = status(live)
    assert (code, report["release"]) == (4, None)
    assert report["problems"] == ["1.0.0 in blue isn't live: sudo stackctl release 1.0.0"]
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[0] == 0


AMID_A_RELEASE = [
    "interrupted",
    "worker missing",
    "worker ended",
    "worker unhealthy",
    "webhook not told",
    "webhook elsewhere",
]


@pytest.mark.parametrize("name", AMID_A_RELEASE)
def test_what_a_release_at_work_brings_about_is_no_drift(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    with lock.exclusive(live.paths.work, "ada's release", 0):
        code, report = status(live)
    assert (code, report["drift"], report["lock"]["holder"]) == (0, [], "ada's release")
    with lock.exclusive(live.paths.lock, "ada's converge", 0):
        assert status(live)[1]["drift"] == [line]


@pytest.mark.parametrize("name", [name for name in DRIFT if name not in AMID_A_RELEASE])
def test_what_breaks_amid_a_release_is_drift_all_the_same(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    with lock.exclusive(live.paths.work, "ada's release", 0):
        assert status(live)[1]["drift"] == [line]


def test_a_release_that_was_killed_is_told_though_it_serves(uncommitted: Droplet) -> None:
    code, report = status(uncommitted)
    assert (code, report["drift"]) == (4, ["blue still runs: a release was interrupted"])


def test_what_could_not_be_told_is_drift_until_the_next_release(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "TELEGRAM_WEBHOOK_SECRET": "webhook-secret-2"}))
    live.failing = {"telegram": Result(1)}
    assert stackctl(live, "release", "1.1.0")[0] == 4
    assert status(live)[1]["drift"] == [UNTOLD]
    live.failing = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert status(live)[1]["drift"] == []


def test_an_app_without_telegram_tells_it_nothing(live: Droplet) -> None:
    tell_telegram(live, None)
    live.paths.config.write_text(json.dumps(CONFIG | {"webhook_path": None}))
    code, report = status(live)
    assert (code, report["drift"]) == (0, [])


@pytest.mark.parametrize("which", [web, worker])
def test_a_container_that_starts_is_no_drift(live: Droplet, which: Callable[[Droplet], dict[str, Any]]) -> None:
    which(live)["health"] = "starting"
    assert status(live)[1]["drift"] == []
    which(live)["state"] = "exited"  # during the release
    assert len(status(live)[1]["drift"]) == 1


def test_a_changed_declaration_is_told(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "NEW": "1"}))
    code, report = status(live)
    assert (code, report["environment_differs"], report["drift"]) == (4, True, [])


def test_unwell_data_is_a_problem_and_no_drift(live: Droplet) -> None:
    live.docker.containers = [c for c in live.docker.containers if c["service"] != "redis"]
    code, report = status(live)
    assert (code, report["drift"]) == (4, [])
    assert report["problems"] == ["redis is missing: sudo systemctl restart bot.service"]


def test_data_that_starts_is_no_problem(live: Droplet) -> None:
    for container in live.docker.of("bot-data"):
        container["health"] = "starting"
    assert status(live)[0] == 0


def test_without_docker_status_still_answers(live: Droplet) -> None:
    live.failing = {"docker ps": Result(1, stderr="Cannot connect to the Docker daemon")}
    code, report = status(live)
    assert (code, report["drift"], report["active"]) == (4, [], "blue")
    assert "Cannot connect to the Docker daemon: systemctl status docker" in report["problems"][0]


def test_data_is_stopped_even_when_the_app_does_not_end(live: Droplet) -> None:
    live.failing = {"docker stop -t": Result(1, stderr="it hangs")}
    code, shown = stackctl(live, "halt")
    assert code == 1
    for what in ("app", "worker"):
        assert f"{what}: a container doesn't stop: it hangs" in shown.splitlines()[-1]
    assert {c["state"] for c in live.docker.of("bot-data")} == {"exited"}
