"""Where secrets are, and where they are not. The values go to the droplet on standard input, never in a command."""

from __future__ import annotations

import shlex
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("app")


def secrets(place: Place) -> list[str]:
    """Every secret in the spellings in which it might turn up."""
    credentials = place.settings.credentials
    plain = [
        credentials.database_password,
        credentials.redis_password,
        credentials.telegram_bot_token,
        credentials.telegram_webhook_secret,
        credentials.registry_password,
        *credentials.app.values(),
    ]
    environment = place.settings.app_environment()
    encoded = [environment["DATABASE_URL"], environment["REDIS_URL"]]
    login = f"{place.settings.values.registry_user}:{credentials.registry_password}"
    return [*plain, *encoded, b64encode(login.encode()).decode()]


def where_found(droplet: Host, place: Place, *search: str) -> str:
    """What find_secrets.py says of the place's secrets."""
    program = (Path(__file__).parent / "find_secrets.py").read_text()
    remote = shlex.join(["sudo", "python3", "-c", program, *search])
    command = ["ssh", "-F", place.data["ssh_config_file"], droplet.backend.get_hostname(), remote]
    patterns = "\0".join(secrets(place)).encode()
    return subprocess.run(command, input=patterns, stdout=subprocess.PIPE, check=True).stdout.decode().strip()


def test_the_directory_is_root_s_alone(droplet: Host, place: Place) -> None:
    found = droplet.check_output(f"find {place.settings.paths.secrets} -printf '%y %m %U %f\\n'").splitlines()
    assert "d 700 0 secrets" in found
    assert all(entry.startswith(("d 700 0 ", "f 600 0 ")) for entry in found)
    assert any("next.json" in entry for entry in found)


@pytest.mark.parametrize(
    "command",
    ["ps -eo args", "journalctl --no-pager --output=cat", "docker image inspect {image}", "docker ps --no-trunc"],
)
def test_no_secret_is_in_the_output_of_(droplet: Host, place: Place, command: str) -> None:
    image = droplet.check_output(f"docker image ls -q {place.settings.paths.release_repository}").split()[0]
    assert where_found(droplet, place, "command", *command.format(image=image).split()) == "0"


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
    own = str(place.settings.paths.secrets)
    assert [path for path in found if not path.startswith(own) and path != "/root/.docker/config.json"] == []
    # The control: the search does find what is there.
    assert f"{own}/next.json" in found
    assert "/root/.docker/config.json" in found
