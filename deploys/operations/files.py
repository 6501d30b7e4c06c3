"""Files placed whole: compared in one command, written over standard input, renamed into place.

Why not pyinfra's files.put: it stages in /tmp, writes in place, shows content in `--diff`, and a run that dies between
the change and the reload never reloads.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import PurePosixPath

from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.files import FileContents
from pyinfra.operations import files

from deploys.facts.files import FileState
from deploys.internals import generate_color_diff
from deploys.operations import Commands, declared
from deploys.operations.handlers import Handler
from stackctl.core.printable import printable


@operation()
def atomic_file(  # noqa: PLR0913 - a file has this many properties
    dest: str,
    content: bytes,
    *,
    mode: str = "644",
    owner: str = "root",
    group: str = "root",
    notify: Handler | None = None,
    secret: bool = False,
    validate: str | None = None,
) -> Commands:
    """Puts `content` at `dest` atomically, with its directory.

    + notify: the handler that puts the file in force; marked as pending before the change
    + validate: a shell command that tests the new file, `%s` (Ansible's word), before it takes the old one's place;
      when it fails, the old one stays
    + secret: `--diff` says only that it differs. Content never shows in an argument list: it travels on standard input.
    """
    declared.of(host).files.add(dest)
    placed = host.get_fact(FileState, path=dest)
    wanted = sha256(content).hexdigest()
    if placed and placed["sha256"] == wanted:
        if (placed["mode"], placed["owner"], placed["group"]) == (mode, owner, group):
            host.noop(f"{dest} is as declared")
            return
    elif state.config.DIFF and not secret:
        _show_difference(dest, content)

    if notify:
        yield notify.notify()
    target, fresh = QuoteString(dest), QuoteString(f"{dest}.new")
    yield StringCommand(
        *("mkdir -p", QuoteString(str(PurePosixPath(dest).parent)), "&&"),
        *("base64 -d | install -T", "-m", mode, "-o", owner, "-g", group, "/dev/stdin", fresh, "&&"),
        # A client that dies while it sends leaves a file that is cut short: it must not take the place of the old one.
        *('test "$(stat -c %s', fresh, f')" = {len(content)}', "&&"),
        *(_tested(validate, dest) if validate else ()),
        *("mv -fT", fresh, target),
        _stdin=b64encode(content).decode(),
    )


def _tested(validate: str, dest: str) -> tuple[str | QuoteString, ...]:
    """What the program says is shown when it refuses the file, which is then removed."""
    fresh = shlex.quote(f"{dest}.new")
    refused = f"{dest} is refused, as said above. The file that was there stays, and nothing was put in force."
    return (
        f"{{ said=$( {{ {validate.replace('%s', fresh)}; }} 2>&1 ) ||",
        *(f'{{ echo "$said" >&2; rm -f {fresh}; echo', QuoteString(refused), ">&2; false; }; }", "&&"),
    )


def if_installed(program: str, validate: str) -> str:
    """The same test, where the program is there already: some files are placed before it first runs."""
    return f"command -v {program} >/dev/null || exit 0; {{ {validate}; }}"


@operation()
def private_directory(path: str) -> Commands:
    """One that root alone looks into."""
    yield from files.directory._inner(path=path, mode="700", user="root", group="root")  # noqa: SLF001


def _show_difference(dest: str, content: bytes) -> None:
    try:
        wanted = content.decode().splitlines()
    except UnicodeDecodeError:
        host.log(f"{dest} differs (binary)", logger.info)
        return
    show_difference(dest, host.get_fact(FileContents, path=dest) or [], wanted)


def show_difference(what: str, there: Sequence[str], wanted: Sequence[str]) -> None:
    """As `diff` has it, in colour. The lines are made printable: those that are there may be anybody's."""
    host.log(f"{what} differs:", logger.info)
    for line in generate_color_diff(*([f"{printable(one)}\n" for one in lines] for lines in (there, wanted))):
        logger.info("  %s", line)
