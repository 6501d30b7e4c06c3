"""Certificates that no authority has signed."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


def self_signed(directory: Path, domain: str) -> None:
    """Write a fullchain.pem that differs from the previous one, and a made-up privkey.pem."""
    directory.mkdir(parents=True, exist_ok=True)
    chain = directory / "fullchain.pem"
    chain.write_text(
        next(pem for pem in _two_certificates(domain, directory.name) if not chain.exists() or pem != chain.read_text())
    )
    (directory / "privkey.pem").write_text(f"the key of {directory.name}\n")


@cache
def _two_certificates(domain: str, _directory: str) -> tuple[str, str]:
    """Return two certificates as PEM, different for each directory.

    The certificates are cached, because openssl is slow.
    """
    what = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90"]
    name = ["-subj", "/CN=Test CA", "-addext", f"subjectAltName=DNS:{domain}", "-keyout", "/dev/null"]
    one, other = (subprocess.run([*what, *name], check=True, capture_output=True, text=True).stdout for _ in range(2))
    return one, other
