"""Checks a droplet before its first change."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface

from pyinfra.api import Host
from pyinfra.api.exceptions import PyinfraError

from deploys.config.settings import Settings
from deploys.config.values import KERNEL_RESERVED_SHARE, Values
from deploys.facts.data import UNREADABLE, PostgresMajor
from deploys.facts.machine import Cpus, DebianRelease, HasAddress, HasTimeZone, MemoryMib, Networks
from deploys.facts.stackctl import WebhookHost

_OWN_INTERFACES = ("lo", "docker", "br-", "veth")


def check_droplet(host: Host, settings: Settings) -> None:
    """Raise PyinfraError with one line if the site cannot run on this droplet."""
    for problem_of in CHECKS:
        if problem := problem_of(host, settings.values):
            raise PyinfraError(f"{host.name} {problem}")


def _debian(host: Host, _: Values) -> str | None:
    if (release := host.get_fact(DebianRelease)) == "debian 13":
        return None
    return f"runs {release}, but only Debian 13 is supported. Nothing was changed. Next: rebuild the droplet"


def _memory(host: Host, values: Values) -> str | None:
    memory, declared = host.get_fact(MemoryMib), values.droplet_memory_mib
    if memory >= declared * (1 - KERNEL_RESERVED_SHARE):
        return None
    return (
        f"has {memory} MiB of memory, but droplet_memory_mib is {declared}. Nothing was changed. "
        "Next: correct droplet_memory_mib in group_data, or resize the droplet"
    )


def _cpus(host: Host, values: Values) -> str | None:
    cpus = host.get_fact(Cpus)
    name, most = max(values.cpus.items(), key=lambda item: item[1])
    if most <= cpus:
        return None
    return (
        f"has {cpus} CPUs, but {name} is {most}. Nothing was changed. "
        f"Next: lower {name} in group_data, or resize the droplet"
    )


def _timezone(host: Host, values: Values) -> str | None:
    if host.get_fact(HasTimeZone, timezone=values.timezone):
        return None
    return (
        f"has no time zone {values.timezone}. Nothing was changed. Next: set timezone in group_data to a name that "
        "`timedatectl list-timezones` lists there, such as America/New_York, Europe/Kyiv or Etc/UTC"
    )


def _postgres_data(host: Host, values: Values) -> str | None:
    data = f"{values.data_root}/postgres"
    made_by = host.get_fact(PostgresMajor, path=data)
    if made_by == UNREADABLE:
        return (
            f"has no PostgreSQL version in {data}/PG_VERSION, although PostgreSQL always writes its version there. "
            f"Nothing was changed. Next: sudo ls -l {data}/PG_VERSION"
        )
    if made_by in (None, values.postgres_major):
        return None
    return (
        f"cannot start PostgreSQL: {data} was made by PostgreSQL {made_by}, and postgres_image "
        f"{values.postgres_image} can't read it. Nothing was changed. Next: name an image of {made_by} in group_data "
        "again, then see docs/how-to/upgrade-postgres.md"
    )


def _networks(host: Host, values: Values) -> str | None:
    overlap = overlapping(values, host.get_fact(Networks))
    return f"{overlap}. Nothing was changed. Next: choose another range in group_data" if overlap else None


CHECKS: tuple[Callable[[Host, Values], str | None], ...] = (
    _debian,
    _memory,
    _cpus,
    _timezone,
    _postgres_data,
    _networks,
)
"""The checks, in order. Each check returns the droplet's problem with the next step, or None."""


def check_name(host: Host, settings: Settings) -> None:
    """Raise PyinfraError if the webhook would move to a host name without an address.

    Without an address, a release would fail. The current host name of the webhook is not checked.
    """
    domain = settings.values.domain
    if settings.isolated or not settings.values.webhook_path:
        return
    current = host.get_fact(WebhookHost, state=str(settings.paths.state))
    if current not in (None, domain) and not host.get_fact(HasAddress, domain=domain):
        raise PyinfraError(
            f"{host.name} cannot move Telegram's webhook from {current} to {domain}: DNS has no address for {domain}. "
            f"Nothing was changed. Next: give {domain} an A record that points to this droplet"
        )


def overlapping(values: Values, networks: dict[str, list[str]]) -> str | None:
    """Return a description of the first Docker network that overlaps a network of the droplet, or None."""
    reached = [
        (interface, address)
        for interface, addresses in networks.items()
        if not interface.startswith(_OWN_INTERFACES)
        for address in addresses
    ]
    for interface, address in reached:
        for name, network in values.docker_networks.items():
            if network.overlaps(IPv4Interface(address).network):
                return f"reaches {address} through {interface}, and {name} {network} overlaps {address}"
    return None
