"""Kill stackctl with `kill -9` at a chosen moment, or at each moment in turn, and return the droplet's state."""

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
    """Return the droplet after `kill -9` of stackctl at call or event `at`, or None if stackctl ended earlier."""
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.killed_at = 0, at
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # Otherwise, after a failure, this child process would go on as a second pytest.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return None
    assert code == KILLED, "stackctl raised"
    left: Droplet = pickle.loads((droplet.paths.var / "droplet.pickle").read_bytes())  # noqa: S301 - our own
    return left


def kills(droplet: Droplet, *arguments: str, every: int = 1) -> Iterator[tuple[int, Droplet]]:
    """Yield the droplet after `kill -9` of stackctl at each moment. With every=2, use every second moment, and so on.

    stackctl runs once in a separate process, which copies the droplet's files at each moment. A kill would leave
    exactly these files, because no lock and no memory outlives its process. `killed`, which really kills stackctl,
    shows that the files are the same.
    """
    root, aside = root_of(droplet), root_of(droplet).with_name("moments")
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.moments_kept = 0, aside
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # Otherwise, after a failure, this child process would go on as a second pytest.
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "stackctl raised"
    for at in sorted(int(path.name) for path in aside.iterdir())[::every]:
        shutil.rmtree(root)
        (aside / str(at)).rename(root)
        left: Droplet = pickle.loads((root / "droplet.pickle").read_bytes())  # noqa: S301 - our own
        left.moments_kept = None
        yield at, left
    shutil.rmtree(aside)


def killed_at(droplet: Droplet, where: tuple[Any, str], *arguments: str) -> Droplet:
    """Return the droplet after `kill -9` at the function `where`, whose first argument must be the stack."""

    def killed_here(stack: Stack, *_rest: object, **_named: object) -> None:
        there: Any = stack.machine
        there.killed_at = there.moments + 1
        there.now()

    with patch.object(*where, killed_here):
        left = killed(droplet, 0, *arguments)
    assert left
    return left


def killed_at_its_watch(droplet: Droplet, tag: str) -> Droplet:
    """Return the droplet after a release was killed after its flip, while the previous release still runs."""
    return killed_at(droplet, (watch, "watch"), "release", tag)
