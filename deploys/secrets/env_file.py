"""Reads and changes the env file. Each value is taken exactly as written, without interpolation of variables.

Error messages name keys and lines, but never a value.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from deploys.secrets.rules import CredentialsError

NO_LAB = "There is no lab here. Next: make lab-up or make demo. Did you mean ENV=staging or ENV=prod?"


def read_env_file(path: Path) -> dict[str, str]:
    """Return the values of an env file by key, exactly as written.

    Raises CredentialsError if the file is missing, if other users can read the file, if a line is malformed, or if a
    key occurs twice.
    """
    if not path.is_file():
        if path.name == ".env.lab":
            raise CredentialsError(f"{path} is missing. {NO_LAB}")
        raise CredentialsError(
            f"{path} is missing. Next: copy .env.production.template to {path}, chmod 600 {path}, and fill in the "
            "values"
        )
    if path.stat().st_mode & 0o077:
        raise CredentialsError(f"{path} can be read by other users. Next: chmod 600 {path}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not UTF-8. Next: save it as UTF-8") from None
    return values_in(text, path)


def values_in(text: str, path: Path) -> dict[str, str]:
    """Return the values in the text of an env file, by key. Raises CredentialsError."""
    values: dict[str, str] = {}
    for binding in bindings(text):
        if binding.key is None and not binding.error:
            continue  # a comment or an empty line
        key, value = _checked(path, binding)
        if key in values:
            raise CredentialsError(f"{path} line {_line(binding)}: {key} is set twice. Next: keep one of the lines")
        values[key] = value
    return values


def bindings(text: str) -> list[Binding]:
    """Split the text into bindings, comments and empty lines. The joined parts are the original text."""
    return list(parse_stream(StringIO(text, newline="")))


def with_value(text: str, key: str, value: str) -> str:
    """Return an env file's text with a new value for the key. Every other byte stays the same."""
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    quoted = re.compile(r"=(\s*)'(?:\\.|[^'\\])*'", re.DOTALL)
    return "".join(
        quoted.sub(lambda match: f"={match[1]}'{escaped}'", one.original.string, count=1)
        if one.key == key
        else one.original.string
        for one in bindings(text)
    )


def _checked(path: Path, binding: Binding) -> tuple[str, str]:
    if binding.error or binding.key is None:
        raise CredentialsError(
            f"{path} line {_line(binding)} is malformed. Next: write NAME='value', with \\' for a quote in the value"
        )
    if binding.value is None:
        raise CredentialsError(
            f"{path} line {_line(binding)}: {binding.key} has no value. Next: write {binding.key}='value'"
        )
    written = binding.original.string.partition("=")[2].strip()
    if not written.startswith("'"):
        # The characters $, # and backslash have no special meaning in single quotes, but they have one elsewhere.
        raise CredentialsError(
            f"{path} line {_line(binding)}: {binding.key} is not in single quotes. Next: write {binding.key}='value'"
        )
    return binding.key, binding.value


def _line(binding: Binding) -> int:
    """Return the number of a binding's line. The parser counts preceding blank lines as part of a binding."""
    text = binding.original.string
    return binding.original.line + len(text[: len(text) - len(text.lstrip())].splitlines())
