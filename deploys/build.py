"""Builds the files that a converge sends to a droplet: rendered templates, plain files, and stackctl's zipapp.

The same input gives the same bytes on every machine and in every clone, because a converge compares hashes.
"""

from __future__ import annotations

import io
import zipfile
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ROOT = Path(__file__).parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can store (PKWARE APPNOTE, 4.4.6)

_templates = Environment(
    loader=FileSystemLoader(_ROOT / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701 - configuration files, not HTML
)


def template(name: str, **values: object) -> bytes:
    """Render templates/`name`. Raise an error if the template uses a value that is missing."""
    return _templates.get_template(name).render(**values).encode()


def file(name: str) -> bytes:
    """Return files/`name` unchanged."""
    return (_ROOT / "files" / name).read_bytes()


def stackctl(app: str) -> bytes:
    """Build the zipapp of stackctl for `app`.

    A zip file stores the order and the times of its entries. So this function sorts the entries, and gives all entries
    the same time.
    """
    sources = sorted((_ROOT / "stackctl").rglob("*.py"))
    entries = {path.relative_to(_ROOT).as_posix(): path.read_bytes() for path in sources}
    entries["__main__.py"] = f'from stackctl.cli.main import main\n\nmain(app="{app}")\n'.encode()
    archive = io.BytesIO()
    archive.write(b"#!/usr/bin/python3\n")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for name, content in entries.items():
            bundle.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return archive.getvalue()


def fingerprint(*parts: bytes) -> str:
    """Return the SHA-256 of a list of inputs, in hexadecimal. Two different lists have different fingerprints."""
    total = sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()
