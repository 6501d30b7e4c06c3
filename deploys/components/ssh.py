"""Keys only, and root's login off. The console (root on tty) stays the way in when SSH is broken.

What lets an operator in, this, the keys and the firewall, is changed on trial: a change that no new login confirms
undoes itself.
"""

from __future__ import annotations

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import CI_LOGIN
from deploys.operations.trial import RESTART_SSHD, TrialFile, apply_on_trial
from deploys.operations.units import service, systemd_units
from stackctl.host.trial import POLL_S


@deploy("ssh")
def ssh(settings: Settings) -> None:
    systemd_units(name="Install the trial's revert units", units=units(settings), handler="trial-units")
    service(
        name="Enable the revert at boot",
        unit=settings.paths.units.trial_boot,
        enabled=True,
        running=None,  # it has nothing to do but then
    )
    apply_on_trial(
        name="Configure SSH: keys only, no root",
        trial="ssh",
        files=files(settings),
        handler=RESTART_SSHD,
    )
    service(name="Start sshd", unit="ssh.service", running=True, enabled=True)


def files(settings: Settings) -> dict[str, TrialFile]:
    """Whom sshd admits, and how: proven together, since neither lets anybody in alone."""
    operator = settings.values.operator
    return {
        # Whole, not line by line: a key that is not declared here opens nothing.
        keys(settings): TrialFile(settings.authorized_keys, validate="ssh-keygen -l -f %s", owner=operator),
        drop_in(settings): TrialFile(configuration(settings), validate="sshd -t -f %s"),
    }


def keys(settings: Settings) -> str:
    return str(settings.paths.keys(settings.values.operator))


def drop_in(settings: Settings) -> str:
    """sshd takes the first value that it reads, and droplets ship a 50-cloud-init.conf."""
    return f"/etc/ssh/sshd_config.d/00-{settings.values.app}.conf"


def configuration(settings: Settings) -> bytes:
    """sshd's part of the site."""
    return build.template(
        "ssh/sshd.conf.j2",
        operator=settings.values.operator,
        ci=CI_LOGIN if settings.ci_keys else None,
        never_barred=settings.values.never_barred,
    )


def units(settings: Settings) -> dict[str, bytes]:
    """systemd's units by name."""
    paths = settings.paths
    return {
        paths.units.trial_boot: build.template("ssh/trial.service.j2", paths=paths),
        paths.units.trial_service(""): build.template("ssh/trial@.service.j2"),
        paths.units.trial_timer(""): build.template("ssh/trial@.timer.j2", paths=paths, asks_s=POLL_S),
    }
