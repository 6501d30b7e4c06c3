"""stackctl calls Compose with the right arguments, and reads Docker's reports on containers correctly."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.app import app_env
from stackctl.app.state import Release
from stackctl.services import compose
from stackctl.services.docker import Container

FILE = Path("/opt/bot/app.yaml")
FIXED = "docker compose --ansi never --env-file /dev/null --project-name bot-blue --file /opt/bot/app.yaml"
RELEASE = Release("20251123T120000Z", "1.0.0", "r@sha256:1", "e", None, "now")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (compose.up("bot-blue", FILE), "up --detach --no-build --pull never"),
        (compose.resume("bot-blue", FILE), "up --detach --no-recreate --no-build --pull never"),
        (compose.one_shot("bot-blue", FILE, "bot-migrate-1"), "run --rm --no-deps -T --name bot-migrate-1 migrate"),
        (
            compose.one_shot("bot-blue", FILE, "bot-schema-1", "schema", "--json"),
            "run --rm --no-deps -T --name bot-schema-1 migrate schema --json",
        ),
    ],
)
def test_compose_commands(argv: list[str], line: str) -> None:
    assert " ".join(argv) == f"{FIXED} {line}"


def test_compose_gets_the_apps_environment_and_ours_and_nothing_else() -> None:
    assert app_env.app_environment(RELEASE, {"TOKEN": "$x"}, "hash", "172.31.0.12", None) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "STACK_IMAGE": "r@sha256:1",
        "STACK_ADDRESS": "172.31.0.12",
        "STACK_SHA256": "hash",
        "STACK_RELEASE": "20251123T120000Z",
        "TOKEN": "$x",
    }


def test_the_worker_has_no_address() -> None:
    env = app_env.app_environment(RELEASE, {"TOKEN": "$x"}, "hash", None, None)
    assert "STACK_ADDRESS" not in env
    assert env["TOKEN"] == "$x"


def test_a_webhook_secret_that_telegram_still_sends_is_handed_on_beside_the_new_one() -> None:
    env = app_env.app_environment(RELEASE, {app_env.SECRET: "new"}, "hash", None, "old")
    assert (env["TELEGRAM_WEBHOOK_SECRET"], env["TELEGRAM_WEBHOOK_SECRET_PREVIOUS"]) == ("new", "old")
    assert app_env.PREVIOUS_SECRET not in app_env.app_environment(RELEASE, {app_env.SECRET: "new"}, "hash", None, None)


PARTS = st.tuples(st.binary(max_size=3), st.binary(max_size=3), st.text("ab", max_size=3))


@given(PARTS, PARTS)
def test_only_equal_stacks_have_equal_hashes(one: tuple[bytes, bytes, str], other: tuple[bytes, bytes, str]) -> None:
    assert (compose.stack_sha256(*one) == compose.stack_sha256(*other)) == (one == other)


@pytest.mark.parametrize(
    ("state", "health", "well", "condition"),
    [
        ("running", "healthy", True, "running, healthy"),
        ("running", None, True, "running"),
        ("running", "starting", False, "running, starting"),
        ("running", "unhealthy", False, "running, unhealthy"),
        ("exited", "unhealthy", False, "exited (exit code 137)"),
        ("restarting", None, False, "restarting"),
    ],
)
def test_when_a_container_is_well(state: str, health: str | None, well: bool, condition: str) -> None:  # noqa: FBT001
    container = Container("id", "image", state, health, 137, 0, {})
    assert (container.well, container.condition) == (well, condition)


@pytest.mark.parametrize(
    ("state", "restarts", "end"),
    [
        ("running", 0, None),
        ("created", 0, None),
        ("running", 1, "web ended by itself, and was started again"),
        ("exited", 0, "web ended by itself (exit code 137)"),
        ("restarting", 2, "web ended by itself (exit code 137)"),
        ("dead", 0, "web ended by itself (exit code 137)"),
    ],
)
def test_when_a_container_has_ended(state: str, restarts: int, end: str | None) -> None:
    container = Container("id", "image", state, None, 137, restarts, {"com.docker.compose.service": "web"})
    assert container.end == end
