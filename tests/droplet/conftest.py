"""Read-only checks of a droplet. `make verify ENV=prod` runs these checks on production.

In the lab, the suite first starts the lab and makes one backup. In other environments, no check may repeat a failed SSH
login, because sshd blocks the operator's address after three refused logins, and fail2ban bans the address after ten.
"""

import json
import shutil
import socket

import pytest

from tests.support.environment import Environment

NEEDED = ("ssh", "curl", "openssl", "nmap")
"""Programs that the checks run on this machine, or on neighbour in the lab."""


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, env: Environment) -> None:
    if env.name != "lab":
        if not env.in_lab and (why := unfit(env.settings.values.domain)):
            pytest.exit(f"{why} No check ran.", returncode=pytest.ExitCode.USAGE_ERROR)
        return
    request.getfixturevalue("lab")
    for host in env.hosts("data"):
        droplet = env.connect(host)
        if not any(one["verified"] for one in json.loads(droplet.check_output("stackctl list-backups --json"))):
            droplet.check_output("stackctl backup")


def unfit(domain: str) -> str:
    """Return the reason why this machine cannot check an environment from outside, or "" if there is none."""
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        return f"Not installed here: {', '.join(missing)}. Next: install them with apt-get or brew."
    try:
        socket.getaddrinfo(domain, 443)
    except OSError as error:
        return f"{domain} has no address here ({error}). Next: create its A record (docs/getting-started.md)."
    return ""
