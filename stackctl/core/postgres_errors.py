"""Removes customers' data from the errors of PostgreSQL.

PostgreSQL repeats data in its errors. A failed COPY shows the row in CONTEXT, a unique violation shows the key in
DETAIL, and a failed statement shows values in QUERY or STATEMENT (protocol-error-fields in PostgreSQL's manual). The
output of programs goes to `status`, CI logs, history.jsonl and the journal. Therefore this filter removes the fields
CONTEXT, DETAIL, QUERY and STATEMENT, and the values in the ERROR line.

The filter works on text and has one limit: if the app itself words an error, for example in a function (RAISE
EXCEPTION), the text stays as the app wrote it.
"""

import re

_FIELDS = "DETAIL|HINT|CONTEXT|QUERY|STATEMENT|WHERE|LOCATION"
# "DETAIL: …" in the output of psql, after a log prefix of the server, and in a driver's line of JSON or Python.
_FIELD = re.compile(
    rf"(?:\\n|\b)(?:(?:{_FIELDS}):\s|LINE \d+: ).*|\bpg_\w+: (?:detail|hint): (?!Error message from server: ).*"
)
# The prefix of a field in the server's log.
_PREFIX = re.compile(r"^\s*(?:\d{4}-\d\d-\d\d[ T][^\"]*)?$")
_COMMAND = re.compile(r"^(?:Command was|Query was): ")
# Formats of drivers: node-postgres prints an object, and SQLAlchemy prints the statement and its parameters.
_DRIVER = re.compile(r"^\s*(?:(?:detail|hint|where|internalQuery): |\[SQL: |\[parameters: )")
_CARET = re.compile(r"^\s*\^\s*$")
# A field may span several lines. The field ends at the next line that clearly does not belong to the field.
_NEXT = re.compile(
    r"^\s*$|^(?:psql|pg_\w+):|^[\w.]*(?:Error|Exception)\b|^Traceback |^(?:During|The above) |^\{|^\d{4}-\d\d-\d\d[ T]"
    r"|^(?:ERROR|FATAL|PANIC|WARNING|NOTICE|LOG):\s"
)
_SAYS_WHY = re.compile(r"(?:ERROR|FATAL|PANIC):\s+\S")
_SPEAKS_OF_A_VALUE = re.compile(
    r"(?:ERROR|FATAL|PANIC):\s|invalid input (?:syntax|value) for |malformed \w+ literal: |"
    r"out of range(?: for type \w+)?: "
)
# A value at the end of an error message. The value may contain quotes and line ends, because PostgreSQL does not escape
# them.
_VALUE = re.compile(
    r"((?:invalid input (?:syntax|value) for [^:]{1,200}|malformed \w+ literal|"
    r"\bout of range(?: for type [\w ]{1,200})?): \\*)\".*"
)
# Words that PostgreSQL puts before a quoted name. Quoted text after any other word is a value.
_NAMED = (
    "column|constraint|relation|table|partition|index|view|sequence|schema|database|role|user|type|domain|function|"
    "operator|operator class|extension|parameter|encoding|trigger|policy|rule|collation|tablespace|publication|"
    "subscription|server|language|access method|snapshot|file|savepoint|cast|aggregate"
)
_QUOTED = re.compile(rf'(?P<name>\b(?:{_NAMED})(?: name)? )?"(?P<value>[^"]*)"(?!\w)')


def without_rows(text: str) -> str:
    """Return the text without the fields and values that may contain data of a row."""
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if skipping and not _NEXT.search(line):
            continue
        skipping = False
        shown = _FIELD.sub("", line)
        if shown != line or _COMMAND.search(line) or _DRIVER.search(line):
            skipping = True
            shown = "" if _COMMAND.search(line) or _DRIVER.search(line) else shown
        if _CARET.match(line) or (skipping and _PREFIX.match(shown)):
            continue
        cut = _VALUE.sub(r'\1"…"', shown)
        skipping = skipping or cut != shown
        kept.append(_without_values(cut))
    return "\n".join(kept)


def reason(text: str) -> str | None:
    """Return the first line with ERROR, FATAL or PANIC, because later errors are consequences of the first error."""
    return next((line.strip() for line in text.splitlines() if _SAYS_WHY.search(line)), None)


def _without_values(line: str) -> str:
    if not _SPEAKS_OF_A_VALUE.search(line):
        return line
    return _QUOTED.sub(lambda found: found[0] if found["name"] else '"…"', line)
