"""Finds out whether a droplet is a copy: a droplet that was made from an image of another droplet."""

from __future__ import annotations

from dataclasses import replace

from pyinfra.api import Host
from pyinfra.api.exceptions import PyinfraError

from deploys.config.settings import Settings
from deploys.facts.machine import InstanceId
from deploys.facts.stackctl import RecordedInstanceId
from stackctl.core import instance


def with_instance_of(host: Host, settings: Settings) -> Settings:
    """Return the settings with the instance ID that the converge records.

    If the present ID is unknown, such as without cloud-init, keep the recorded ID.
    """
    present = host.get_fact(InstanceId, path=str(settings.paths.instance_id))
    recorded = host.get_fact(RecordedInstanceId, config=str(settings.paths.config))
    return replace(settings, instance_id=present or recorded, is_copy=instance.differ(recorded, present))


def check_copy(host: Host, settings: Settings) -> None:
    """Raise PyinfraError if the droplet is a copy, and nobody has said whether it replaces the original.

    `make isolate` and `make promote` set `isolated`, and so decide this.
    """
    if settings.is_copy and settings.values.isolated is None:
        raise PyinfraError(
            f"Cannot converge {host.name}: {instance.CAUSE}. Nothing was changed. Next: {instance.NEXT_STEP}"
        )
