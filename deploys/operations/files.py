"""Operations that write files atomically.

One command compares the old file, and a second command writes the new file beside the old file and renames the new
file.

pyinfra's files.put would stage the file in /tmp, overwrite the old file and show secrets in `--diff`.
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
    """Write `content` to `dest` atomically. A missing directory is created.

    + notify: the handler that puts the file in force. The handler is marked as pending before the change.
    + validate: a shell command that tests the new file (`%s` is its path). If the test fails, the old file stays.
    + secret: whether pyinfra's `--diff` hides the content. Even without `secret`, the content is sent over standard
      input, and never in an argument list.
    """
    declared.of(host).files.add(dest)
    found = host.get_fact(FileState, path=dest)
    wanted = sha256(content).hexdigest()
    if found and found["sha256"] == wanted:
        if (found["mode"], found["owner"], found["group"]) == (mode, owner, group):
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
        # If the connection breaks, the new file may be truncated. A truncated file must not replace the old file.
        *('test "$(stat -c %s', fresh, f')" = {len(content)}', "&&"),
        *(_test(validate, dest) if validate else ()),
        *("mv -fT", fresh, target),
        _stdin=b64encode(content).decode(),
    )


def _test(validate: str, dest: str) -> tuple[str | QuoteString, ...]:
    """Return the command that tests the new file.

    If the test fails, the command shows the output of the test and removes the new file.
    """
    fresh = shlex.quote(f"{dest}.new")
    refused = f"{dest}: the new file is invalid, see above. The old file stays, and nothing was reloaded."
    return (
        f"{{ said=$( {{ {validate.replace('%s', fresh)}; }} 2>&1 ) ||",
        *(f'{{ echo "$said" >&2; rm -f {fresh}; echo', QuoteString(refused), ">&2; false; }; }", "&&"),
    )


def if_installed(program: str, validate: str) -> str:
    """Return a test that only runs if `program` is installed. Some files are written before the installation."""
    return f"command -v {program} >/dev/null || exit 0; {{ {validate}; }}"


@operation()
def private_directory(path: str) -> Commands:
    """Create a directory that only root can read."""
    yield from files.directory._inner(path=path, mode="700", user="root", group="root")  # noqa: SLF001


def _show_difference(dest: str, content: bytes) -> None:
    try:
        wanted = content.decode().splitlines()
    except UnicodeDecodeError:
        host.log(f"{dest} differs (binary)", logger.info)
        return
    show_difference(dest, host.get_fact(FileContents, path=dest) or [], wanted)


def show_difference(what: str, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Show a difference in the format of `diff`, in colour.

    Make the lines printable, because anybody may have written the file.
    """
    host.log(f"{what} differs:", logger.info)
    for line in generate_color_diff(*([f"{printable(one)}\n" for one in lines] for lines in (there, wanted))):
        logger.info("  %s", line)
