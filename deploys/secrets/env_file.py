"""The env file, read byte for byte: no interpolation, no entry in os.environ.

A message names keys and lines, never a value.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from deploys.secrets.rules import CredentialsError

NO_LAB = "There is no lab here (make lab-up, make demo). Did you mean ENV=staging or ENV=prod?"


def read_env_file(path: Path) -> dict[str, str]:
    """The file's values by key, exactly as written.

    Raises CredentialsError when the file is missing, readable by others, or has a malformed or doubled line.
    """
    if not path.is_file():
        if path.name == ".env.lab":
            raise CredentialsError(f"{path} is missing. {NO_LAB}")
        raise CredentialsError(f"{path} is missing: copy .env.production.template to it and fill it in (chmod 600)")
    if path.stat().st_mode & 0o077:
        raise CredentialsError(f"{path} can be read by others: chmod 600 {path}")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not UTF-8: save it as UTF-8") from None
    return values_in(text, path)


def values_in(text: str, path: Path) -> dict[str, str]:
    """The same of a file's text."""
    values: dict[str, str] = {}
    for binding in bindings(text):
        if binding.key is None and not binding.error:
            continue  # a comment or an empty line
        key, value = _checked(path, binding)
        if key in values:
            raise CredentialsError(f"{path} line {_line(binding)}: {key} is there twice: keep one")
        values[key] = value
    return values


def bindings(text: str) -> list[Binding]:
    """The text cut into lines and whatever a quoted value holds together; joined again it is the same."""
    return list(parse_stream(StringIO(text, newline="")))


def with_value(text: str, key: str, value: str) -> str:
    """An env file's text with another value of the key; every other byte stays."""
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
            f"{path} line {_line(binding)} is malformed: write NAME='value', with \\' for a quote inside"
        )
    if binding.value is None:
        raise CredentialsError(f"{path} line {_line(binding)}: {binding.key} has no value: write {binding.key}='value'")
    written = binding.original.string.partition("=")[2].strip()
    if not written.startswith("'"):
        # Without them, or in double ones, a $, a # or a backslash would mean something.
        raise CredentialsError(f"{path} line {_line(binding)}: put the value of {binding.key} into single quotes")
    return binding.key, binding.value


def _line(binding: Binding) -> int:
    """The parser counts the blank lines before a binding as its own."""
    text = binding.original.string
    return binding.original.line + len(text[: len(text) - len(text.lstrip())].splitlines())
