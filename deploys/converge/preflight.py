"""What a droplet must be, looked at before the first change."""

from __future__ import annotations

from ipaddress import IPv4Interface

from pyinfra.api import Host
from pyinfra.api.exceptions import PyinfraError

from deploys.config.settings import Settings
from deploys.config.values import KEPT_BY_KERNEL, Values
from deploys.facts.data import UNREADABLE, PostgresMajor
from deploys.facts.machine import Cpus, DebianRelease, HasAddress, MemoryMib, Networks, TimeZoneThere
from deploys.facts.stackctl import TelegramsHost

_OWN_INTERFACES = ("lo", "docker", "br-", "veth")


def check_droplet(host: Host, settings: Settings) -> None:
    """Raises PyinfraError, one line, when the site could not live there."""
    values = settings.values
    release = host.get_fact(DebianRelease)
    if release != "debian 13":
        raise PyinfraError(f"{host.name} runs {release}: this is for Debian 13; rebuild the droplet from that image")
    memory = host.get_fact(MemoryMib)
    if memory < values.droplet_memory_mib * (1 - KEPT_BY_KERNEL):
        raise PyinfraError(
            f"{host.name} has {memory} MiB of memory, droplet_memory_mib says {values.droplet_memory_mib}: "
            "correct it in group_data, or resize the droplet"
        )
    cpus, wanted = host.get_fact(Cpus), values.cpus
    if wanted[most := max(wanted, key=lambda name: wanted[name])] > cpus:
        raise PyinfraError(
            f"{host.name} has {cpus} CPUs, {most} says {wanted[most]}: lower it in group_data, or resize the droplet"
        )
    if not host.get_fact(TimeZoneThere, timezone=values.timezone):
        raise PyinfraError(
            f"{host.name} has no time zone {values.timezone}: name one that `timedatectl list-timezones` lists there, "
            "such as America/New_York, Europe/Kyiv or Etc/UTC"
        )
    data = f"{values.data_root}/postgres"
    made_by = host.get_fact(PostgresMajor, path=data)
    if made_by == UNREADABLE:
        raise PyinfraError(
            f"{host.name}: {data}/PG_VERSION names no version of PostgreSQL, and PostgreSQL writes nothing else there. "
            f"Nothing was changed. Next: sudo ls -l {data}/PG_VERSION"
        )
    if made_by not in (None, values.postgres_major):
        raise PyinfraError(
            f"{host.name}: {data} was made by PostgreSQL {made_by}, which postgres_image {values.postgres_image} can't "
            f"read: name an image of {made_by} again; docs/how-to/runbook.md has the way to move on"
        )
    if overlap := overlapping(values, host.get_fact(Networks)):
        raise PyinfraError(f"{host.name}: {overlap}: choose another range in group_data")


def check_name(host: Host, settings: Settings) -> None:
    """Raise PyinfraError where Telegram would be told a name that nobody can look up: the release would fail by it."""
    domain = settings.values.domain
    if settings.isolated or not settings.values.webhook_path:
        return
    told = host.get_fact(TelegramsHost, state=str(settings.paths.state))
    if told not in (None, domain) and not host.get_fact(HasAddress, domain=domain):
        raise PyinfraError(
            f"{host.name}: DNS has no address for {domain}, and Telegram would be told to send updates there instead "
            f"of to {told}. Nothing was changed. Next: give {domain} an A record that leads to this droplet."
        )


def overlapping(values: Values, networks: dict[str, list[str]]) -> str | None:
    """The first of Docker's ranges that the droplet already reaches something else by."""
    for interface, addresses in networks.items():
        if interface.startswith(_OWN_INTERFACES):
            continue
        for address in addresses:
            for name, network in values.docker_networks.items():
                if network.overlaps(IPv4Interface(address).network):
                    return f"{name} {network} overlaps {address} of {interface}"
    return None
