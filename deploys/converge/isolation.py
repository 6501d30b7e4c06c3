"""Whether a droplet is isolated, where no value says so."""

from __future__ import annotations

from dataclasses import replace

from pyinfra.api import Host

from deploys.config.settings import Settings
from deploys.facts.stackctl import Isolated


def as_isolated_as_it_is(host: Host, settings: Settings) -> Settings:
    """A habitual converge doesn't let a restored copy go live: where nothing is told, a droplet stays what it is."""
    told = settings.values.isolated
    isolated = host.get_fact(Isolated, config=str(settings.paths.config)) if told is None else told
    return replace(settings, isolated=isolated)
