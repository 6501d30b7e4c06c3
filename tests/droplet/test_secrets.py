"""Where secrets are, and where they are not. The values go to the droplet on standard input, never in a command."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from testinfra.host import Host

from stackctl.core.redact import spellings
from tests.support.environment import Place

pytestmark = pytest.mark.group("app")


def secrets(place: Place) -> list[str]:
    """Every secret in the spellings in which it might turn up: plain, escaped, and as URLs and logins have it."""
    credentials = place.settings.credentials
    environment = place.settings.app_environment()
    urls = [environment["DATABASE_URL"], environment["REDIS_URL"]]
    login = f"{place.settings.values.registry_user}:{credentials.registry_password}"
    return spellings([*credentials.by_name.values(), *urls, b64encode(login.encode()).decode()])


def where_found(droplet: Host, place: Place, *search: str) -> str:
    """What find_secrets.py says of the place's secrets."""
    program = Path(__file__).parent / "find_secrets.py"
    found = place.run_python(droplet, program, *search, stdin="\0".join(secrets(place)).encode())
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().strip()


def test_the_directory_is_root_s_alone(droplet: Host, place: Place) -> None:
    found = droplet.check_output(f"find {place.settings.paths.secrets} -printf '%y %m %u\\n'").splitlines()
    assert {*found} == {"d 700 root", "f 600 root"}


@pytest.mark.parametrize(
    "command",
    [
        *("ps -eo args", "journalctl --no-pager --output=cat", "docker image inspect {image}", "docker ps --no-trunc"),
        "find /var/lib/docker/containers -path */local-logs/container.log -exec cat {{}} +",
    ],
)
def test_no_secret_is_in_the_output_of_(droplet: Host, place: Place, command: str) -> None:
    image = droplet.check_output(f"docker image ls -q {place.settings.paths.release_repository}").split()[0]
    assert where_found(droplet, place, "command", *command.format(image=image).split()) == "0"


def test_a_secret_in_the_output_of_a_command_would_be_noticed(droplet: Host, place: Place) -> None:
    """The control of the test above."""
    assert int(where_found(droplet, place, "command", "cat", str(place.settings.paths.next_environment))) >= 1


def test_no_file_that_others_can_read_has_one(droplet: Host, place: Place) -> None:
    folders = [
        "/etc",
        "/opt",
        "/home",
        "/tmp",
        "/usr/local",
        "/var/lib/cloud",
        "/var/log",
        str(place.settings.paths.var),
    ]
    assert where_found(droplet, place, "files", *folders) == ""


def test_nothing_but_the_secrets_own_files_has_one(droplet: Host, place: Place) -> None:
    folders = ["/etc", "/opt", "/root", "/home", "/tmp", str(place.settings.paths.var)]
    found = where_found(droplet, place, "all-files", *folders).splitlines()
    own = f"{place.settings.paths.secrets}/"
    assert [path for path in found if not path.startswith(own) and path != "/root/.docker/config.json"] == []
    # The control: the search does find what is there.
    assert str(place.settings.paths.next_environment) in found
    assert "/root/.docker/config.json" in found
