"""SSH: keys only, no login as root. If SSH is broken, root can log in at the provider's console.

Changes to sshd, its keys and the firewall are made on trial: the droplet reverts a change that no new login confirms.
`netplan try` and the confirmed commits of RFC 6241 work in the same way.
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
    systemd_units(name="Install the systemd units that revert a change", units=units(settings), handler="trial-units")
    service(
        name="Enable the unit that reverts unconfirmed changes at boot",
        unit=settings.paths.units.trial_boot,
        enabled=True,
        running=None,  # enable the unit without starting it
    )
    apply_on_trial(
        name="Configure SSH: keys only, no root",
        trial="ssh",
        files=files(settings),
        handler=RESTART_SSHD,
    )
    service(name="Start sshd", unit="ssh.service", running=True, enabled=True)


def files(settings: Settings) -> dict[str, TrialFile]:
    """Return the operator's keys and sshd's configuration.

    The keys and the configuration are on trial together, because a login needs both.
    """
    operator = settings.values.operator
    return {
        # Replace the whole file, so that undeclared keys are removed.
        keys(settings): TrialFile(settings.authorized_keys, validate="ssh-keygen -l -f %s", owner=operator),
        drop_in(settings): TrialFile(configuration(settings), validate="sshd -t -f %s"),
    }


def keys(settings: Settings) -> str:
    return str(settings.paths.keys(settings.values.operator))


def drop_in(settings: Settings) -> str:
    """Return the path of sshd's drop-in.

    sshd uses the first value that sshd reads for a setting, so the drop-in must come before 50-cloud-init.conf.
    """
    return f"/etc/ssh/sshd_config.d/00-{settings.values.app}.conf"


def configuration(settings: Settings) -> bytes:
    """Render sshd's drop-in."""
    return build.template(
        "ssh/sshd.conf.j2",
        operator=settings.values.operator,
        ci=CI_LOGIN if settings.ci_keys else None,
        exempt_addresses=settings.values.exempt_addresses,
    )


def units(settings: Settings) -> dict[str, bytes]:
    """Return the content of each systemd unit, by the unit's name."""
    paths = settings.paths
    return {
        paths.units.trial_boot: build.template("ssh/trial.service.j2", paths=paths),
        paths.units.trial_service(""): build.template("ssh/trial@.service.j2"),
        paths.units.trial_timer(""): build.template("ssh/trial@.timer.j2", paths=paths, asks_s=POLL_S),
    }
