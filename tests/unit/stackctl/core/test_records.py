"""A record can be written and read again. An error message names the faulty key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.core import records
from stackctl.core.records import LONGEST, LONGEST_KEY, MOST, MOST_FAULTS, Count, Positive, RecordError, Rule, Text


@dataclass(frozen=True)
class Part:
    tag: Annotated[str, records.matching("[a-z]{1,9}", "a tag")]
    size: float = 0


@dataclass(frozen=True)
class Whole:
    name: Text
    colour: Literal["blue", "green"]
    count: Positive
    on: bool
    part: Part | None
    parts: tuple[Part, ...] = ()
    rows: Annotated[Mapping[Annotated[str, Rule(str.islower, "lower-case")], Count], Rule(bool, "some rows")] = field(
        default_factory=lambda: {"a": 1}
    )
    more: dict[str, Any] | None = None


GOOD: dict[str, Any] = {"name": "x", "colour": "blue", "count": 1, "on": True, "part": None}
PARTS = st.builds(Part, st.from_regex("[a-z]{1,9}", fullmatch=True), st.floats(-1e18, 1e18) | st.integers(-MOST, MOST))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
WHOLES = st.builds(
    Whole,
    st.text(min_size=1),
    st.sampled_from(["blue", "green"]),
    st.integers(1, MOST),
    st.booleans(),
    st.none() | PARTS,
    st.lists(PARTS, max_size=3).map(tuple),
    st.dictionaries(st.text(min_size=1).filter(str.islower), st.integers(0, MOST), min_size=1, max_size=3),
    st.none() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
)


def read(**change: Any) -> Whole:
    return records.loads(Whole, json.dumps(GOOD | change))


def tried(document: Any) -> tuple[Whole | None, str]:
    """Return the record, or the reason for the refusal."""
    try:
        return records.loads(Whole, json.dumps(document)), ""
    except RecordError as error:
        return None, str(error)


@given(WHOLES, st.none() | st.just(2), st.none() | st.just(2))
def test_a_record_reads_what_it_wrote(record: Whole, version: int | None, indent: int | None) -> None:
    written = records.dumps(record, version=version, indent=indent)
    assert records.loads(Whole, written, version=version) == record
    assert written.endswith(b"}\n")


def test_fields_with_a_default_may_be_missing_and_are_written() -> None:
    assert read() == Whole(**GOOD)
    assert records.dumps(Part("a")) == b'{"tag": "a", "size": 0}\n'
    assert (
        records.dumps(Part("a", 1.5), version=3, indent=2) == b'{\n  "version": 3,\n  "tag": "a",\n  "size": 1.5\n}\n'
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"extra": 1}, "extra is unknown"),
        ({"name": ""}, "name must be text that is not empty"),
        ({"name": 7}, "name must be text that is not empty"),
        ({"colour": "red"}, "colour must be one of blue, green"),
        ({"colour": ["blue"]}, "colour must be one of blue, green"),
        ({"count": 0}, "count must be a whole number above 0"),
        ({"count": 1.0}, "count must be a whole number above 0"),
        ({"count": True}, "count must be a whole number above 0"),
        ({"count": MOST + 1}, "count must be a whole number above 0"),
        ({"on": 1}, "on must be true or false"),
        ({"part": []}, "part must be null or an object"),
        ({"part": {}}, "part.tag is missing"),
        ({"part": {"tag": "a", "x": 1}}, "part.x is unknown"),
        ({"part": {"tag": "a\n"}}, "part.tag must be a tag"),
        ({"part": {"tag": "ß"}}, "part.tag must be a tag"),
        *(({"part": {"tag": "a", "size": size}}, "part.size must be a number") for size in ("1", True, None)),
        *(
            ({"part": {"tag": "a", "size": size}}, "part.size must be a number")
            for size in (float("nan"), float("inf"), -float("inf"), 1e300, 10**400)
        ),
        ({"parts": {}}, "parts must be a list"),
        ({"parts": None}, "parts must be a list"),
        ({"parts": [{"tag": "a"}, 7]}, "parts[1] must be an object"),
        ({"parts": [{"tag": "A"}]}, "parts[0].tag must be a tag"),
        ({"rows": []}, "rows must be some rows"),
        ({"rows": {}}, "rows must be some rows"),
        ({"rows": {"a": -1}}, "rows.a must be a whole number, 0 or more"),
        ({"rows": {"A": 1}}, "rows has the key A, which must be lower-case"),
        ({"more": 7}, "more must be null or an object"),
        ({"name": "", "on": 1, "x": 1}, "x is unknown, name must be text that is not empty, on must be true or false"),
        ({"\x1b[2J": 1}, "\\x1b[2J is unknown"),
        ({"x" * 99: 1}, f"{'x' * LONGEST_KEY} is unknown"),
        ({"rows": {"\u202e" * 99: 1}}, "rows has the key " + r"\u202e" * LONGEST_KEY + ", which must be lower-case"),
    ],
)
def test_every_fault_is_reported_with_its_key(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(RecordError) as refused:
        read(**change)
    assert str(refused.value) == fault


@pytest.mark.parametrize("key", GOOD)
def test_a_field_without_a_default_must_be_there(key: str) -> None:
    document = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(RecordError, match=f"^{key} is missing$"):
        records.loads(Whole, json.dumps(document))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"the document is not JSON \(Expecting value"),
        ("{", "the document is not JSON"),
        (b"\xff\xff", "the document is not JSON"),
        ("[" * 100_000, r"the document is not JSON \(maximum recursion"),
        (f'{{"count": {"1" * 5000}}}', r"the document is not JSON \(Exceeds the limit"),
        ("[]", "the document must be an object"),
        ("null", "the document must be an object"),
    ],
)
def test_what_is_no_object_is_refused(text: str | bytes, fault: str) -> None:
    with pytest.raises(RecordError, match=f"^{fault}"):
        records.loads(Whole, text)


def test_what_is_too_long_is_not_parsed() -> None:
    with pytest.raises(RecordError, match=f"^the document has more than {LONGEST} bytes$"):
        records.loads(Whole, b" " * (LONGEST + 1))


@pytest.mark.parametrize(
    ("head", "shown"),
    [({}, "None"), ({"version": "2"}, "'2'"), ({"version": 3}, "3"), ({"version": "é" * 99}, "'\\xe9")],
)
def test_another_version_is_the_only_fault(head: dict[str, Any], shown: str) -> None:
    with pytest.raises(RecordError) as refused:
        records.loads(Whole, json.dumps(head), version=2)
    assert str(refused.value).startswith(f"version must be 2, but is {shown}")
    assert len(str(refused.value)) < 100


def test_a_version_that_is_not_asked_for_is_unknown() -> None:
    with pytest.raises(RecordError, match="version is unknown"):
        read(version=1)


def test_the_number_of_reported_faults_is_limited() -> None:
    with pytest.raises(RecordError) as refused:
        read(rows={str(number): "x" for number in range(1000)} | {"a": 1})
    assert str(refused.value).count("rows has the key") == MOST_FAULTS
    assert str(refused.value).endswith(", and more")


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys((*GOOD, "parts", "rows", "more"), JSON)))
def test_any_document_is_a_record_or_refused_in_a_short_printable_line(document: Any) -> None:
    found, fault = tried(document)
    assert (found is None) == bool(fault)
    assert fault.isprintable()
    assert len(fault) < (MOST_FAULTS + 1) * (100 + 10 * LONGEST_KEY)
    assert found is None or records.loads(Whole, records.dumps(found)) == found


@given(WHOLES, st.sampled_from(["name", "colour", "count", "on", "part", "parts", "rows"]), JSON)
def test_a_single_change_is_read_as_it_is_or_told_by_its_key(record: Whole, key: str, value: Any) -> None:
    found, fault = tried(json.loads(records.dumps(record)) | {key: value})
    assert fault.startswith(key if fault else "")
    assert found is None or replace(found, **{key: getattr(record, key)}) == record


def test_no_value_is_shown() -> None:
    for change in ({"name": 7e9}, {"colour": "s3cret"}, {"part": "s3cret"}, {"parts": [{"tag": "S3cret"}]}):
        with pytest.raises(RecordError) as refused:
            read(**change)
        assert "3cret" not in str(refused.value)
        assert "7" not in str(refused.value)
