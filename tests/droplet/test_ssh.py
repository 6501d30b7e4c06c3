"""SSH admits keys only, and never root. dev-sec ssh-baseline sshd-08, -14, -20."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("everywhere")


@pytest.mark.parametrize(
    "setting",
    [
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "authenticationmethods publickey",
        "x11forwarding no",
        "clientaliveinterval 30",
    ],
)
def test_what_counts_is_what_sshd_read(droplet: Host, setting: str) -> None:
    assert setting in droplet.check_output("sshd -T").splitlines()


def test_a_password_is_not_even_asked_for(outside: Host, place: Place) -> None:
    refused = outside.run(
        "ssh -o BatchMode=no -o NumberOfPasswordPrompts=0 -o PreferredAuthentications=password,keyboard-interactive "
        "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
        f"{place.settings.values.operator}@{place.settings.values.domain} true || true"
    )
    assert "Permission denied (publickey)" in refused.stderr
