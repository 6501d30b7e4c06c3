"""The gate accepts its grammar and refuses every other request of CI's key."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stackctl.cli import gate
from stackctl.core.errors import RefusedError

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
ID = "0123456789abcdef" * 2
ALLOWED = [
    "release 1.2.0",
    "release 1.2.0 --dry-run",
    "release 1.2.0 --json",
    "release 1.2.0 --dry-run --json",
    f"release 1.2.0@{DIGEST}",
    f"release 1.2.0@{DIGEST} --dry-run --json",
    f"release {'a' * 128}",
    f"release 1.2.0 --id {ID}",
    f"release 1.2.0@{DIGEST} --dry-run --json --id {ID}",
    "release --follow",
    f"release --follow --id {ID}",
    f"release --follow --json --id {ID}",
    "release --follow --json",
    "rollback",
    "rollback --json",
    "rollback 1.1.0",
    "rollback 1.1.0 --json",
    f"rollback --id {ID}",
    f"rollback 1.1.0 --json --id {ID}",
    "status",
    "status --json",
]
REFUSED = [
    "",
    " ",
    "release",
    "release ",
    "release --dry-run",
    "release --json",
    "release --lock-id x 1.0",
    "--lock-id x release 1.0",
    "release 1.0 --lock-id x",
    "release 1.0 --lock-id=x",
    "release --run x 1.0",
    "release 1.0 --id",
    "release 1.0 --id ",
    "release 1.0 --id x",
    "release 1.0 --id ../../x",
    f"release 1.0 --id={ID}",
    f"release 1.0 --id {ID}0",
    f"release 1.0 --id {ID[1:]}",
    f"release 1.0 --id {ID.upper()}",
    f"release 1.0 --id {ID[1:]}\u0661",
    f"release 1.0 --id {ID} --id {ID}",
    f"release 1.0 --id {ID} --json",
    f"release --id {ID} 1.0",
    f"release --id {ID}",
    f"release 1.0 {ID}",
    f"--id {ID} release 1.0",
    f"release --follow 1.0 --id {ID}",
    f"status --id {ID}",
    "release 1.0 --dry",
    "release 1.0 --follow",
    "release --follow 1.0",
    "release 1.0 --dry-run --dry-run",
    "release 1.0 --json --dry-run",
    "release 1.0 1.1",
    "release -h",
    "release  1.0",
    "release 1.0 ",
    " release 1.0",
    "release\t1.0",
    "release 1.0\n",
    "release 1.0\nexec id",
    "release 1.0\0",
    "release 1.0;id",
    "release $(id)",
    "release `id`",
    "release 1.0 && id",
    "release 'a b'",
    "release a/b",
    "release a+b",
    "release ../../x",
    "release example.com/image:1.0",
    "release 1.0@sha256:abc",
    f"release 1.0@{DIGEST}0",
    f"release 1.0@{DIGEST.upper()}",
    f"release @{DIGEST}",
    f"release {'a' * 129}",
    "release \u0661",
    f"rollback 1.0@{DIGEST}",
    "rollback 1.0 --dry-run",
    "status --help",
    "status 1.0",
    "STATUS",
    "exec id",
    "exec -- id",
    "gate status",
    "gate -- status",
    "-- status",
    "history",
    "logs",
    "maintenance on",
    "backup",
    "boot",
    "halt",
    "certificate",
    "id",
    "bash",
    "/usr/lib/openssh/sftp-server",
    "scp -t /etc",
    "rsync --server . /",
]


@pytest.mark.parametrize("command", ALLOWED)
def test_allowed(command: str) -> None:
    assert gate.parse(command) == command.split()


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command: str) -> None:
    with pytest.raises(RefusedError):
        gate.parse(command)


def test_a_refusal_says_what_is_allowed_in_one_line_that_is_safe_to_show() -> None:
    with pytest.raises(RefusedError) as caught:
        gate.parse("exec \x1b[2J\n\udc80\u202e" + "x" * 10_000)
    said = str(caught.value)
    assert "release TAG" in said
    assert "status" in said
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 400


words = st.sampled_from(
    [*{word for command in [*ALLOWED, *REFUSED] for word in command.split()}, "-", "--", "\n", "", " "]
)
sentences = st.lists(words, max_size=6).flatmap(
    lambda said: st.sampled_from([" ", "  ", "\t", "\n"]).map(lambda s: s.join(said))
)
mutations = st.tuples(st.sampled_from(ALLOWED), st.integers(0, 80), st.text(min_size=1, max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
)


@given(st.text() | sentences | mutations)
@example("status --json")
@example("release a/b")
@example("release a+b")
@example("rollback a/b")
def test_nothing_but_the_grammar_gets_through(command: str) -> None:
    """The test states the gate's grammar a second time, in a different way from gate.py."""
    try:
        arguments = gate.parse(command)
    except RefusedError:
        return
    assert " ".join(arguments) == command
    assert re.fullmatch(r"[A-Za-z0-9_.:@ -]{1,290}", command)
    verb, *rest = arguments
    if rest[-2:-1] == ["--id"]:
        assert verb in {"release", "rollback"}
        assert re.fullmatch("[0-9a-f]{32}", rest[-1])
        rest = rest[:-2]
    options = [word for word in rest if word.startswith("-")]
    operands = [word for word in rest if not word.startswith("-")]
    assert set(options) <= {"release": {"--dry-run", "--json", "--follow"}}.get(verb, {"--json"})
    assert len(options) == len(set(options))
    match verb:
        case "release":
            assert len(operands) == ("--follow" not in options)
            assert not {"--follow", "--dry-run"} <= set(options)
        case "rollback":
            assert len(operands) <= 1
        case _:
            assert (verb, operands) == ("status", [])
    for operand in operands:
        tag, at, digest = operand.partition("@")
        assert 1 <= len(tag) <= 128
        assert tag[0] not in ".-"
        assert not at or re.fullmatch("sha256:[0-9a-f]{64}", digest)
