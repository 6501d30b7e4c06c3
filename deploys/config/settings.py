"""The settings of an environment: group_data and the env file, typed and checked before the first change.

group_data has plain values, and components get `Settings`. If a value is missing, unknown, of the wrong type or still a
placeholder, the run stops with one line that names the value.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import scrypt
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from deploys.config import environments
from deploys.config.keys import CaCertificate, read_authorized_keys, read_certificate, read_ci_keys
from deploys.config.values import APP_PORT, ENV_NAME, REPOSITORY, SettingsError, Values
from deploys.internals import SSH_DATA
from deploys.secrets import ledger
from deploys.secrets.env_file import read_env_file
from deploys.secrets.rules import Credentials, credentials_from
from stackctl.app.app_env import problem
from stackctl.core.old_names import now_called
from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Settings:
    """Everything that a component may read."""

    values: Values
    credentials: Credentials
    authorized_keys: bytes
    extra_ca_certificates: tuple[CaCertificate, ...]
    paths: Paths
    ci_keys: tuple[str, ...] = ()
    isolated: bool = False
    """Whether the droplet is isolated. The value comes from group_data, or else from the droplet's present state."""
    instance_id: str | None = None
    """The droplet's instance ID, or None if unknown."""
    is_copy: bool = False
    """Whether the droplet was made from an image of another droplet, and was not converged since."""

    @cached_property
    def login_role(self) -> str:
        """The PostgreSQL role with which the app logs in.

        Each password has its own role, so that a new password does not lock out the live release. The role's name is
        the same on every machine, and is not secret. scrypt derives the name from the password, so that the name does
        not help to guess the password.
        """
        values, password = self.values, self.credentials.database_password
        suffix = scrypt(password.encode(), salt=values.database_user.encode(), n=2**14, r=8, p=1, dklen=4).hex()
        return f"{values.database_user}_{suffix}"

    def app_environment(self) -> dict[str, str]:
        """Return the app environment for the next release. Passwords in URLs are percent-encoded (RFC 3986, 2.1)."""
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
    """Return the settings from a host's data, and from the env file whose path is in the data.

    The names that begin with `ssh_` are pyinfra's own, and are checked and left out. Raises SettingsError or
    CredentialsError.
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
    # Check the app environment last, because the app environment contains URLs with secrets, which are known only now.
    if fault := problem(settings.app_environment()):
        raise SettingsError(f"{values.env_file}: {fault}")
    return settings


def checked_credentials(values: Values, found: Mapping[str, str], source: str) -> Credentials:
    """Return the credentials of an env file. Raises CredentialsError if a secret is invalid or used twice."""
    credentials = credentials_from(
        found,
        app_secrets=values.secrets_of_the_app,
        offsite=values.offsite_repository is not None,
        source=source,
    )
    ledger.check(Path(values.secrets_ledger), ledger.fingerprints(credentials))
    return credentials


def check_ssh(data: Mapping[str, Any]) -> None:
    """Check the values that configure pyinfra's SSH connection. Raises SettingsError.

    pyinfra itself ignores unknown names, and by default accepts any host key.
    """
    for name in data:
        if name not in SSH_DATA:
            near = difflib.get_close_matches(name, SSH_DATA, n=1)
            raise SettingsError(
                f"group_data: {name} is not known" + (f": did you mean {near[0]}?" if near else ". Next: remove it")
            )
    if data.get("ssh_strict_host_key_checking") != "yes":
        raise SettingsError(
            'group_data: ssh_strict_host_key_checking has to be "yes", so that an unknown host key is refused'
        )


def check_values(data: Mapping[str, Any]) -> Values:
    """Check the values of group_data and return them. Raises SettingsError, which names all faults."""
    try:
        return Values.model_validate(with_new_names(data))
    except ValidationError as error:
        faults = "; ".join(_fault(dict(one)) for one in error.errors())
    raise SettingsError(f"group_data: {faults}")


def with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with each old name replaced by the new name. Print each replacement. Raises SettingsError.

    A value under the old name replaces the default that group_data/all.py has under the new name. If the new name has a
    value other than the default, a SettingsError is raised, because pyinfra has already merged the files, and nobody
    knows which value was set last.
    """
    found = dict(data)
    for old, new in environments.RENAMED.items():
        if old not in found:
            continue
        default = environments.defaults().get(new)
        if found.get(new, default) != default:
            raise SettingsError(
                f"group_data: {old} ({_source(old, found)}) is the old name of {new} ({_source(new, found)}), and both "
                f"are set. Nothing was changed. Next: keep only {new}"
            )
        _announce(f"{_source(old, found)}: {now_called(old, new)}")
        found[new] = found.pop(old)
    return found


def _source(name: str, data: Mapping[str, Any]) -> str:
    return ", ".join(environments.files_with(name, data[name])) or "inventory or --data"


@cache
def _announce(message: str) -> None:
    """Print a message only once, even if there are several hosts."""
    print(message, file=sys.stderr)


def _fault(error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"{name} is missing. Next: add it to group_data"
        case "extra_forbidden":
            near = difflib.get_close_matches(name, Values.model_fields, n=1, cutoff=0.7)
            other = f": did you mean {near[0]}?" if near else ". Next: remove it"
            return f"{name} is not known{FIXED.get(name, other)}"
        case "string_pattern_mismatch":
            return f"{name} is malformed: {error['input']!r} {IN_WORDS[error['ctx']['pattern']]}"
        case "value_error":
            return f"{name} {error['ctx']['error']}".strip()
        case kind if kind in KINDS:
            return f"{name} has to be {KINDS[kind]}: it is {error['input']!r}"
        case _:
            return f"{name}: {error['msg']}"


FIXED = {"app_port": f": the app has to listen on {APP_PORT} (docs/reference/app-contract.md)"}
"""The end of the message about an unknown name, for names that somebody is likely to try."""
KINDS = {
    "int_type": "a whole number without quotes",
    "float_type": "a number without quotes",
    "bool_type": "True or False without quotes",
    "string_type": "text in quotes",
    "list_type": "a list in brackets",
    "dict_type": "a table in braces",
}
_TIME = "has to be a time of day with two digits for the hour, such as 04:30"
_NAME = "has to begin with a letter and continue with a to z, 0 to 9 and _"
IN_WORDS = {
    ENV_NAME: "has to be a name in capitals, such as LOG_LEVEL",
    r"^/[A-Za-z0-9/_.-]*$": "has to begin with / and to consist of letters, digits and / _ . -",
    r"^[a-z][a-z0-9]{1,30}$": "has to begin with a letter and to consist of 2 to 31 characters a to z and 0 to 9",
    r"^[a-z][a-z0-9-]{0,31}$": "has to begin with a letter and continue with a to z, 0 to 9 and -, at most 32",
    r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$": "has to be the name of a time zone, such as Europe/Berlin",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": _TIME,
    r"^(/[A-Za-z0-9._-]+)+$": "has to be an absolute path that does not end in /",
    r"^[a-z][a-z0-9_]{0,52}$": f"{_NAME}, at most 53 characters",
    r"^[a-z][a-z0-9_]{0,53}$": f"{_NAME}, at most 54 characters",
    r"^[^$\"\\]+$": 'has to be a word without $, " and backslash',
    REPOSITORY: "has to be s3:https://HOST/BUCKET or s3:https://HOST/BUCKET/PREFIX",
    r"^https://": "has to begin with https://",
    r"^[^@\s]+@[^@\s]+$": "has to be an e-mail address",
}
"""The meaning of each pattern of the schema, as the end of a message."""
