"""Read-only checks: `make verify ENV=prod` runs them on production.

In the lab they first bring it up and back it up once. In other environments no check may fail repeatedly to log in by
SSH: sshd blocks the operator's address after three refused logins, fail2ban after ten.
"""

import json
import shutil
import socket

import pytest

from tests.support.environment import Environment

NEEDED = ("ssh", "curl", "openssl", "nmap")
"""Programs that the checks run here. The lab's neighbour has them."""


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, env: Environment) -> None:
    if env.name != "lab":
        if why := unfit(env.settings.values.domain):
            pytest.exit(f"{why} No check ran.", returncode=pytest.ExitCode.USAGE_ERROR)
        return
    request.getfixturevalue("lab")
    for host in env.hosts("data"):
        droplet = env.connect(host)
        if not any(one["verified"] for one in json.loads(droplet.check_output("stackctl list-backups --json"))):
            droplet.check_output("stackctl backup")


def unfit(domain: str) -> str:
    """Say why this machine cannot check an environment from outside; return "" if it can."""
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        return f"Not installed here: {', '.join(missing)}. Next: install them with apt-get or brew."
    try:
        socket.getaddrinfo(domain, 443)
    except OSError as error:
        return f"{domain} has no address here ({error}). Next: create its A record (docs/getting-started.md)."
    return ""
