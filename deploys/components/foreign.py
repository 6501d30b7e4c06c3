"""Foreign objects on the droplet.

The component reports foreign objects, removes the objects with given names, and undoes overrides.
"""

from __future__ import annotations

from pyinfra.api import deploy

from deploys.config.settings import Settings
from deploys.operations import foreign as operations
from deploys.operations.trial import RESTART_SSHD


@deploy("foreign")
def foreign(settings: Settings) -> None:
    """Report, undo and remove foreign objects.

    The component `foreign` comes after `stackctl`, which finds the objects, and before all components that a masked
    unit would break.
    """
    values = settings.values
    operations.report(values.foreign_removed)
    operations.undo_overrides(
        name="Undo settings that override the site", sysctls=f"/etc/sysctl.d/60-{values.app}.conf"
    )
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
