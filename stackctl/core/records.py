"""Reads and writes JSON documents whose format is a frozen dataclass.

`dumps` writes a document, and `loads` reads a document.

A field's type is str, int, float, bool, Any, a Literal of words, X | None, tuple[X, ...], dict[str, X], another frozen
dataclass, or Annotated with one of these types and a Rule. A document must have every field that has no default. A
document with an unknown key is refused. Every number must fit into 64 bits. Error messages name keys, but never show a
value, because a value may be a secret.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from stackctl.core.printable import printable

LONGEST = 32 << 20
"""The most bytes of a document. The largest document is a backup's manifest, with some fifty bytes for each table."""
LONGEST_KEY = 60
"""Characters of a key that a message shows."""
MOST_FAULTS = 10
MOST = (1 << 63) - 1
"""The largest number, as PostgreSQL counts."""


class RecordError(ValueError):
    """The document does not have the format of the dataclass.

    The message names the wrong keys, and is printable and of limited length.
    """


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=_Dataclass)


@dataclass(frozen=True)
class Rule:
    """A condition on a value, in addition to the value's type. `what` completes the sentence "KEY must be"."""

    holds: Callable[[Any], bool]
    what: str


def matching(pattern: str, what: str) -> Rule:
    """Make a rule: the whole text must match the pattern. Character classes of the pattern match ASCII only."""
    compiled = re.compile(pattern, re.ASCII)
    return Rule(lambda value: bool(compiled.fullmatch(value)), what)


Text = Annotated[str, Rule(bool, "text that is not empty")]
Positive = Annotated[int, Rule(lambda value: value > 0, "a whole number above 0")]
Count = Annotated[int, Rule(lambda value: value >= 0, "a whole number, 0 or more")]


def dumps(record: _Dataclass, *, version: int | None = None, indent: int | None = None) -> bytes:
    """Return a record as a JSON document, with a newline at the end."""
    head = {} if version is None else {"version": version}
    return json.dumps(head | asdict(record), indent=indent).encode() + b"\n"


def loads(kind: type[T], text: str | bytes, *, version: int | None = None) -> T:
    """Read a document, and return the record of type `kind`. Raises RecordError."""
    if len(text) > LONGEST:
        raise RecordError(f"the document has more than {LONGEST} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the document is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise RecordError("the document must be an object")
    if version is not None and (found := document.pop("version", None)) != version:
        raise RecordError(f"version must be {version}, but is {ascii(found)[:LONGEST_KEY]}")
    faults = _Faults()
    try:
        record: T = _reader(kind)(document, "", faults)
    except _EnoughError:
        faults[-1] = "and more"
    if faults:
        raise RecordError(", ".join(faults))
    return record


class _EnoughError(Exception):
    """There are more faults than an error message should name."""


class _WrongError(Exception):
    """The value breaks a rule. The error's text completes the sentence "KEY must be"."""


class _Faults(list[str]):
    def tell(self, fault: str) -> None:
        self.append(fault)
        if len(self) > MOST_FAULTS:
            raise _EnoughError


_Reader = Callable[[Any, str, _Faults], Any]
"""Converts a value as its type hint says. A reader reports each fault inside the value with its key, and raises
_WrongError for a fault of the value itself."""


@cache
def _reader(hint: Any) -> _Reader:
    if is_dataclass(hint):
        return _record(hint)
    if build := _BUILDERS.get(get_origin(hint)):
        return build(*get_args(hint))
    return _plain(*_PLAIN[hint])


_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    Any: (lambda _: True, "anything"),
    str: (lambda value: isinstance(value, str), "text"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (lambda value: type(value) is int and abs(value) <= MOST, "a whole number"),
    float: (lambda value: type(value) in {int, float} and abs(value) <= MOST, "a number"),
}


def _plain(holds: Callable[[Any], bool], what: str) -> _Reader:
    return _ruled(lambda value, _key, _faults: value, Rule(holds, what))


def _ruled(inner: _Reader, *rules: Rule) -> _Reader:
    def read(value: Any, key: str, faults: _Faults) -> Any:
        told = len(faults)
        try:
            found = inner(value, key, faults)
        except _WrongError:
            raise _WrongError(rules[0].what) from None
        for rule in rules:
            if len(faults) == told and not rule.holds(found):
                raise _WrongError(rule.what)
        return found

    return read


def _annotated(hint: Any, *rules: Rule) -> _Reader:
    return _ruled(_reader(hint), *rules)


def _literal(*words: str) -> _Reader:
    return _plain(lambda value: isinstance(value, str) and value in words, f"one of {', '.join(words)}")


def _optional(hint: Any, _none: type[None]) -> _Reader:
    inner = _reader(hint)

    def read(value: Any, key: str, faults: _Faults) -> Any:
        try:
            return None if value is None else inner(value, key, faults)
        except _WrongError as wrong:
            raise _WrongError(f"null or {wrong}") from None

    return read


def _list(hint: Any, _any_number: Any) -> _Reader:
    inner = _reader(hint)

    def read(value: Any, key: str, faults: _Faults) -> Any:
        if not isinstance(value, list):
            raise _WrongError("a list")
        return tuple(_member(inner, one, f"{key}[{number}]", faults) for number, one in enumerate(value))

    return read


def _mapping(name_hint: Any, hint: Any) -> _Reader:
    name, inner = _reader(name_hint), _reader(hint)

    def read(value: Any, key: str, faults: _Faults) -> Any:
        _check_object(value)
        for one in value:
            try:
                name(one, key, faults)
            except _WrongError as wrong:
                faults.tell(f"{key} has the key {_shown(one)}, which must be {wrong}")
        return {one: _member(inner, value[one], _below(key, one), faults) for one in value}

    return read


_BUILDERS: dict[Any, Callable[..., _Reader]] = {
    Annotated: _annotated,
    Literal: _literal,
    Union: _optional,
    UnionType: _optional,
    tuple: _list,
    Mapping: _mapping,
    dict: _mapping,
}


def _record(kind: Any) -> _Reader:
    hints = get_type_hints(kind, include_extras=True)
    readers = {one.name: _reader(hints[one.name]) for one in fields(kind)}
    needed = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}

    def read(value: Any, key: str, faults: _Faults) -> Any:
        _check_object(value)
        told = len(faults)
        for name in sorted(needed - value.keys()):
            faults.tell(f"{_below(key, name)} is missing")
        for name in sorted(value.keys() - readers.keys()):
            faults.tell(f"{_below(key, name)} is unknown")
        found = {
            name: _member(readers[name], value[name], _below(key, name), faults) for name in readers if name in value
        }
        return kind(**found) if len(faults) == told else None

    return read


def _check_object(value: Any) -> None:
    if not isinstance(value, dict):
        raise _WrongError("an object")


def _member(inner: _Reader, value: Any, key: str, faults: _Faults) -> Any:
    try:
        return inner(value, key, faults)
    except _WrongError as wrong:
        faults.tell(f"{key} must be {wrong}")


def _below(key: str, name: str) -> str:
    return f"{key}.{_shown(name)}" if key else _shown(name)


def _shown(name: str) -> str:
    return printable(name[:LONGEST_KEY], keep="")
