"""Public keys and certificates from the files that group_data names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deploys.config.values import SettingsError


@dataclass(frozen=True)
class CaCertificate:
    """A certificate authority that the droplet trusts in addition to Debian's authorities."""

    name: str
    pem: bytes


def read_authorized_keys(path: Path) -> bytes:
    """Return the content of the file with the operators' public keys. Raises SettingsError if the file has no key."""
    if not path.is_file():
        raise SettingsError(
            f"group_data: authorized_keys: {path} is missing. Next: put the operators' public keys there"
        )
    content = path.read_bytes()
    if not _keys_in(path, content):
        raise SettingsError(
            f"{path} has no key, so a converge would lock everyone out. Next: put your public key there"
        )
    return content


def read_ci_keys(name: str | None, operators: bytes) -> tuple[str, ...]:
    """Return CI's public keys.

    Raises SettingsError if the file has no key, or has a key that also belongs to an operator.
    """
    if name is None:
        return ()
    path = Path(name)
    keys = _keys_in(path, path.read_bytes()) if path.is_file() else []
    if not keys:
        raise SettingsError(
            f"group_data: ci_authorized_keys: {path} has no key. Next: put CI's public key there, or set the value to "
            "None"
        )
    if any(key.split()[1].encode() in operators for key in keys):
        raise SettingsError(
            f"{path} has an operator's key, but CI's key must not open a shell. "
            "Next: create a key only for CI (docs/how-to/ci.md)"
        )
    return tuple(keys)


def _keys_in(path: Path, content: bytes) -> list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 (PowerShell's > writes UTF-16). Next: save it as UTF-8") from None
    keys = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for number, key in enumerate(keys, start=1):
        if not re.match(r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/]{40,}={0,3}( |$)", key):
            raise SettingsError(
                f"{path}: key {number} is malformed. Next: write one public key per line, as in id_ed25519.pub"
            )
    return keys


def read_certificate(path: Path) -> CaCertificate:
    """Return a certificate authority from a PEM file. Raises SettingsError."""
    if not path.is_file():
        raise SettingsError(f"group_data: extra_ca_certificates: {path} is missing. Next: put the PEM file there")
    pem = path.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in pem or path.suffix != ".crt":
        raise SettingsError(f"group_data: extra_ca_certificates: {path} has to be a PEM certificate named *.crt")
    return CaCertificate(path.name, pem)
