"""A rollback makes a kept release live again."""

import json
from pathlib import Path

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.app.stack import Stack
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, installed, stackctl
from tests.support.fakes.kills import killed_at, killed_at_its_watch
from tests.support.releases import released_twice, tag


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    return released_twice(tmp_path)


def test_what_was_before_serves_again_without_pulling_migrating_or_dumping(live: Droplet) -> None:
    before = {container["id"] for container in live.docker.of("bot-blue")}
    code, shown = stackctl(live, "rollback")
    assert code == 0, shown
    assert (tag(live), live.docker.running()) == ("1.0.0", ["blue"])
    assert {container["id"] for container in live.docker.of("bot-blue")} == before
    assert not any(live.ran(what) for what in ("docker pull", " run ", "pg_dump"))
    assert [container["image"][-5:] for container in live.docker.of("bot-worker")] == ["1.0.0"]


def test_it_goes_back_and_forth(live: Droplet) -> None:
    for expected in ("1.0.0", "1.1.0", "1.0.0"):
        assert stackctl(live, "rollback", expected)[0] == 0
        assert tag(live) == expected


def three(live: Droplet) -> None:
    """Make 1.2.0 live, with 1.1.0 and 1.0.0 kept."""
    assert stackctl(live, "release", "1.2.0")[0] == 0


def kept_rows(droplet: Droplet) -> list[str]:
    return [
        row.removeprefix("kept").strip() for row in stackctl(droplet, "status")[1].splitlines() if row[:4] == "kept"
    ]


def test_twice_leads_further_back_and_never_to_the_one_that_it_fled_from(live: Droplet) -> None:
    three(live)
    assert kept_rows(live) == ["1.1.0, 1.0.0: sudo stackctl rollback"]
    assert stackctl(live, "rollback")[0] == 0
    assert tag(live) == "1.1.0"
    assert kept_rows(live) == [
        "1.0.0: sudo stackctl rollback",
        "1.2.0, rolled back earlier: sudo stackctl rollback 1.2.0",
    ]
    assert stackctl(live, "rollback")[0] == 0
    assert tag(live) == "1.0.0"
    code, shown = stackctl(live, "rollback")
    assert code == 2
    assert (
        "each earlier release (1.1.0, 1.2.0) was already replaced by a rollback. Nothing was changed. "
        "Next: stackctl rollback 1.1.0, if you want that release"
    ) in shown
    assert (tag(live), live.docker.running()) == ("1.0.0", ["blue"])


def test_a_release_that_was_left_can_be_named_and_counts_again(live: Droplet) -> None:
    three(live)
    assert stackctl(live, "rollback")[0] == 0
    assert stackctl(live, "rollback", "1.2.0")[0] == 0
    assert tag(live) == "1.2.0"
    # 1.1.0, which the second rollback left, is listed in `left`.
    assert [known.tag for known in state.load(live.paths).kept if known.id in state.load(live.paths).left] == ["1.1.0"]
    assert stackctl(live, "rollback")[0] == 0
    assert tag(live) == "1.0.0"


def test_a_release_of_the_same_tag_again_is_another_one(live: Droplet) -> None:
    three(live)
    assert stackctl(live, "rollback")[0] == 0
    for again in ("1.2.0", "1.0.0"):
        assert stackctl(live, "release", again)[0] == 0
    assert state.load(live.paths).left == ()
    assert stackctl(live, "rollback")[0] == 0
    assert tag(live) == "1.2.0"


def test_a_rollback_that_was_undone_left_nothing(live: Droplet) -> None:
    three(live)
    live.app = {"ready": 503}
    assert stackctl(live, "rollback")[0] == 1
    assert state.load(live.paths).left == ()


def test_killed_before_its_record_it_leads_to_the_same_again_and_marks_what_it_left(live: Droplet) -> None:
    three(live)
    left = killed_at(live, (Stack, "stop_worker"), "rollback")
    assert (tag(left), state.load(left.paths).left) == ("1.1.0", ())
    assert stackctl(left, "rollback")[0] == 0
    assert tag(left) == "1.1.0"
    marked = state.load(left.paths)
    assert [known.tag for known in marked.kept if known.id in marked.left] == ["1.2.0"]


def test_after_a_release_that_was_killed_nothing_that_was_recorded_is_left(live: Droplet) -> None:
    killed_release = killed_at_its_watch(live, "1.2.0")
    assert stackctl(killed_release, "rollback")[0] == 0
    assert (tag(killed_release), state.load(killed_release.paths).left) == ("1.1.0", ())


def test_status_offers_no_rollback_to_an_image_that_is_gone(live: Droplet) -> None:
    """status offers no rollback to a release whose image is gone, for example after `docker system prune --all`."""
    three(live)
    live.docker.images = {name: image for name, image in live.docker.images.items() if image != "1.1.0"}
    assert kept_rows(live) == [
        "1.0.0: sudo stackctl rollback 1.0.0",
        "1.1.0, whose image is gone: sudo stackctl release 1.1.0",
    ]
    assert stackctl(live, "rollback")[0] == 2
    assert stackctl(live, "rollback", "1.0.0")[0] == 0


def test_an_older_one_comes_from_our_own_image_though_the_registry_is_gone(live: Droplet) -> None:
    assert stackctl(live, "release", "1.2.0")[0] == 0
    live.docker.registry.clear()
    assert stackctl(live, "rollback", "1.0.0")[0] == 0
    assert tag(live) == "1.0.0"


def test_the_environment_is_the_one_that_it_had(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))
    before = state.load(live.paths).release
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert stackctl(live, "rollback")[0] == 0
    now = state.load(live.paths).release
    assert now
    assert before
    assert now.env_sha256 == before.env_sha256


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "there is no earlier release to go back to (kept: none). Nothing was changed. Next: stackctl release TAG"),
        (
            ["9.9.9"],
            "no release with the tag 9.9.9 is kept (kept: none). Nothing was changed. Next: stackctl release TAG",
        ),
    ],
)
def test_what_is_not_kept_is_refused_by_name(tmp_path: Path, asked: list[str], said: str) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    code, shown = stackctl(droplet, "rollback", *asked)
    assert code == 2
    assert said in shown


def test_a_removed_image_is_reported(live: Droplet) -> None:
    live.docker.images = {name: image for name, image in live.docker.images.items() if image != "1.0.0"}
    code, shown = stackctl(live, "rollback")
    assert code == 2
    assert "the image of 1.0.0" in shown


def test_a_disk_that_is_nearly_full_is_no_reason_to_refuse_it(live: Droplet) -> None:
    live.bytes_free = 0
    assert stackctl(live, "rollback")[0] == 0


def test_where_nothing_can_be_written_down_any_more_it_is_refused_before_anything_is_changed(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    before = [dict(container) for container in live.docker.containers]
    with monkeypatch.context() as patched:
        patched.setattr(state, "save", full)
        code, shown = stackctl(live, "rollback")
    assert code == 2
    assert "No space left on device. Next: make room on the disk (df -h), then stackctl rollback 1.0.0" in shown
    assert live.docker.containers == before
    assert stackctl(live, "rollback")[0] == 0


def test_a_release_that_does_not_become_healthy_is_undone(live: Droplet) -> None:
    live.app = {"ready": 503}
    code, shown = stackctl(live, "rollback")
    assert code == 1, shown
    assert (tag(live), live.docker.running()) == ("1.1.0", ["green"])
    live.app = {"ready": 200}
    assert stackctl(live, "rollback")[0] == 0


def test_while_telegram_still_sends_the_old_secret_both_are_accepted(live: Droplet) -> None:
    rotated = {**ENVIRONMENT, "TELEGRAM_WEBHOOK_SECRET": "webhook-secret-2"}
    live.paths.next_environment.write_bytes(canonical(rotated))
    assert live.telegram.webhook["secret_token"] == "webhook-secret-1"
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert [container["secrets"] for container in live.docker.of("bot-blue")] == [
        ["webhook-secret-2", "webhook-secret-1"]
    ]
    assert live.telegram.webhook["secret_token"] == "webhook-secret-2"
    assert "drop_pending_updates" not in live.telegram.webhook
    # The old release gets the new secret from the rollback when it starts.
    assert stackctl(live, "rollback")[0] == 0
    assert [container["secrets"][:2] for container in live.docker.of("bot-green")] == [
        ["webhook-secret-1", "webhook-secret-2"]
    ]
    assert live.telegram.webhook["secret_token"] == "webhook-secret-1"


def test_the_webhook_is_set_only_if_something_differs(live: Droplet) -> None:
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert not live.ran("setWebhook")
    live.telegram.webhook["url"] = "https://elsewhere.test/"
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert len(live.ran("setWebhook")) == 1


def test_an_app_without_telegram_is_not_asked_about_it(tmp_path: Path) -> None:
    droplet = installed(tmp_path, webhook_path=None, version_path=None, worker=False, migrate=False)
    droplet.docker.publish("7", version="of no label")
    assert stackctl(droplet, "release", "7")[0] == 0
    assert not droplet.ran("getWebhookInfo")
    assert not droplet.ran("POST")
    assert not droplet.docker.of("bot-worker")


def test_the_login_role_of_a_password_that_is_gone_is_dropped(live: Droplet) -> None:
    live.postgres.logins |= {"owner_00000002"}
    new = {**ENVIRONMENT, "DATABASE_URL": "postgresql://owner_00000002:other-password@db/app"}
    live.paths.next_environment.write_bytes(canonical(new))
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert live.postgres.logins == {"owner_00000001", "owner_00000002"}
    for version in ("1.0.0", "1.2.0"):
        assert stackctl(live, "release", version)[0] == 0
    assert live.postgres.logins == {"owner_00000002"}


def test_a_dry_run_says_what_would_happen_and_changes_nothing(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))
    assert stackctl(live, "release", "1.2.0")[0] == 0
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "ERROR"}))
    before = state.load(live.paths), [dict(container) for container in live.docker.containers], live.postgres.schema
    code, shown = stackctl(live, "release", "1.3.0", "--dry-run")
    assert code == 0
    for said in (
        "1.3.0 (",
        "and replaces 1.2.0 in blue",
        "the app environment differs in LOG_LEVEL",
        "0003 (contract)",
        "no rollback can go further back than the live release",
    ):
        assert said in shown
    assert before == (state.load(live.paths), live.docker.containers, live.postgres.schema)
    assert not [
        name for name in live.docker.images if name.startswith("bot/release:") and live.docker.images[name] == "1.3.0"
    ]


def test_a_digest_that_is_asked_for_is_the_one_that_is_pulled(live: Droplet) -> None:
    code, shown = stackctl(live, "release", f"1.2.0@sha256:{'0' * 64}")
    assert code == 2
    assert "cannot pull" in shown
    assert live.ran(f"docker pull --quiet registry.lab.test/bot@sha256:{'0' * 64}")


def test_history_tells_who_did_what_and_why_it_was_undone(live: Droplet) -> None:
    live.app = {"ready": 200, "update": 500}
    stackctl(live, "--by", "ada", "release", "1.2.0")
    runs = json.loads(stackctl(live, "history", "--json")[1])
    assert [(run["op"], run["tag"], run["by"], run["state"], run["code"]) for run in runs] == [
        ("release", "1.0.0", "root", "done", 0),
        ("release", "1.1.0", "root", "done", 0),
        ("release", "1.2.0", "ada", "failed", 1),
    ]
    assert "/webhook answers 500" in runs[-1]["message"]
    assert {"step": "probe", "state": "done"}.items() <= next(
        s for s in runs[0]["steps"] if s["step"] == "probe"
    ).items()
    shown = stackctl(live, "history")[1]
    assert "by ada" in shown.splitlines()[0]
    assert "/webhook answers 500" in shown


def test_a_release_can_be_followed_from_elsewhere(live: Droplet) -> None:
    code, shown = stackctl(live, "release", "--follow")
    assert code == 0
    assert "release    start 1.1.0 by root" in shown
    lines = [json.loads(line) for line in stackctl(live, "release", "--follow", "--json")[1].splitlines()]
    assert lines[-1]["code"] == 0


def test_a_killed_release_is_reported_as_killed(live: Droplet) -> None:
    lines = live.paths.history.read_bytes().splitlines(keepends=True)
    live.paths.history.write_bytes(b"".join(lines[:-1]))
    code, shown = stackctl(live, "release", "--follow")
    assert code == 4
    assert "ended without a result" in shown
    assert "unfinished" in stackctl(live, "history")[1]


def test_maintenance_is_a_file_that_nginx_looks_for(live: Droplet) -> None:
    assert stackctl(live, "maintenance", "on")[0] == 0
    assert live.paths.maintenance.stat().st_mode & 0o777 == 0o644
    assert "maintenance" in stackctl(live, "status")[1]
    assert stackctl(live, "maintenance", "off")[0] == 0
    assert not live.paths.maintenance.exists()


def test_after_a_kill_behind_the_handover_boot_mixes_no_versions(live: Droplet) -> None:
    """If a release is killed before it is recorded, boot starts app and worker in the same version."""
    current = state.load(live.paths)
    assert stackctl(live, "release", "1.2.0")[0] == 0
    state.save(live.paths, current)
    live.reset()
    assert stackctl(live, "boot")[0] == 0
    assert (tag(live), live.docker.running()) == ("1.1.0", ["green"])
    assert [container["image"][-5:] for container in live.docker.of("bot-worker")] == ["1.1.0"]
