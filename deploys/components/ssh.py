"""Keys only, and root's login off. The console (root on tty) stays the way in when SSH is broken."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import systemd

from deploys import artifacts
from deploys.operations.files import place
from deploys.operations.owed import settle
from deploys.settings import Settings


@deploy("ssh")
def ssh(settings: Settings) -> None:
    debt = settings.owed("ssh")
    # sshd takes the first value that it reads, and droplets ship a 50-cloud-init.conf.
    config = place(
        name="Admit keys only, and never root",
        dest=f"/etc/ssh/sshd_config.d/00-{settings.values.app}.conf",
        content=artifacts.file("ssh/sshd.conf"),
        owes=debt,
    )
    settle(
        name="Reload sshd, when its configuration is sound",
        debt=debt,
        commands=["sshd -t", "systemctl reload ssh.service"],
        after=[config],
    )
    systemd.service(name="Run sshd", service="ssh.service", running=True, enabled=True)
