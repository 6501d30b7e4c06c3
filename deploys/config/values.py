"""The schema of group_data: the type and the rules of each value, and the rules that concern several values."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pyinfra.api.exceptions import PyinfraError

from deploys.secrets.rules import TELEGRAM_RULES
from stackctl.app.app_env import PREVIOUS_SECRET, problem

KERNEL_RESERVED_SHARE = 0.12
"""The largest share of a droplet's memory that kernel and firmware may reserve."""
APP_PORT = 8080
CI_LOGIN = "ci"
STOP_GRACE_S = 30
MAX_CONNECTIONS = 100
"""Connections that PostgreSQL accepts."""
REDIS_BASE_MIB = 32
"""Memory that Redis needs in addition to its data."""
RESERVED_CONNECTIONS = 15
"""Connections, out of MAX_CONNECTIONS, that are reserved for the superuser, a backup and migrations."""
ENV_NAME = r"^[A-Z][A-Z0-9_]*$"
REPOSITORY = r"^s3:https://[a-z0-9.-]+(:[0-9]+)?/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*$"
"""restic's name of a repository on S3-compatible storage: s3:https://HOST/BUCKET/PREFIX."""
_BUILT_ENV = ("ENVIRONMENT", "PUBLIC_URL", "DATABASE_URL", "REDIS_URL")


class SettingsError(PyinfraError):
    """group_data has a fault. The message is one line with the name, the fault and the remedy."""


def _not_an_example(value: str) -> str:
    # RFC 2606 reserves these names for documentation, so such a name must come from the template.
    if re.search(r"(^|[./@])example(\.(com|net|org))?($|[/:])|\.(example|invalid)$", value):
        raise ValueError("is still a placeholder. Next: put in your own value")
    return value


def _explicit_tag(value: str) -> str:
    name, _, tag = _without_digest(value).rpartition("/")[2].partition(":")
    if not name or not re.search(r"^(pg)?[0-9].*-(trixie|bookworm)$", tag):
        raise ValueError(
            "needs a tag that names the version and the Debian release, such as postgres:17.11-trixie. "
            "A digest may follow the tag (@sha256:…)"
        )
    return value


def _without_digest(image: str) -> str:
    return re.sub(r"@sha256:[0-9a-f]{64}$", "", image)


def _names_postgresql(value: str) -> str:
    if not 9 <= _postgres_major(value) <= 99:
        raise ValueError("has no version of PostgreSQL in its tag, such as 17.11-trixie or 0.8.1-pg17-trixie")
    return value


def _postgres_major(image: str) -> int:
    """Return PostgreSQL's major version from an image's tag: the number after "pg", or else the first number."""
    tag = _without_digest(image).rpartition(":")[2]
    found = re.search(r"(?:^|-)pg([0-9]{1,3})(?![0-9])", tag) or re.match(r"([0-9]{1,3})(?![0-9])", tag)
    return int(found[1]) if found else 0


def _repository(value: str) -> str:
    """Accept a name in Docker's reference format, but without a tag or digest, because a release adds the tag."""
    part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    if not re.fullmatch(rf"{part}(?::[0-9]{{1,5}})?(?:/{part})+|{part}", value):
        raise ValueError(
            f"{value!r} is not a repository. Next: write the repository in lower case, without https://, "
            "tag or digest, such as ghcr.io/your-team/your-bot (each release names its tag)"
        )
    return value


def _domain(value: str) -> str:
    if not value.isascii():
        try:
            written = f": {value.encode('idna').decode()}"
        except UnicodeError:
            written = ""
        raise ValueError(f"has letters other than a to z. Next: write the name in punycode{written}")
    label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    # The last part of a domain must have a letter, because otherwise the text could be an IP address. A label has at
    # most 63 octets, and a name has at most 253 octets (RFC 1035, 2.3.4).
    if len(value) > 253 or not re.fullmatch(rf"({label}\.)+(?=[a-z0-9-]*[a-z]){label}", value):
        raise ValueError(
            "is malformed. Next: write a name such as bot.your-domain.dev, in lower case, without https://"
        )
    return value


def _not_reserved_role(value: str) -> str:
    if value == "postgres" or value.startswith("pg_"):
        raise ValueError(f"{value} is reserved for PostgreSQL. Next: choose another name")
    return value


def _not_taken(value: str) -> str:
    if value in {"root", CI_LOGIN}:
        raise ValueError(
            f"{value} can't be the operator's account: root cannot log in, and ci is CI's account. "
            "Next: choose another name"
        )
    return value


def _not_everyone(value: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if value.prefixlen == 0:
        raise ValueError(f"{value} means everyone. Next: name networks, or leave the list empty")
    return value


Mib = Annotated[int, Field(ge=64)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Cpus = Annotated[float, Field(gt=0, le=64)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
Image = Annotated[str, AfterValidator(_explicit_tag)]
PostgresImage = Annotated[Image, AfterValidator(_names_postgresql)]
UrlPath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9/_.-]*$")]
Network = Annotated[IPv4Network, BeforeValidator(IPv4Network)]
Cidr = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network), AfterValidator(_not_everyone)]
"""A network or an address, IPv4 or IPv6."""
Address = Annotated[IPv4Address, BeforeValidator(IPv4Address)]
Interface = Annotated[IPv4Interface, BeforeValidator(IPv4Interface)]
NotPlaceholder = Annotated[str, Field(min_length=1), AfterValidator(_not_an_example)]
"""A value that only the project's owner knows. group_data comes with a placeholder for the value."""


class Values(BaseModel):
    """The values of group_data, with one field for each value.

    Memory is in MiB, CPUs are in cores, and networks are in CIDR notation.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    app: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,30}$")]
    isolated: bool | None
    environment: Literal["lab", "staging", "production"]
    env_file: str
    secrets_ledger: str
    backups_ledger: str
    # useradd accepts at most 32 characters.
    operator: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_not_taken)]
    authorized_keys: str
    timezone: Annotated[str, Field(pattern=r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$")]
    journal_max_mib: Mib
    swap_mib: Annotated[int, Field(ge=0)]
    reboot_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] | None
    extra_ca_certificates: list[str]

    sshd_allowed_from: list[Cidr]
    vpc_network: Network
    docker_bridge: Interface
    docker_pool: Network
    app_subnet: Network
    app_ip_range: Network
    colours: dict[Literal["blue", "green"], Address]
    data_subnet: Network
    data_ip_range: Network
    data_addresses: dict[Literal["postgres", "redis"], Address]

    data_root: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")]
    # A name in PostgreSQL has at most 63 bytes, and a restore adds a suffix.
    database: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,52}$")]
    # A name in PostgreSQL has at most 63 bytes, and a login role adds a suffix.
    database_user: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,53}$"), AfterValidator(_not_reserved_role)]
    postgres_image: PostgresImage
    postgres_memory_mib: Mib
    postgres_cpus: Cpus
    redis_image: Image
    redis_memory_mib: Mib
    redis_cpus: Cpus
    redis_append_only: bool
    health_interval_s: Annotated[int, Field(ge=2, le=300)]
    backup_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    backup_memory_mib: Mib

    app_repository: Annotated[NotPlaceholder, AfterValidator(_repository)]
    app_memory_mib: Mib
    app_cpus: Cpus
    app_command: list[Annotated[str, Field(pattern=r"^[^$\"\\]+$")]]
    app_read_only: bool
    app_migrates: bool
    app_worker: bool
    worker_memory_mib: Mib
    worker_cpus: Cpus
    worker_grace_s: Seconds
    app_connections: Annotated[int, Field(ge=1)]
    app_environment: dict[EnvName, str]
    app_secrets: list[EnvName]
    registry_user: NotPlaceholder

    client_rate: Annotated[int, Field(ge=1, le=10_000)]
    client_burst: Annotated[int, Field(ge=1, le=10_000)]
    public_paths: Annotated[list[UrlPath], Field(min_length=1)]
    ready_path: UrlPath
    version_path: UrlPath | None
    webhook_path: UrlPath | None
    webhook_allowed_from: list[Cidr]
    trusted_addresses: list[Cidr]
    healthy_timeout_s: Seconds
    migrate_timeout_s: Seconds
    watch_s: Seconds

    system_memory_mib: Mib
    droplet_memory_mib: Mib

    domain: Annotated[NotPlaceholder, AfterValidator(_domain)]
    offsite_repository: Annotated[NotPlaceholder, Field(pattern=REPOSITORY)] | None
    offsite_append_only: bool

    acme_server: Annotated[str, Field(pattern=r"^https://")]
    acme_email: Annotated[NotPlaceholder, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    ci_authorized_keys: str | None
    foreign_accepted: dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]
    foreign_removed: Annotated[
        list[str], BeforeValidator(lambda given: given.split() if isinstance(given, str) else given)
    ]

    @property
    def secrets_of_the_app(self) -> list[str]:
        """The names of the app's secrets in the env file. In the app environment, the secrets have the same names."""
        return [*(TELEGRAM_RULES if self.webhook_path else []), *self.app_secrets]

    @property
    def exempt_addresses(self) -> list[IPv4Network | IPv6Network]:
        """Addresses that neither fail2ban nor sshd blocks. The addresses that may reach SSH are included."""
        return list(dict.fromkeys([*self.trusted_addresses, *self.sshd_allowed_from]))

    @property
    def docker_networks(self) -> dict[str, IPv4Network]:
        """Docker's networks, by the name of the value in group_data."""
        return {
            "docker_bridge": self.docker_bridge.network,
            "docker_pool": self.docker_pool,
            "app_subnet": self.app_subnet,
            "data_subnet": self.data_subnet,
        }

    @property
    def cpus(self) -> dict[str, float]:
        """The CPU limit of each container, by the name of the value in group_data."""
        return {
            "postgres_cpus": self.postgres_cpus,
            "redis_cpus": self.redis_cpus,
            "app_cpus": self.app_cpus,
            **({"worker_cpus": self.worker_cpus} if self.app_worker else {}),
        }

    @property
    def postgres_major(self) -> int:
        return _postgres_major(self.postgres_image)

    @model_validator(mode="after")
    def _fits_the_droplet(self) -> Values:
        """Refuse memory limits whose sum exceeds the droplet's memory.

        The app counts twice, because both colours run during a release.
        """
        parts = {
            "system_memory_mib": self.system_memory_mib,
            "postgres_memory_mib": self.postgres_memory_mib,
            "redis_memory_mib": self.redis_memory_mib,
            "backup_memory_mib": self.backup_memory_mib,
            "2 × app_memory_mib": 2 * self.app_memory_mib,
            **({"worker_memory_mib": self.worker_memory_mib} if self.app_worker else {}),
        }
        usable = int(self.droplet_memory_mib * (1 - KERNEL_RESERVED_SHARE))
        if (needed := sum(parts.values())) > usable:
            sums = " + ".join(f"{name} {mib}" for name, mib in parts.items())
            raise ValueError(
                f"droplet_memory_mib {self.droplet_memory_mib} is too small for {sums} = {needed}, because "
                f"only {usable} MiB can be used. Next: choose a larger droplet, or lower a limit"
            )
        return self

    @model_validator(mode="after")
    def _backups_fit(self) -> Values:
        """Refuse a limit that is too small to verify the backup of a full Redis.

        The data may use half of Redis's memory.
        """
        if (needed := self.redis_memory_mib // 2 + REDIS_BASE_MIB) > self.backup_memory_mib:
            raise ValueError(
                f"backup_memory_mib {self.backup_memory_mib} is too small to verify a backup of a full Redis. "
                f"Next: raise it to {needed}, or lower redis_memory_mib"
            )
        return self

    @model_validator(mode="after")
    def _fits_postgresql(self) -> Values:
        if (needed := 2 * self.app_connections + RESERVED_CONNECTIONS) > MAX_CONNECTIONS:
            raise ValueError(
                f"app_connections {self.app_connections} for each colour and {RESERVED_CONNECTIONS} connections for "
                f"upkeep make {needed}, but PostgreSQL accepts {MAX_CONNECTIONS}. "
                "Next: lower app_connections, and the sizes of the app's connection pools"
            )
        return self

    @model_validator(mode="after")
    def _nginx_accepts_the_paths(self) -> Values:
        """Refuse a path that is listed twice, because nginx would refuse such a configuration.

        Also refuse paths below /.nginx, which are for nginx's own pages.
        """
        for path in self.public_paths:
            if self.public_paths.count(path) > 1:
                raise ValueError(f"public_paths names {path} twice. Next: remove one of the two")
            if path.startswith("/.nginx"):
                raise ValueError(f"public_paths: {path} is for nginx's own pages. Next: choose another path")
        return self

    @model_validator(mode="after")
    def _webhook_is_public(self) -> Values:
        webhook = self.webhook_path
        if webhook and not any(
            webhook == path or (path.endswith("/") and webhook.startswith(path)) for path in self.public_paths
        ):
            raise ValueError(
                f"webhook_path {webhook} is not passed to the app. Next: add it to public_paths, or set webhook_path "
                "to None"
            )
        return self

    @model_validator(mode="after")
    def _networks_are_apart(self) -> Values:
        networks = {"vpc_network": self.vpc_network, **self.docker_networks}
        names = list(networks)
        for position, one in enumerate(names):
            for other in names[position + 1 :]:
                if networks[one].overlaps(networks[other]):
                    raise ValueError(f"{one} overlaps {other}. Next: choose another range for {other}")
        return self

    @model_validator(mode="after")
    def _fixed_addresses_are_free(self) -> Values:
        """Refuse a fixed address in a range from which Docker chooses addresses."""
        app = ("app", self.app_subnet, self.app_ip_range, "colours", self.colours, {"blue", "green"})
        data = (
            "data",
            self.data_subnet,
            self.data_ip_range,
            "data_addresses",
            self.data_addresses,
            {"postgres", "redis"},
        )
        for network, subnet, ip_range, name, addresses, holders in (app, data):
            if not ip_range.subnet_of(subnet):
                raise ValueError(
                    f"{network}_ip_range lies outside of {network}_subnet. Next: choose a part of the subnet"
                )
            if set(addresses) != holders or len(set(addresses.values())) != len(holders):
                raise ValueError(f"{name} needs {' and '.join(sorted(holders))}, each with its own address")
            for holder, address in addresses.items():
                if address not in subnet or address in ip_range:
                    raise ValueError(
                        f"{name}: {holder} has to lie in {network}_subnet and outside of {network}_ip_range"
                    )
        return self

    @model_validator(mode="after")
    def _environment_is_unambiguous(self) -> Values:
        telegram = [*TELEGRAM_RULES, PREVIOUS_SECRET] if self.webhook_path else []
        names = [*self.app_environment, *self.app_secrets, *_BUILT_ENV, *telegram]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"app_environment, app_secrets: {name} is set twice, or set by the site itself. Next: remove it"
                )
        if fault := problem({**dict.fromkeys(names, ""), **self.app_environment}):
            raise ValueError(f"app_environment, app_secrets: {fault}")
        return self
