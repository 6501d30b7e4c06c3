"""If a converge dies between a changed file and its reload, the next converge runs the reload."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support import converge
from tests.support.environment import Environment

pytestmark = pytest.mark.group("edge")

ATTEMPTS = 8


def version_shown(lab: Environment) -> bool:
    """Return whether the running nginx shows its version. The drift in the tests below makes nginx show its version."""
    domain = lab.settings.values.domain
    headers = lab.outside.check_output(f"curl -sS -o /dev/null -D - {lab.trust} https://{domain}/")
    return "nginx/" in headers


def die_between_change_and_reload(lab: Environment, droplet: Host) -> None:
    """Kill one converge after another, until a converge has written the file but not yet reloaded nginx."""
    for _ in range(ATTEMPTS):
        droplet.check_output(
            "sed -i 's/server_tokens off/server_tokens on/' /etc/nginx/nginx.conf && systemctl reload nginx"
        )
        running = converge.start()
        assert running.stdout
        converge.wait_for(running.stdout, "nginx | Reload nginx")
        running.kill()
        running.wait()
        written = "server_tokens off" in droplet.file("/etc/nginx/nginx.conf").content_string
        if written and version_shown(lab):
            return
    pytest.fail(f"no converge of {ATTEMPTS} could be killed between the change and its reload")


def test_a_pending_reload_runs_in_the_next_converge(lab: Environment, droplet: Host) -> None:
    die_between_change_and_reload(lab, droplet)
    results = converge.site()
    assert converge.changed(results) == {"nginx | Reload nginx if its configuration is valid"}
    assert not version_shown(lab)
