"""What differs between places, typed and checked whole before the first change.

`group_data` gives plain values; `Settings` is what the components get. A name that is missing, unknown, of the wrong
type or still a placeholder stops the run with one line that names it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import scrypt
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh import ConnectorData

from deploys import ledger
from deploys.credentials import TELEGRAM_RULES, Credentials, credentials_from, read_env_file
from stackctl.app.app_env import PREVIOUS_SECRET, problem
from stackctl.core.paths import Paths

KEPT_BY_KERNEL = 0.12
"""The share of a droplet's memory that its kernel and firmware keep, at most."""
APP_PORT = 8080
STOP_GRACE_S = 30
MAX_CONNECTIONS = 100
"""What PostgreSQL admits."""
SERVER_MIB = 32
"""What Redis itself needs besides its data."""
RESERVED_CONNECTIONS = 15
"""Of these, what is left to the superuser, a backup and migrations."""
ENV_NAME = r"^[A-Z][A-Z0-9_]*$"
REPOSITORY = r"^s3:https://[a-z0-9.-]+(:[0-9]+)?/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*$"
"""restic's way to name one on S3-compatible storage, s3:https://HOST/BUCKET/PREFIX."""
_BUILT_ENV = ("ENVIRONMENT", "PUBLIC_URL", "DATABASE_URL", "REDIS_URL")


class SettingsError(PyinfraError):
    """group_data is not fit for use. One line: the name, what is wrong with it, the remedy."""


def _not_an_example(value: str) -> str:
    # RFC 2606 reserves these names for documentation, so they can only be what the template had.
    if re.search(r"(^|[./@])example(\.(com|net|org))?($|[/:])|\.(example|invalid)$", value):
        raise ValueError("is still a placeholder: put your own here")
    return value


def _explicit_tag(value: str) -> str:
    name, _, tag = _without_digest(value).rpartition("/")[2].partition(":")
    if not name or not re.search(r"^(pg)?[0-9].*-(trixie|bookworm)$", tag):
        raise ValueError(
            "needs a tag that names its version and base, such as postgres:17.11-trixie, "
            "and may have a digest behind it (@sha256:…)"
        )
    return value


def _without_digest(image: str) -> str:
    return re.sub(r"@sha256:[0-9a-f]{64}$", "", image)


def _names_postgresql(value: str) -> str:
    if not 9 <= _postgres_major(value) <= 99:
        raise ValueError("has no version of PostgreSQL in its tag, such as 17.11-trixie or 0.8.1-pg17-trixie")
    return value


def _postgres_major(image: str) -> int:
    """The number behind "pg" in the tag, as extensions' images have it behind their own version; else the first one."""
    tag = _without_digest(image).rpartition(":")[2]
    found = re.search(r"(?:^|-)pg([0-9]{1,3})(?![0-9])", tag) or re.match(r"([0-9]{1,3})(?![0-9])", tag)
    return int(found[1]) if found else 0


def _repository(value: str) -> str:
    """A name by Docker's reference format, without what a release adds to it."""
    part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    if not re.fullmatch(rf"{part}(?::[0-9]{{1,5}})?(?:/{part})+|{part}", value):
        raise ValueError(
            f"{value!r} is no repository: write it in lower case, without https://, tag or digest, "
            "such as ghcr.io/your-team/your-bot; a release names the tag"
        )
    return value


def _domain(value: str) -> str:
    if not value.isascii():
        try:
            written = f": {value.encode('idna').decode()}"
        except UnicodeError:
            written = ""
        raise ValueError(f"has letters beyond a to z: write it in punycode{written}")
    label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    # The last one has a letter, or it would be an address. RFC 1035, 2.3.4: a label has 63 octets at most, a name 253.
    if len(value) > 253 or not re.fullmatch(rf"({label}\.)+(?=[a-z0-9-]*[a-z]){label}", value):
        raise ValueError("is malformed: a name such as bot.your-domain.dev, in lower case, without https://")
    return value


def _not_postgresql_s_own(value: str) -> str:
    if value == "postgres" or value.startswith("pg_"):
        raise ValueError(f"{value} is a role of PostgreSQL's own: choose another name")
    return value


def _not_taken(value: str) -> str:
    if value in {"root", "ci"}:
        raise ValueError(
            f"{value} can't be the operator's account: root's login is off, and ci is CI's. Name another one"
        )
    return value


def _not_everybody(value: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if value.prefixlen == 0:
        raise ValueError(f"{value} is everybody: name networks, or leave the list empty")
    return value


Mib = Annotated[int, Field(ge=64)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Cpus = Annotated[float, Field(gt=0, le=64)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
Image = Annotated[str, AfterValidator(_explicit_tag)]
PostgresImage = Annotated[Image, AfterValidator(_names_postgresql)]
UrlPath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9/_.-]*$")]
Network = Annotated[IPv4Network, BeforeValidator(IPv4Network)]
Source = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network), AfterValidator(_not_everybody)]
"""Addresses of either family that something is said of."""
Address = Annotated[IPv4Address, BeforeValidator(IPv4Address)]
Interface = Annotated[IPv4Interface, BeforeValidator(IPv4Interface)]
Own = Annotated[str, Field(min_length=1), AfterValidator(_not_an_example)]
"""A value that only the owner can know."""


class Values(BaseModel):
    """group_data's names, one field each. Memory in MiB, CPUs in cores, networks in CIDR notation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    app: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,30}$")]
    isolated: bool | None
    environment: Literal["lab", "staging", "production"]
    env_file: str
    secrets_ledger: str
    backups_ledger: str
    # useradd takes 32 characters.
    operator: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_not_taken)]
    authorized_keys: str
    timezone: Annotated[str, Field(pattern=r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$")]
    journal_max_mib: Mib
    swap_mib: Annotated[int, Field(ge=0)]
    reboot_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] | None
    extra_ca_certificates: list[str]

    sshd_allowed_from: list[Source]
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
    # Room for the suffix of a restore's, in PostgreSQL's 63 bytes.
    database: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,52}$")]
    # Room for the login roles' suffix in PostgreSQL's 63 bytes.
    database_user: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,53}$"), AfterValidator(_not_postgresql_s_own)]
    postgres_image: PostgresImage
    postgres_memory_mib: Mib
    postgres_cpus: Cpus
    redis_image: Image
    redis_memory_mib: Mib
    redis_cpus: Cpus
    redis_append_only: bool
    backup_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    backup_memory_mib: Mib

    app_repository: Annotated[Own, AfterValidator(_repository)]
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
    registry_user: Own

    client_rate: Annotated[int, Field(ge=1, le=10_000)]
    client_burst: Annotated[int, Field(ge=1, le=10_000)]
    public_paths: Annotated[list[UrlPath], Field(min_length=1)]
    ready_path: UrlPath
    version_path: UrlPath | None
    webhook_path: UrlPath | None
    webhook_allowed_from: list[Source]
    never_banned: list[Source]
    healthy_timeout_s: Seconds
    migrate_timeout_s: Seconds
    watch_s: Seconds

    system_memory_mib: Mib
    droplet_memory_mib: Mib

    domain: Annotated[Own, AfterValidator(_domain)]
    offsite_repository: Annotated[Own, Field(pattern=REPOSITORY)] | None
    offsite_append_only: bool

    acme_server: Annotated[str, Field(pattern=r"^https://")]
    acme_email: Annotated[Own, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    ci_authorized_keys: str | None
    foreign_accepted: dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]
    foreign_removed: Annotated[
        list[str], BeforeValidator(lambda given: given.split() if isinstance(given, str) else given)
    ]

    @property
    def secrets_of_the_app(self) -> list[str]:
        """What the env file has for the app, by its name in the app's environment."""
        return [*(TELEGRAM_RULES if self.webhook_path else []), *self.app_secrets]

    @property
    def never_barred(self) -> list[IPv4Network | IPv6Network]:
        """The operators' addresses, which no guard shuts out: who alone may reach SSH is one of them."""
        return list(dict.fromkeys([*self.never_banned, *self.sshd_allowed_from]))

    @property
    def docker_networks(self) -> dict[str, IPv4Network]:
        """Docker's ranges, by the value that names each."""
        return {
            "docker_bridge": self.docker_bridge.network,
            "docker_pool": self.docker_pool,
            "app_subnet": self.app_subnet,
            "data_subnet": self.data_subnet,
        }

    @property
    def cpus(self) -> dict[str, float]:
        """Each container's share, by the value that names it."""
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
        """Both colours serve side by side during a release, so the app counts twice."""
        parts = {
            "system_memory_mib": self.system_memory_mib,
            "postgres_memory_mib": self.postgres_memory_mib,
            "redis_memory_mib": self.redis_memory_mib,
            "backup_memory_mib": self.backup_memory_mib,
            "2 × app_memory_mib": 2 * self.app_memory_mib,
            **({"worker_memory_mib": self.worker_memory_mib} if self.app_worker else {}),
        }
        usable = int(self.droplet_memory_mib * (1 - KEPT_BY_KERNEL))
        if (needed := sum(parts.values())) > usable:
            sums = " + ".join(f"{name} {mib}" for name, mib in parts.items())
            raise ValueError(
                f"droplet_memory_mib {self.droplet_memory_mib}, of which {usable} can be used, is too small for "
                f"{sums} = {needed}: "
                "take a larger droplet or lower a limit"
            )
        return self

    @model_validator(mode="after")
    def _backups_fit(self) -> Values:
        """A full Redis is loaded for proof; it has half of its memory for its data, and a server around it."""
        if (needed := self.redis_memory_mib // 2 + SERVER_MIB) > self.backup_memory_mib:
            raise ValueError(
                f"backup_memory_mib {self.backup_memory_mib} is too small to load a full Redis for proof: "
                f"raise it to {needed}, or lower redis_memory_mib"
            )
        return self

    @model_validator(mode="after")
    def _fits_postgresql(self) -> Values:
        if (needed := 2 * self.app_connections + RESERVED_CONNECTIONS) > MAX_CONNECTIONS:
            raise ValueError(
                f"app_connections {self.app_connections}, for both colours, and {RESERVED_CONNECTIONS} for upkeep make "
                f"{needed}, of which PostgreSQL admits {MAX_CONNECTIONS}: lower it, and the app's pools"
            )
        return self

    @model_validator(mode="after")
    def _nginx_takes_the_paths(self) -> Values:
        """A location twice is one that nginx refuses, and /.nginx/ is where its own pages are."""
        for path in self.public_paths:
            if self.public_paths.count(path) > 1:
                raise ValueError(f"public_paths names {path} twice: keep one")
            if path.startswith("/.nginx"):
                raise ValueError(f"public_paths: {path} is for nginx's own pages: choose another path")
        return self

    @model_validator(mode="after")
    def _telegram_gets_through(self) -> Values:
        webhook = self.webhook_path
        if webhook and not any(
            webhook == path or (path.endswith("/") and webhook.startswith(path)) for path in self.public_paths
        ):
            raise ValueError(f"webhook_path {webhook} is not passed on: add it to public_paths, or set it to None")
        return self

    @model_validator(mode="after")
    def _networks_are_apart(self) -> Values:
        networks = {"vpc_network": self.vpc_network, **self.docker_networks}
        names = list(networks)
        for position, one in enumerate(names):
            for other in names[position + 1 :]:
                if networks[one].overlaps(networks[other]):
                    raise ValueError(f"{one} overlaps {other}: choose another range for {other}")
        return self

    @model_validator(mode="after")
    def _fixed_addresses_are_free(self) -> Values:
        """Docker hands out none of them itself."""
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
                raise ValueError(f"{network}_ip_range lies outside of {network}_subnet: take a part of it")
            if set(addresses) != holders or len(set(addresses.values())) != len(holders):
                raise ValueError(f"{name} needs {' and '.join(sorted(holders))}, each with an address of its own")
            for holder, address in addresses.items():
                if address not in subnet or address in ip_range:
                    raise ValueError(f"{name}: {holder} must lie in {network}_subnet and outside of {network}_ip_range")
        return self

    @model_validator(mode="after")
    def _environment_is_unambiguous(self) -> Values:
        telegram = [*TELEGRAM_RULES, PREVIOUS_SECRET] if self.webhook_path else []
        names = [*self.app_environment, *self.app_secrets, *_BUILT_ENV, *telegram]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"app_environment, app_secrets: {name} is set twice or built by us: remove it")
        if fault := problem({**dict.fromkeys(names, ""), **self.app_environment}):
            raise ValueError(f"app_environment, app_secrets: {fault}")
        return self


@dataclass(frozen=True)
class CaCertificate:
    name: str
    pem: bytes


@dataclass(frozen=True)
class Settings:
    """Everything that a component may ask for."""

    values: Values
    credentials: Credentials
    authorized_keys: bytes
    extra_ca_certificates: tuple[CaCertificate, ...]
    paths: Paths
    ci_keys: tuple[str, ...] = ()
    isolated: bool = False
    """A copy, which does nothing that anybody outside hears of; as told, or as the droplet is."""

    def owed(self, debt: str) -> str:
        """The marker of a reload that is owed (operations/owed.py)."""
        return str(self.paths.owed / debt)

    @cached_property
    def login_role(self) -> str:
        """The app's role in PostgreSQL: each password has one of its own, so that a new one shuts out no live release.

        The name is the same on every machine. scrypt, since it is no secret and must not help to guess one.
        """
        values, password = self.values, self.credentials.database_password
        suffix = scrypt(password.encode(), salt=values.database_user.encode(), n=2**14, r=8, p=1, dklen=4).hex()
        return f"{values.database_user}_{suffix}"

    def app_environment(self) -> dict[str, str]:
        """The app's next environment. URLs are built from parts, so that any password survives (RFC 3986, 2.1)."""
        values, secrets = self.values, self.credentials
        password = quote(secrets.database_password, safe="")
        return {
            **values.app_environment,
            **secrets.app,
            "ENVIRONMENT": values.environment,
            "PUBLIC_URL": f"https://{values.domain}",
            "DATABASE_URL": f"postgresql://{self.login_role}:{password}@postgres:5432/{values.database}",
            "REDIS_URL": f"redis://:{quote(secrets.redis_password, safe='')}@redis:6379/0",
        }


def load_settings(data: Mapping[str, Any]) -> Settings:
    """Settings from a host's data (pyinfra's own `ssh_…` names aside) and the env file that it names.

    Raises SettingsError or CredentialsError: one line, before anything was changed.
    """
    check_ssh({name: value for name, value in data.items() if name.startswith("ssh_")})
    values = check_values({name: value for name, value in data.items() if not name.startswith("ssh_")})
    credentials = checked_credentials(values, read_env_file(Path(values.env_file)), values.env_file)
    operators = _read_authorized_keys(Path(values.authorized_keys))
    settings = Settings(
        values=values,
        credentials=credentials,
        authorized_keys=operators,
        extra_ca_certificates=tuple(_read_certificate(Path(path)) for path in values.extra_ca_certificates),
        paths=Paths(values.app),
        ci_keys=_read_ci_keys(values.ci_authorized_keys, operators),
    )
    # With its values, and the URLs made from them.
    if fault := problem(settings.app_environment()):
        raise SettingsError(f"{values.env_file}: {fault}")
    return settings


def checked_credentials(values: Values, found: Mapping[str, str], source: str) -> Credentials:
    """What an env file holds, as the place needs it, and each the only one of its value. Raises CredentialsError."""
    credentials = credentials_from(
        found,
        app_secrets=values.secrets_of_the_app,
        offsite=values.offsite_repository is not None,
        source=source,
    )
    ledger.check(Path(values.secrets_ledger), ledger.fingerprints(credentials))
    return credentials


def check_ssh(data: Mapping[str, Any]) -> None:
    """pyinfra itself ignores a name that it doesn't know, and accepts any host key unless told otherwise."""
    known = list(ConnectorData.__annotations__)
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(
                f"group_data: {name} is not known: " + (f"did you mean {near[0]}?" if near else "remove it")
            )
    if data.get("ssh_strict_host_key_checking") != "yes":
        raise SettingsError('group_data: ssh_strict_host_key_checking has to be "yes": an unknown host key is refused')


def check_values(data: Mapping[str, Any]) -> Values:
    """Raises SettingsError naming every fault at once."""
    try:
        return Values.model_validate(dict(data))
    except ValidationError as error:
        faults = "; ".join(_fault(dict(one)) for one in error.errors())
    raise SettingsError(f"group_data: {faults}")


def _fault(error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"{name} is missing: add it to group_data"
        case "extra_forbidden":
            near = difflib.get_close_matches(name, Values.model_fields, n=1, cutoff=0.7)
            other = f"did you mean {near[0]}?" if near else "remove it"
            return f"{name} is not known: {FIXED.get(name, other)}"
        case "string_pattern_mismatch":
            return f"{name} is malformed: {error['input']!r} {IN_WORDS[error['ctx']['pattern']]}"
        case "value_error":
            return f"{name} {error['ctx']['error']}".strip()
        case kind if kind in KINDS:
            return f"{name} has to be {KINDS[kind]}: it is {error['input']!r}"
        case _:
            return f"{name}: {error['msg']}"


FIXED = {"app_port": f"the app has to listen on {APP_PORT} (docs/reference/app-contract.md)"}
"""What somebody may look for, and isn't a value."""
KINDS = {
    "int_type": "a whole number without quotes",
    "float_type": "a number without quotes",
    "bool_type": "True or False without quotes",
    "string_type": "text in quotes",
    "list_type": "a list in brackets",
    "dict_type": "a table in braces",
}
_TIME = "has to be a time of day with both digits of the hour, such as 04:30"
_NAME = "has to begin with a letter and go on with a to z, 0 to 9 and _"
IN_WORDS = {
    ENV_NAME: "has to be a name in capitals, such as LOG_LEVEL",
    r"^/[A-Za-z0-9/_.-]*$": "has to begin with / and to have letters, digits, / _ . - alone",
    r"^[a-z][a-z0-9]{1,30}$": "has to begin with a letter and to have 2 to 31 of a to z and 0 to 9",
    r"^[a-z][a-z0-9-]{0,31}$": "has to begin with a letter and go on with a to z, 0 to 9 and -, 32 characters at most",
    r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$": "has to be a time zone's name, such as Europe/Berlin",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": _TIME,
    r"^(/[A-Za-z0-9._-]+)+$": "has to be a path from / on, without an end in /",
    r"^[a-z][a-z0-9_]{0,52}$": f"{_NAME}, 53 at most",
    r"^[a-z][a-z0-9_]{0,53}$": f"{_NAME}, 54 at most",
    r"^[^$\"\\]+$": 'has to be a word without $, " and backslash',
    REPOSITORY: "has to be s3:https://HOST/BUCKET or s3:https://HOST/BUCKET/PREFIX",
    r"^https://": "has to begin with https://",
    r"^[^@\s]+@[^@\s]+$": "has to be an e-mail address",
}
"""Each pattern above, as one would say it."""


def _read_authorized_keys(path: Path) -> bytes:
    if not path.is_file():
        raise SettingsError(f"group_data: authorized_keys: {path} is missing: put the operators' public keys there")
    content = path.read_bytes()
    if not _keys_in(path, content):
        raise SettingsError(f"{path} has no key in it, and would lock everybody out: put your public key there")
    return content


def _read_ci_keys(name: str | None, operators: bytes) -> tuple[str, ...]:
    if name is None:
        return ()
    path = Path(name)
    keys = _keys_in(path, path.read_bytes()) if path.is_file() else []
    if not keys:
        raise SettingsError(f"group_data: ci_authorized_keys: {path} has no key: put CI's there, or say None")
    if any(key.split()[1].encode() in operators for key in keys):
        raise SettingsError(
            f"{path} has an operator's key, which opens a shell: make one for CI alone (docs/how-to/ci.md)"
        )
    return tuple(keys)


def _keys_in(path: Path, content: bytes) -> list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 (PowerShell's > writes UTF-16): save it as UTF-8") from None
    keys = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for number, key in enumerate(keys, start=1):
        if not re.match(r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/]{40,}={0,3}( |$)", key):
            raise SettingsError(f"{path}: key {number} is malformed: one public key a line, as in id_ed25519.pub")
    return keys


def _read_certificate(path: Path) -> CaCertificate:
    if not path.is_file():
        raise SettingsError(f"group_data: extra_ca_certificates: {path} is missing: put the PEM file there")
    pem = path.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in pem or path.suffix != ".crt":
        raise SettingsError(f"group_data: extra_ca_certificates: {path} is no certificate in PEM named *.crt")
    return CaCertificate(path.name, pem)
