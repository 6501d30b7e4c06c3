"""Facts about the droplet as a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from pyinfra.api import FactBase, QuoteString, StringCommand

from stackctl.core import instance


class CloudInitStatus(FactBase[str | None]):
    """The status of cloud-init: running, done, error or disabled. None if cloud-init is not installed."""

    def requires_command(self) -> str:
        return "cloud-init"

    def command(self) -> str:
        # The program cloud-init takes half a second to start, and result.json is the last file that cloud-init writes.
        return "test -e /run/cloud-init/result.json && echo 'status: done' || cloud-init status || true"

    def process(self, output: Iterable[str]) -> str | None:
        found = re.search(r"^status: (\w+)", "\n".join(output), re.MULTILINE)
        # The status "not started" means that cloud-init is about to run.
        return {"not": "running"}.get(found[1], found[1]) if found else None


class InstanceId(FactBase[str | None]):
    """The instance ID that cloud-init wrote at this boot. None if the ID is unknown."""

    def command(self, path: str) -> StringCommand:
        return StringCommand("head -c", str(2 * instance.LONGEST), QuoteString(path), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> str | None:
        return instance.parse("\n".join(output))


class HasAddress(FactBase[bool]):
    """Whether DNS has an address for the name. Also True if the resolver does not answer."""

    def command(self, domain: str) -> StringCommand:
        # getent(1) exits with 2 if the name has no address. Any other exit code of getent says nothing about the name.
        return StringCommand("getent ahosts", QuoteString(domain), ">/dev/null; test $? -ne 2 && echo yes || true")

    def process(self, output: Iterable[str]) -> bool:
        return bool(list(output))


class HalfInstalled(FactBase[bool]):
    """Whether an interrupted dpkg left packages that are unpacked but not configured."""

    @staticmethod
    def default() -> bool:
        return False

    def command(self) -> str:
        return "dpkg --audit"

    def process(self, output: Iterable[str]) -> bool:
        return any(output)


class DebianRelease(FactBase[str]):
    """The ID and the version from os-release, such as `debian 13`."""

    def command(self) -> str:
        return ". /etc/os-release && echo $ID $VERSION_ID"

    def process(self, output: Iterable[str]) -> str:
        return "".join(output).strip()


class MemoryMib(FactBase[int]):
    """The memory available to the kernel, in MiB. The value is somewhat less than the memory in the provider's plan."""

    def command(self) -> str:
        return "grep MemTotal /proc/meminfo"

    def process(self, output: Iterable[str]) -> int:
        return int("".join(output).split()[1]) // 1024


class Cpus(FactBase[int]):
    """Number of CPUs. Docker refuses a container's CPU limit above the number of CPUs."""

    def command(self) -> str:
        return "nproc --all"

    def process(self, output: Iterable[str]) -> int:
        return int("".join(output))


class HasTimeZone(FactBase[bool]):
    """Whether tzdata has this time zone. Debian 13 moved the old names, such as US/Eastern, to tzdata-legacy."""

    def command(self, timezone: str) -> StringCommand:
        return StringCommand("test -f", QuoteString(f"/usr/share/zoneinfo/{timezone}"), "&& echo yes || echo no")

    def process(self, output: Iterable[str]) -> bool:
        return "".join(output).strip() == "yes"


class Networks(FactBase[dict[str, list[str]]]):
    """The droplet's IPv4 networks by interface, in CIDR notation ("10.116.0.2/20")."""

    def command(self) -> str:
        return "ip -json -4 address"

    def process(self, output: Iterable[str]) -> dict[str, list[str]]:
        return {
            link["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]
            for link in json.loads("".join(output))
        }


class Container(FactBase[bool]):
    """Whether the machine is a container.

    A container shares the kernel, can't swap, and can't set every kernel parameter.
    """

    def command(self) -> str:
        return "systemd-detect-virt --container || true"

    def process(self, output: Iterable[str]) -> bool:
        return "".join(output).strip() not in ("", "none")


class SwapfileMib(FactBase[int]):
    """The size of the swap file in MiB, or 0 if there is no swap file."""

    def command(self, path: str) -> StringCommand:
        return StringCommand("stat -c %s", QuoteString(path), "2>/dev/null || echo 0")

    def process(self, output: Iterable[str]) -> int:
        return int("".join(output)) // 2**20


class Swaps(FactBase[frozenset[str]]):
    """Files and devices in use as swap."""

    default = frozenset

    def command(self) -> str:
        return "swapon --show=NAME --noheadings"

    def process(self, output: Iterable[str]) -> frozenset[str]:
        return frozenset(line.strip() for line in output)


class Modes(FactBase[dict[str, str]]):
    """The mode of each file or directory that exists, as an octal number, by path."""

    default = dict

    def command(self, paths: list[str]) -> StringCommand:
        return StringCommand("stat -c '%a %n'", *map(QuoteString, paths), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> dict[str, str]:
        return {path: mode for mode, path in (line.split(" ", 1) for line in output)}
