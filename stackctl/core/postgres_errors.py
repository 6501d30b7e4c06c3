"""Error texts without the rows of customers that PostgreSQL puts into them.

PostgreSQL repeats data in its errors: a failed COPY names the row in CONTEXT, a unique violation the key in DETAIL, a
failed statement its values in QUERY or STATEMENT (protocol-error-fields in its manual). What a program printed goes to
`status`, to CI's log, to history.jsonl and to the journal, so these fields are left out of it, and values are left out
of the ERROR line.

This is a filter of text, with one limit: an error that the app's own function raises (RAISE EXCEPTION), or that the app
words itself, is shown as the app wrote it.
"""

import re

_FIELDS = "DETAIL|HINT|CONTEXT|QUERY|STATEMENT|WHERE|LOCATION"
# psql's "DETAIL:  …", the server's log with its prefix before it, a driver's within a line of JSON or of Python.
_FIELD = re.compile(
    rf"(?:\\n|\b)(?:(?:{_FIELDS}):\s|LINE \d+: ).*|\bpg_\w+: (?:detail|hint): (?!Error message from server: ).*"
)
# What the server's log has before a field.
_PREFIX = re.compile(r"^\s*(?:\d{4}-\d\d-\d\d[ T][^\"]*)?$")
_COMMAND = re.compile(r"^(?:Command was|Query was): ")
# Drivers' own ways: node-postgres prints an object, SQLAlchemy the statement and its parameters.
_DRIVER = re.compile(r"^\s*(?:(?:detail|hint|where|internalQuery): |\[SQL: |\[parameters: )")
_CARET = re.compile(r"^\s*\^\s*$")
# A field may have several lines. It ends where something else plainly begins.
_NEXT = re.compile(
    r"^\s*$|^(?:psql|pg_\w+):|^[\w.]*(?:Error|Exception)\b|^Traceback |^(?:During|The above) |^\{|^\d{4}-\d\d-\d\d[ T]"
    r"|^(?:ERROR|FATAL|PANIC|WARNING|NOTICE|LOG):\s"
)
_SAYS_WHY = re.compile(r"(?:ERROR|FATAL|PANIC):\s+\S")
_SPEAKS_OF_A_VALUE = re.compile(
    r"(?:ERROR|FATAL|PANIC):\s|invalid input (?:syntax|value) for |malformed \w+ literal: |"
    r"out of range(?: for type \w+)?: "
)
# A value to the end of the message. It may have quotes and line ends in it, which PostgreSQL leaves as they are.
_VALUE = re.compile(
    r"((?:invalid input (?:syntax|value) for [^:]{1,200}|malformed \w+ literal|"
    r"\bout of range(?: for type [\w ]{1,200})?): \\*)\".*"
)
# Of what stands in double quotes, these are names.
_NAMED = (
    "column|constraint|relation|table|partition|index|view|sequence|schema|database|role|user|type|domain|function|"
    "operator|operator class|extension|parameter|encoding|trigger|policy|rule|collation|tablespace|publication|"
    "subscription|server|language|access method|snapshot|file|savepoint|cast|aggregate"
)
_QUOTED = re.compile(rf'(?P<name>\b(?:{_NAMED})(?: name)? )?"(?P<value>[^"]*)"(?!\w)')


def without_rows(text: str) -> str:
    """The same lines, without the fields and values that may have a row in them."""
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
    """The first line with an ERROR, a FATAL or a PANIC of PostgreSQL's; what follows it is a consequence of it."""
    return next((line.strip() for line in text.splitlines() if _SAYS_WHY.search(line)), None)


def _without_values(line: str) -> str:
    if not _SPEAKS_OF_A_VALUE.search(line):
        return line
    return _QUOTED.sub(lambda found: found[0] if found["name"] else '"…"', line)
