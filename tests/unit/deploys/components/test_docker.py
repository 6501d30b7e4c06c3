"""On a copy of a droplet, Docker starts no container by itself."""

from deploys.components.docker import copy_drop_in
from tests.support.settings import settings_of


def test_docker_reads_the_option_that_stackctl_writes_on_a_copy() -> None:
    """systemd reads the file after ExecStartPre (systemd.exec(5)). If stackctl fails, Docker starts as usual."""
    settings = settings_of("prod")
    drop_in = copy_drop_in(settings).decode().splitlines()
    assert "ExecStartPre=-/usr/local/bin/stackctl before-docker" in drop_in
    assert f"EnvironmentFile=-{settings.paths.docker_options}" in drop_in
