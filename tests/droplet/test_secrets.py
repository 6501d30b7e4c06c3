"""Where secrets are, and where they are not. The values go to the droplet on standard input, never in a command."""

from __future__ import annotations

import subprocess
from base64 import b64encode

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


def where_found(droplet: Host, place: Place, command: str) -> str:
    """What `command` prints; it ends in a grep that reads its patterns, the secrets, from standard input."""
    config = place.data["ssh_config_file"]
    remote = ["ssh", "-F", config, droplet.backend.get_hostname(), f"sudo sh -c '{command}'"]
    ran = subprocess.run(remote, input="\n".join(secrets(place)), capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def test_the_directory_is_root_s_alone(droplet: Host, place: Place) -> None:
    found = droplet.check_output(f"find {place.settings.paths.secrets} -printf '%y %m %U %f\\n'").splitlines()
    assert "d 700 0 secrets" in found
    assert all(entry.startswith(("d 700 0 ", "f 600 0 ")) for entry in found)
    assert any("next.json" in entry for entry in found)


@pytest.mark.parametrize(
    "command",
    [
        "ps -eo args | grep -cFf /dev/stdin",
        "journalctl --no-pager -o cat | grep -acFf /dev/stdin",
        "cat /opt/*/* /var/lib/{app}/state.json /var/lib/{app}/history.jsonl | grep -acFf /dev/stdin",
        "docker image ls -q | xargs docker image inspect | grep -cFf /dev/stdin",
        "cat /root/.bash_history /home/*/.bash_history 2>/dev/null | grep -acFf /dev/stdin",
    ],
)
def test_no_secret_is_in_(droplet: Host, place: Place, command: str) -> None:
    assert where_found(droplet, place, command.format(app=place.settings.values.app)) == "0"


def test_no_file_that_others_can_read_has_one(droplet: Host, place: Place) -> None:
    folders = "/etc /opt /home /tmp /root /usr/local /var/lib/cloud /var/log /var/lib/" + place.settings.values.app
    search = f"find {folders} -xdev -type f -perm /044 -size -8M -print0 | xargs -0 grep -alFf /dev/stdin"
    assert where_found(droplet, place, search) == ""


def test_the_search_itself_finds_what_is_there(droplet: Host, place: Place) -> None:
    """The control: without the condition on the mode, the secrets' own files turn up."""
    search = f"find {place.settings.paths.secrets} -type f -print0 | xargs -0 grep -alFf /dev/stdin"
    assert "next.json" in where_found(droplet, place, search)
