"""The droplet has secrets only in the files and processes that need the secrets.

The tests send the values on standard input, never in a command.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from testinfra.host import Host

from stackctl.core.redact import spellings
from tests.support.environment import Environment

pytestmark = pytest.mark.group("app")


def secrets(env: Environment) -> list[str]:
    """Return every spelling in which a secret could appear, such as plain, escaped, or encoded for a URL or a login."""
    credentials = env.settings.credentials
    environment = env.settings.app_environment()
    urls = [environment["DATABASE_URL"], environment["REDIS_URL"]]
    login = f"{env.settings.values.registry_user}:{credentials.registry_password}"
    return spellings([*credentials.by_name.values(), *urls, b64encode(login.encode()).decode()])


def where_found(droplet: Host, env: Environment, *search: str) -> str:
    """Return the places in which find_secrets.py finds secrets of the environment."""
    program = Path(__file__).parent / "find_secrets.py"
    found = env.run_python(droplet, program, *search, stdin="\0".join(secrets(env)).encode())
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().strip()


def test_only_root_can_read_the_directory_of_secrets(droplet: Host, env: Environment) -> None:
    found = droplet.check_output(f"find {env.settings.paths.secrets} -printf '%y %m %u\\n'").splitlines()
    assert {*found} == {"d 700 root", "f 600 root"}


@pytest.mark.parametrize(
    "command",
    [
        *("ps -eo args", "journalctl --no-pager --output=cat", "docker image inspect {image}", "docker ps --no-trunc"),
        "find /var/lib/docker/containers -path */local-logs/container.log -exec cat {{}} +",
    ],
)
def test_no_secret_is_in_the_output_of(droplet: Host, env: Environment, command: str) -> None:
    image = droplet.check_output(f"docker image ls -q {env.settings.paths.docker.release_repository}").split()[0]
    assert where_found(droplet, env, "command", *command.format(image=image).split()) == "0"


def test_a_secret_in_the_output_of_a_command_is_found(droplet: Host, env: Environment) -> None:
    """Control: the search that found nothing in the test above finds a planted secret."""
    assert int(where_found(droplet, env, "command", "cat", str(env.settings.paths.next_environment))) >= 1


def test_no_file_that_others_can_read_contains_a_secret(droplet: Host, env: Environment) -> None:
    folders = [
        "/etc",
        "/opt",
        "/home",
        "/tmp",
        "/usr/local",
        "/var/lib/cloud",
        "/var/log",
        str(env.settings.paths.var),
    ]
    assert where_found(droplet, env, "files", *folders) == ""


def test_only_the_files_of_secrets_contain_a_secret(droplet: Host, env: Environment) -> None:
    folders = ["/etc", "/opt", "/root", "/home", "/tmp", str(env.settings.paths.var)]
    found = where_found(droplet, env, "all-files", *folders).splitlines()
    own = f"{env.settings.paths.secrets}/"
    assert [path for path in found if not path.startswith(own) and path != "/root/.docker/config.json"] == []
    # Control: the search finds the secrets in their own file.
    assert str(env.settings.paths.next_environment) in found
    assert "/root/.docker/config.json" in found
