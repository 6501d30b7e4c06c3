"""The site records the accounts, files and other things that its operations declare."""

from __future__ import annotations

import json

from pyinfra.context import ctx_host

from deploys.facts.accounts import LoginShell
from deploys.facts.files import FileState
from deploys.facts.ufw import Firewall, Ufw
from deploys.operations import declared, ufw
from deploys.operations.accounts import user
from deploys.operations.files import atomic_file
from tests.support.operations import droplet


def test_the_site_tells_what_its_operations_were_asked_for() -> None:
    with droplet({FileState: None, LoginShell: "/bin/bash", Ufw: Firewall()}):
        known = declared.of(ctx_host.get())
        for told in (known.files, known.logins, known.ports):
            told.clear()
        list(atomic_file._inner(dest="/etc/x/y", content=b""))
        list(user._inner(login="me"))
        list(ufw.rules._inner(allow=["80/tcp", "from 192.0.2.1 to any port 22 proto tcp"], policies={}, after=b""))
    assert known.files == {"/etc/x/y", "/etc/ufw/after.rules"}
    assert (known.logins, known.ports) == ({"me"}, {22, 80})
    document = json.loads(declared.document(known, {"/etc/z": "why"}))
    assert (document["files"], document["accepted"]) == (["/etc/ufw/after.rules", "/etc/x/y"], {"/etc/z": "why"})
