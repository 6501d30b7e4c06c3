"""After a password changes in the env file, the next converge puts the new password into use, with any characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab import secrets_file
from tests.lab.layout import ENV_FILE
from tests.support import converge
from tests.support.environment import Environment, status

pytestmark = pytest.mark.group("app")

NEW = {
    "DATABASE_PASSWORD": r"""new: a b$HOME#c%d"e'f\g\\h ünï ☂ @/:?&""",
    "REGISTRY_PASSWORD": r"""new: p q$HOME#r%d"s't\u\\v ünï ☂ @/:?&""",
    "REDIS_PASSWORD": r"""new: r s${PATH}#t%20"u'v\w ünï ☂ @/:?&""",
}


@pytest.fixture
def changed_passwords(lab: Environment, droplet: Host) -> Iterator[None]:
    before = ENV_FILE.read_text()
    values = secrets_file.read(ENV_FILE) | NEW
    try:
        change("".join(secrets_file.line(name, value) for name, value in values.items()))
        yield
    finally:
        change(before)
        converge.site()


def change(env_file: str) -> None:
    ENV_FILE.write_text(env_file)
    machines.up(1)  # the registry now accepts the new password


def release(droplet: Host) -> Any:
    """Return the live release."""
    return status(droplet)["release"]


def test_a_new_password_reaches_postgresql_redis_the_registry_and_the_app(
    changed_passwords: None, lab: Environment, droplet: Host
) -> None:
    before = release(droplet)
    changed = converge.changed(converge.site())
    assert "data_services | Set the app's roles and password in PostgreSQL" in changed
    assert "docker | Write the registry's login" in changed
    assert "app | Release the live tag again if it does not run as declared" in changed
    assert droplet.run("stackctl status").rc == 0
    assert release(droplet)["id"] != before["id"]
    # The app itself reaches PostgreSQL and Redis with the new passwords.
    active = lab.settings.paths.active
    assert '"status": "healthy"' in droplet.check_output(f"curl -sS --unix-socket {active} http://app/health")
    assert converge.changed(converge.site()) == set()
    # stackctl must pull a tag that is not live. The registry accepts only the new login.
    other = "1.1.0" if before["tag"] == "1.0.0" else "1.0.0"
    droplet.check_output(f"stackctl release {other}")
    assert release(droplet)["tag"] == other
