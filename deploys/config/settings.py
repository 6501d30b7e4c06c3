"""What differs between places, typed and checked whole before the first change.

`group_data` gives plain values; `Settings` is what the components get. A name that is missing, unknown, of the wrong
type or still a placeholder stops the run with one line that names it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import scrypt
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import (
    ValidationError,
)
from pyinfra.connectors.ssh import ConnectorData

from deploys.config.keys import CaCertificate, read_authorized_keys, read_certificate, read_ci_keys
from deploys.config.values import APP_PORT, ENV_NAME, REPOSITORY, SettingsError, Values
from deploys.secrets import ledger
from deploys.secrets.env_file import read_env_file
from deploys.secrets.rules import Credentials, credentials_from
from stackctl.app.app_env import problem
from stackctl.core.paths import Paths


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
    operators = read_authorized_keys(Path(values.authorized_keys))
    settings = Settings(
        values=values,
        credentials=credentials,
        authorized_keys=operators,
        extra_ca_certificates=tuple(read_certificate(Path(path)) for path in values.extra_ca_certificates),
        paths=Paths(values.app),
        ci_keys=read_ci_keys(values.ci_authorized_keys, operators),
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
