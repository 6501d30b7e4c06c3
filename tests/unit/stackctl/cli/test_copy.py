"""A droplet that was made from an image of another droplet runs no app until a person decides what it is for."""

import json
from collections.abc import Callable

import pytest

from stackctl.core import instance
from stackctl.core.program import Result
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.status import status

ORIGINAL, ANOTHER = "512345678", "598765432"
PROBLEM = (
    "this droplet was made from an image of another droplet, so the app does not run here. Next: make isolate to look "
    "at the copy's data, or make promote if this droplet replaces the original"
)
DECLARED = {"domain": "bot.lab.test", "server": "https://acme.test/dir", "email": "a@lab.test"}


def record(droplet: Droplet, **changes: object) -> None:
    """Write values into stackctl.json, as a converge does."""
    droplet.paths.config.write_text(json.dumps(json.loads(droplet.paths.config.read_text()) | changes))


def booted_as(droplet: Droplet, instance_id: str | None) -> None:
    """Boot the disk on the droplet with this instance ID, up to the start of Docker.

    Docker starts the containers that were running, unless its option forbids this.
    """
    if instance_id is not None:
        droplet.paths.instance_id.parent.mkdir(parents=True, exist_ok=True)
        droplet.paths.instance_id.write_text(f"{instance_id}\n")
    droplet.systemd.units.clear()
    droplet.boot = "another"
    droplet.paths.docker_options.parent.mkdir(exist_ok=True)
    assert stackctl(droplet, "before-docker") == (0, "")
    if droplet.paths.docker_options.exists():
        assert droplet.paths.docker_options.read_text() == "DOCKER_OPTS=--restart=false\n"
        for container in droplet.docker.containers:
            container["state"] = "exited"
    droplet.calls.clear()


@pytest.fixture
def original(live: Droplet) -> Droplet:
    record(live, instance_id=ORIGINAL)
    return live


@pytest.fixture
def copy(original: Droplet) -> Droplet:
    booted_as(original, ANOTHER)
    assert stackctl(original, "boot")[0] == 0
    return original


def running(droplet: Droplet) -> set[str]:
    return {one["service"] for one in droplet.docker.containers if one["state"] == "running"}


def test_a_copy_starts_only_the_data_services(copy: Droplet) -> None:
    assert running(copy) == {"postgres", "redis"}
    assert not copy.systemd.units, "nginx must reach no app, so that clients get 503"
    assert not copy.ran("telegram ")
    assert not copy.paths.maintenance.exists(), "a promotion must not have to end the maintenance"


@pytest.mark.parametrize("instance_id", [ORIGINAL, None, "iid-datasource-none", "two words", ""])
def test_the_same_droplet_starts_everything(original: Droplet, instance_id: str | None) -> None:
    """cloud-init is not everywhere, and writes a substitute if the metadata service does not answer."""
    booted_as(original, instance_id)
    assert running(original) == {"web", "worker", "postgres", "redis"}, "after a power cut, Docker starts what ran"
    assert stackctl(original, "boot")[0] == 0
    assert running(original) == {"web", "worker", "postgres", "redis"}
    assert original.systemd.units == {"bot-blue.socket"}
    assert status(original)[1]["problems"] == []
    assert stackctl(original, "backup")[0] == 0


def test_a_droplet_without_a_recorded_id_starts_everything(live: Droplet) -> None:
    """The droplet was converged by an earlier version."""
    booted_as(live, ANOTHER)
    assert stackctl(live, "boot")[0] == 0
    code, report = status(live)
    assert (code, report["copy"], report["problems"]) == (0, False, [])
    assert running(live) == {"web", "worker", "postgres", "redis"}


def test_docker_starts_no_container_of_a_copy(original: Droplet) -> None:
    booted_as(original, ANOTHER)
    assert running(original) == set()
    record(original, instance_id=ANOTHER)
    assert stackctl(original, "before-docker")[0] == 0
    assert not original.paths.docker_options.exists(), "after the promotion, Docker starts containers again"


def test_before_the_first_converge_docker_starts_as_usual(original: Droplet) -> None:
    original.paths.config.unlink()
    booted_as(original, ANOTHER)
    assert not original.paths.docker_options.exists()


def test_status_has_one_problem_on_a_copy(copy: Droplet) -> None:
    code, report = status(copy)
    assert (code, report["problems"]) == (4, [PROBLEM])
    assert (report["copy"], report["isolated"], report["drift"], report["stale"]) == (True, True, [], [])
    shown = stackctl(copy, "status")[1]
    assert "COPY" in shown
    assert "ISOLATED" not in shown
    assert not copy.ran("telegram ")


def test_the_backups_of_the_original_are_no_problem_of_its_copy(original: Droplet) -> None:
    original.failing = {"pg_dump": Result(1, stderr="no space")}
    assert stackctl(original, "backup")[0] == 1
    original.failing = {}
    assert "the last backup failed" in status(original)[1]["problems"][0], "control: the original reports it"
    booted_as(original, ANOTHER)
    stackctl(original, "boot")
    assert status(original)[1]["problems"] == [PROBLEM]


def test_status_reports_an_app_that_runs_on_a_copy(copy: Droplet) -> None:
    for one in copy.docker.containers:
        one["state"] = "running"
    assert status(copy)[1]["problems"][1:] == [
        "worker is running, healthy on this copy. Next: sudo systemctl restart bot.service",
        "web is running, healthy on this copy. Next: sudo systemctl restart bot.service",
    ]
    assert stackctl(copy, "boot")[0] == 0
    assert running(copy) == {"postgres", "redis"}


@pytest.mark.parametrize(
    "verb",
    [
        ("release", "1.1.0"),
        ("release", "--dry-run", "1.1.0"),
        ("rollback",),
        ("backup",),
        ("restore", "latest"),
        ("check-offsite",),
        ("gate", "release 1.1.0"),
    ],
)
def test_a_verb_is_refused_on_a_copy_before_it_changes_anything(copy: Droplet, verb: tuple[str, ...]) -> None:
    copy.calls.clear()
    before = sorted(copy.paths.backups.glob("*"))
    code, shown = stackctl(copy, *verb)
    assert code == 2
    assert PROBLEM in shown
    assert copy.calls == []
    assert sorted(copy.paths.backups.glob("*")) == before
    assert status(copy)[1]["problems"] == [PROBLEM]
    record(copy, instance_id=ANOTHER)
    assert stackctl(copy, "release", "1.0.0")[0] == 0
    assert status(copy)[1]["problems"] == [], "a refusal must not count as a failed backup after the promotion"


def test_the_nightly_backup_of_a_copy_does_nothing(copy: Droplet) -> None:
    """The timer's unit does not fail, because the failure would outlive the promotion."""
    copy.calls.clear()
    before, history = sorted(copy.paths.backups.glob("*")), copy.paths.history.read_text()
    code, shown = stackctl(copy, "backup", "--nightly")
    assert (code, copy.calls) == (0, [])
    assert PROBLEM in shown
    assert sorted(copy.paths.backups.glob("*")) == before
    assert copy.paths.history.read_text() == history, "no run is in the history, because none was made"
    record(copy, instance_id=ANOTHER)
    assert stackctl(copy, "backup", "--nightly")[0] == 0
    assert len([*copy.paths.backups.glob("*")]) > len(before), "control: a promoted droplet makes the backup"
    assert copy.paths.history.read_text() != history


def test_a_copy_requests_no_certificate(copy: Droplet) -> None:
    record(copy, certificate=DECLARED)
    copy.calls.clear()
    code, shown = stackctl(copy, "certificate")
    assert (code, copy.calls) == (0, [])
    assert PROBLEM in shown
    record(copy, instance_id=ANOTHER)
    stackctl(copy, "certificate")
    assert copy.calls, "control: a promoted droplet looks at its certificate"


def test_a_promoted_copy_is_live(copy: Droplet) -> None:
    record(copy, instance_id=ANOTHER, isolated=False)
    report = status(copy)[1]
    assert "web is exited (exit code 0)" in report["drift"], "so the converge releases the live tag"
    assert stackctl(copy, "release", "1.0.0")[0] == 0
    assert status(copy)[1]["problems"] == []
    assert running(copy) == {"web", "worker", "postgres", "redis"}
    booted_as(copy, ANOTHER)
    assert stackctl(copy, "boot")[0] == 0
    assert running(copy) == {"web", "worker", "postgres", "redis"}


def test_an_isolated_copy_runs_the_app_without_a_worker(copy: Droplet) -> None:
    record(copy, instance_id=ANOTHER, isolated=True)
    assert stackctl(copy, "release", "1.0.0")[0] == 0
    code, report = status(copy)
    assert (code, report["copy"], report["isolated"], report["problems"]) == (0, False, True, [])
    assert running(copy) == {"web", "postgres", "redis"}
    assert not copy.ran("telegram ")


def test_an_interrupted_restore_stays_interrupted_on_a_copy(copy: Droplet) -> None:
    record_of = {"id": "20251123T120000Z", "token": "x", "maintenance": False}
    copy.paths.restoring.write_text(json.dumps(record_of))
    assert stackctl(copy, "boot")[0] == 0
    assert running(copy) == {"postgres", "redis"}
    assert status(copy)[1]["problems"] == [PROBLEM]
    record(copy, instance_id=ANOTHER)
    assert "was interrupted" in status(copy)[1]["problems"][0]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("512345678\n", "512345678"),
        ("i-0abcdef1234567890", "i-0abcdef1234567890"),
        ("2b6a2b1e-3bd0-4a7c-a9d0-1e9bb8c1f0aa\n", "2b6a2b1e-3bd0-4a7c-a9d0-1e9bb8c1f0aa"),
        ("a" * 128, "a" * 128),
        ("a" * 129, None),
        ("", None),
        ("\n", None),
        ("-a", None),
        ("a b", None),
        ("a\nb", None),
        ("a\x1b[2J", None),
        ("５１２", None),
        ("iid-datasource", None),
        ("iid-datasource-none\n", None),
    ],
)
def test_only_a_plausible_instance_id_counts(content: str, found: str | None, live: Droplet) -> None:
    assert instance.parse(content) == found
    live.paths.instance_id.parent.mkdir(parents=True)
    live.paths.instance_id.write_text(content)
    assert instance.present(live.paths) == found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b"a" * 10**6),
    ],
)
def test_an_unreadable_instance_id_is_unknown(spoil: Callable[..., object], original: Droplet) -> None:
    original.paths.instance_id.parent.mkdir(parents=True)
    spoil(original.paths.instance_id)
    assert status(original)[1]["copy"] is False


@pytest.mark.parametrize("value", ["a b", "", "a" * 129, 7])
def test_a_malformed_recorded_id_is_refused(live: Droplet, value: object) -> None:
    record(live, instance_id=value)
    code, shown = stackctl(live, "status")
    assert code == 2
    assert "instance_id must be" in shown
    assert "Next: make site" in shown
