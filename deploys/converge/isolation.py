"""Decides whether a droplet is isolated if `isolated` is not set in group_data."""

from __future__ import annotations

from dataclasses import replace

from pyinfra.api import Host

from deploys.config.settings import Settings
from deploys.facts.stackctl import Isolated


def with_isolation_of(host: Host, settings: Settings) -> Settings:
    """Return the settings with `isolated` from group_data.

    If group_data does not have `isolated`, take the droplet's present state, so that an ordinary converge never
    promotes an isolated droplet.
    """
    declared = settings.values.isolated
    isolated = host.get_fact(Isolated, config=str(settings.paths.config)) if declared is None else declared
    return replace(settings, isolated=isolated)
