"""Checks that only read: `make verify ENV=prod` runs them on production.

In the lab they first bring it up, and have it backed up once. Elsewhere none may knock in vain at SSH again and again:
after three refused logins sshd shuts the operator's address out, after ten fail2ban does.
"""

import json

import pytest

from tests.places import Place


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, place: Place) -> None:
    if place.name != "lab":
        return
    request.getfixturevalue("lab")
    for host in place.hosts("data"):
        droplet = place.connect(host)
        if not any(one["verified"] for one in json.loads(droplet.check_output("stackctl backups --json"))):
            droplet.check_output("stackctl backup")
