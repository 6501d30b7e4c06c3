"""`kill -9` of stackctl: what it leaves at a chosen moment, or at each of its moments in turn."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from stackctl.app.stack import Stack
from stackctl.release import watch
from tests.support.fakes.droplet import KILLED, Droplet, root_of, stackctl


def killed(droplet: Droplet, at: int, *arguments: str) -> Droplet | None:
    """Return the droplet after `kill -9` of stackctl at its call or event number `at`, or None if stackctl ended
    before.
    """
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.killed_at = 0, at
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # Otherwise a failure would continue as a second pytest.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return None
    assert code == KILLED, "stackctl raised"
    left: Droplet = pickle.loads((droplet.paths.var / "droplet.pickle").read_bytes())  # noqa: S301 - our own
    return left


def kills(droplet: Droplet, *arguments: str, every: int = 1) -> Iterator[tuple[int, Droplet]]:
    """Yield what `kill -9` of stackctl leaves at each of its moments in turn, or at every second one, and so on.

    One run in a process of its own copies its files whenever it could be killed, and so leaves all these states. A kill
    leaves exactly these files, since no lock and no memory outlives its process. `killed` shows it with a real kill.
    """
    root, aside = root_of(droplet), root_of(droplet).with_name("moments")
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.moments_kept = 0, aside
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # Otherwise a failure would continue as a second pytest.
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "stackctl raised"
    for at in sorted(int(path.name) for path in aside.iterdir())[::every]:
        shutil.rmtree(root)
        (aside / str(at)).rename(root)
        left: Droplet = pickle.loads((root / "droplet.pickle").read_bytes())  # noqa: S301 - our own
        left.moments_kept = None
        yield at, left
    shutil.rmtree(aside)


def killed_at(droplet: Droplet, where: tuple[Any, str], *arguments: str) -> Droplet:
    """Return what is left after `kill -9` at this function of a module or class. Its first argument is the stack."""

    def killed_here(stack: Stack, *_rest: object, **_named: object) -> None:
        there: Any = stack.machine
        there.killed_at = there.moments + 1
        there.now()

    with patch.object(*where, killed_here):
        left = killed(droplet, 0, *arguments)
    assert left
    return left


def killed_at_its_watch(droplet: Droplet, tag: str) -> Droplet:
    """Return what a release leaves that was killed after its flip: nginx points to it, and the release
    before is warm.
    """
    return killed_at(droplet, (watch, "watch"), "release", tag)
