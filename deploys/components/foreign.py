"""Foreign objects on the droplet: reports all of them, removes the named ones, and undoes overrides of the site."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys.config.settings import Settings
from deploys.operations import foreign as operations
from deploys.operations.trial import RESTART_SSHD


@deploy("foreign")
def foreign(settings: Settings) -> None:
    """Report, undo and remove foreign objects.

    This component comes after `stackctl`, which finds the objects. It comes before the components that a masked unit
    would break.
    """
    values = settings.values
    operations.report(values.foreign_removed)
    operations.undo_overrides(name="Undo overrides of the site", sysctls=f"/etc/sysctl.d/60-{values.app}.conf")
    operations.remove(
        name="Remove the foreign objects that group_data names", names=values.foreign_removed, sshd=RESTART_SSHD
    )


@deploy("declared")
def declared(settings: Settings) -> None:
    operations.declaration(
        name="Write declared.json",
        dest=str(settings.paths.declared),
        accepted=settings.values.foreign_accepted,
    )
