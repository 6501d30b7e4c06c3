"""The off-site storage of backups: restic, and stackctl's credentials for the storage."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import files

from deploys.config.settings import Settings
from deploys.operations.files import atomic_file, private_directory
from deploys.operations.packages import packages
from stackctl.backup.offsite.access import OffsiteConfig
from stackctl.core import records


@deploy("offsite")
def offsite(settings: Settings) -> None:
    """Install restic and the credentials.

    Another program (deploys/offsite/setup.py) creates the repository, so that no converge waits for the storage.
    """
    access = settings.paths.offsite
    if not settings.values.offsite_repository:
        files.file(name="Remove the off-site credentials", path=str(access), present=False)
        return
    packages(name="Install restic", packages=["restic"])
    private_directory(name="Create the directory for the off-site credentials", path=str(access.parent))
    atomic_file(
        name="Write the off-site credentials",
        dest=str(access),
        content=access_file(settings),
        mode="600",
        secret=True,
    )


def access_file(settings: Settings) -> bytes:
    """Return the location and the credentials of the off-site storage, in the format that stackctl reads."""
    values, secrets = settings.values, settings.credentials.offsite
    assert values.offsite_repository  # noqa: S101 - for mypy
    config = OffsiteConfig(
        repository=values.offsite_repository,
        append_only=values.offsite_append_only,
        read_only=settings.isolated,
        key_id=secrets["OFFSITE_KEY_ID"],
        key_secret=secrets["OFFSITE_KEY_SECRET"],
        password=secrets["OFFSITE_PASSWORD"],
    )
    return records.dumps(config, indent=2)
