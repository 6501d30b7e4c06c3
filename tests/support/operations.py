"""Run a pyinfra operation with given facts, without a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from pyinfra.api import FactBase
from pyinfra.context import ctx_host, ctx_state

from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler

Facts = dict[type[FactBase[Any]], Any]


@contextmanager
def droplet(facts: Facts, *, executing: bool = True) -> Iterator[None]:
    host = SimpleNamespace(
        name="droplet",
        data=SimpleNamespace(app="app"),
        get_fact=lambda fact, **_: facts[fact],
        noop=lambda _: None,
        log=lambda *_: None,
        current_op_global_arguments=None,
    )
    state = SimpleNamespace(is_executing=executing, config=SimpleNamespace(DIFF=False))
    with ctx_state.use(state), ctx_host.use(host):
        yield


def commands(operation: Any, facts: Facts, *, executing: bool = True, **arguments: Any) -> list[str]:
    with droplet(facts, executing=executing):
        return [str(command) for command in operation._inner(**arguments)]


CONTENT = b"content\n"
PLACED = {"mode": "600", "owner": "root", "group": "root", "sha256": sha256(CONTENT).hexdigest()}
HANDLER = Handler("x", ["reload"])
MARKER = "/var/lib/app/owed/x"


def placed(facts: Facts, **arguments: Any) -> list[str]:
    """Return the commands that place a file /etc/x/y."""
    return commands(atomic_file, facts, dest="/etc/x/y", content=CONTENT, mode="600", **arguments)
