"""The rules of the env file. The env file must have every secret that the environment needs, and nothing else.

Error messages name keys, but never a value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from unicodedata import category

from pyinfra.api.exceptions import PyinfraError


class CredentialsError(PyinfraError):
    """The env file has a fault. The message is one line with the key or the line number, the fault and the remedy."""


@dataclass(frozen=True)
class Credentials:
    """An environment's secrets. The repr shows no secret, so that no secret gets into a log or an error message."""

    database_password: str = field(repr=False)
    redis_password: str = field(repr=False)
    registry_password: str = field(repr=False)
    fingerprint_key: str = field(repr=False)
    app: Mapping[str, str] = field(repr=False)
    """The app's secrets by name: Telegram's, and the secrets that `app_secrets` of group_data lists."""
    offsite: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The secrets of off-site backups by their names in the env file. Empty without off-site backups."""

    @property
    def by_name(self) -> dict[str, str]:
        """All secrets, by the key in the env file."""
        own = {name: getattr(self, name.lower()) for name in RULES}
        return {**own, **self.app, **self.offsite}


def _fault_of_password(value: str) -> str | None:
    return "is shorter than 16 characters" if len(value) < 16 else None


def _fault_of_bot_token(value: str) -> str | None:
    fits = re.fullmatch(r"[0-9]{6,}:[A-Za-z0-9_-]{35}", value)
    return None if fits else "does not have the form of @BotFather's tokens (digits, a colon, 35 characters)"


def _fault_of_webhook_secret(value: str) -> str | None:
    # https://core.telegram.org/bots/api#setwebhook allows one character, but a short secret protects nothing.
    fits = re.fullmatch(r"[A-Za-z0-9_-]{16,256}", value)
    return None if fits else "is not 16 to 256 characters of A-Z a-z 0-9 _ -"


def _fault_of_fingerprint_key(value: str) -> str | None:
    return "is shorter than 32 characters" if len(value) < 32 else None


def _fault_of_key_id(value: str) -> str | None:
    # The ID must not contain / or =, which have a special meaning in the HTTP header that contains the ID.
    return None if re.fullmatch(r"[A-Za-z0-9]{8,128}", value) else "is not 8 to 128 letters and digits"


def _fault_of_restic_password(value: str) -> str | None:
    # A password must not begin or end with white space, because restic strips white space when restic reads a new
    # password from a file.
    return "begins or ends with white space" if value != value.strip() else _fault_of_password(value)


def _no_fault(_: str) -> str | None:
    return None


RULES: dict[str, Callable[[str], str | None]] = {
    "DATABASE_PASSWORD": _fault_of_password,
    "REDIS_PASSWORD": _fault_of_password,
    "REGISTRY_PASSWORD": _no_fault,
    "FINGERPRINT_KEY": _fault_of_fingerprint_key,
}
"""Rules of the keys that every environment needs. A rule returns the fault of a value, without the value."""

TELEGRAM_RULES: dict[str, Callable[[str], str | None]] = {
    "TELEGRAM_BOT_TOKEN": _fault_of_bot_token,
    "TELEGRAM_WEBHOOK_SECRET": _fault_of_webhook_secret,
}
"""Rules of the keys for an app that uses Telegram. For any other app, these keys are ignored."""

OFFSITE_RULES: dict[str, Callable[[str], str | None]] = {
    "OFFSITE_KEY_ID": _fault_of_key_id,
    "OFFSITE_KEY_SECRET": _fault_of_password,
    "OFFSITE_PASSWORD": _fault_of_restic_password,
}
"""Rules of the droplet's keys for off-site backups. Without `offsite_repository` the keys are ignored."""

OPERATOR_RULES: dict[str, Callable[[str], str | None]] = {
    "OFFSITE_OPERATOR_KEY_ID": _fault_of_key_id,
    "OFFSITE_OPERATOR_KEY_SECRET": _fault_of_password,
    "OFFSITE_OPERATOR_PASSWORD": _fault_of_restic_password,
}
"""Rules of the operator's keys for off-site backups. No droplet gets these keys. CI's env file may lack them."""

# A placeholder has no digit, so a real value that begins with "your_" and has a digit is no placeholder.
_PLACEHOLDER = re.compile(r"<.*>|change.?me|your([-_ ][a-z]+)+|x{3,}|todo|placeholder", re.IGNORECASE)


def credentials_from(
    values: Mapping[str, str], *, app_secrets: Iterable[str], offsite: bool, source: str
) -> Credentials:
    """Check the values of an env file and return them. Raises CredentialsError, which names all faults."""
    app_names = tuple(app_secrets)
    # The env file must have either all or none of the operator's keys.
    operator = OPERATOR_RULES if any(name in values for name in OPERATOR_RULES) else {}
    offsite_names = [*OFFSITE_RULES, *operator] if offsite else []
    needed = [*RULES, *app_names, *offsite_names]
    faults = [*_unknown(values, [*needed, *TELEGRAM_RULES, *OFFSITE_RULES, *OPERATOR_RULES]), *_unfit(values, needed)]
    if faults:
        raise CredentialsError(f"{source}: {'; '.join(faults)}")
    return Credentials(
        database_password=values["DATABASE_PASSWORD"],
        redis_password=values["REDIS_PASSWORD"],
        registry_password=values["REGISTRY_PASSWORD"],
        fingerprint_key=values["FINGERPRINT_KEY"],
        app={name: values[name] for name in app_names},
        offsite={name: values[name] for name in offsite_names},
    )


def _unknown(values: Mapping[str, str], known: list[str]) -> Iterable[str]:
    for key, value in values.items():
        # Accept a placeholder of the template for a secret that this environment does not need.
        if key not in known and not _PLACEHOLDER.fullmatch(value.strip()):
            near = difflib.get_close_matches(key, known, n=1)
            other = ". Next: remove it, or list it in group_data's app_secrets"
            yield f"{key} is not known" + (f": did you mean {near[0]}?" if near else other)


def _unfit(values: Mapping[str, str], needed: list[str]) -> Iterable[str]:
    for key in needed:
        if key not in values:
            yield f"{key} is missing. Next: add {key} (.env.production.template says where the value comes from)"
        elif fault := _fault_of(key, values[key]):
            yield f"{key} {fault}. Next: set another value"


def _fault_of(key: str, value: str) -> str | None:
    if not value.strip():
        return "is empty"
    if _PLACEHOLDER.fullmatch(value.strip()):
        return "is still a placeholder"
    # Refuse a line break, which would end the line in an HTTP header, in an env file or at a password prompt.
    if re.search(r"[\r\n]", value):
        return "has a line break, which is a control character (encode the value with base64, or write \\n for each)"
    if re.search(r"[\x00-\x1f\x7f]", value):
        return "has a control character"
    if invisible := [one for one in (value[0], value[-1]) if one != " " and category(one) in {"Cf", "Zl", "Zp", "Zs"}]:
        return f"begins or ends with an invisible character (U+{ord(invisible[0]):04X}), so type the value again"
    return {**RULES, **TELEGRAM_RULES, **OFFSITE_RULES, **OPERATOR_RULES}.get(key, _no_fault)(value)
