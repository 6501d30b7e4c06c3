"""Files placed whole: compared in one command, written over standard input, renamed into place.

Why not pyinfra's files.put: it stages in /tmp, writes in place, shows content in `--diff`, and a run that dies between
the change and the reload never reloads.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import PurePosixPath

from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.files import FileContents
from pyinfra.operations import files
from pyinfra.operations.util.files import generate_color_diff

from deploys.facts.files import Placed
from deploys.operations import Commands


@operation()
def place(  # noqa: PLR0913 - a file has this many properties
    dest: str,
    content: bytes,
    *,
    mode: str = "644",
    owner: str = "root",
    group: str = "root",
    owes: str | None = None,
    secret: bool = False,
) -> Commands:
    """Puts `content` at `dest` atomically, with its directory.

    + owes: path of the marker that says a reload is owed (settings.owed); written before the change
    + secret: `--diff` says only that it differs. Content never shows in an argument list: it travels on standard input.
    """
    placed = host.get_fact(Placed, path=dest)
    wanted = sha256(content).hexdigest()
    if placed and placed["sha256"] == wanted:
        if (placed["mode"], placed["owner"], placed["group"]) == (mode, owner, group):
            host.noop(f"{dest} is as declared")
            return
    elif state.config.DIFF and not secret:
        _show_difference(dest, content)

    if owes:
        yield StringCommand("install -D -m 600 /dev/null", QuoteString(owes))
    target, fresh = QuoteString(dest), QuoteString(f"{dest}.new")
    yield StringCommand(
        *("mkdir -p", QuoteString(str(PurePosixPath(dest).parent)), "&&"),
        *("base64 -d | install -T", "-m", mode, "-o", owner, "-g", group, "/dev/stdin", fresh, "&&"),
        # A client that dies while it sends leaves a file that is cut short: it must not take the place of the old one.
        *('test "$(stat -c %s', fresh, f')" = {len(content)}', "&&"),
        *("mv -fT", fresh, target),
        _stdin=b64encode(content).decode(),
    )


@operation()
def private_directory(path: str) -> Commands:
    """One that root alone looks into."""
    yield from files.directory._inner(path=path, mode="700", user="root", group="root")  # noqa: SLF001


def _show_difference(dest: str, content: bytes) -> None:
    try:
        wanted = content.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        host.log(f"{dest} differs (binary)", logger.info)
        return
    there = [f"{line}\n" for line in host.get_fact(FileContents, path=dest) or []]
    host.log(f"{dest} differs:", logger.info)
    for line in generate_color_diff(there, wanted):
        logger.info("  %s", line)
