"""Runs one verb of stackctl on each droplet of an environment, and shows the output.

The entry scripts use this module.
"""

from __future__ import annotations

import shlex

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.facts.server import Which
from pyinfra.operations import server

from deploys.config.environments import environment_among
from deploys.terminal import screen
from stackctl.cli import background
from stackctl.core.paths import Paths


def run(name: str, *words: str, group: str | None = None) -> None:
    """Run `stackctl` with `words` if the host is in `group`. Raises PyinfraError if stackctl is not installed."""
    if group and group not in host.groups:
        return
    environment = environment_among(host.groups)
    if not host.get_fact(Which, command="stackctl"):
        raise PyinfraError(f"{host.name} is not set up yet. Nothing was changed. Next: make site ENV={environment}")
    screen.on_interrupt(interrupt_message(words[0], environment))
    state.print_output = True
    server.shell(name=name, commands=[shlex.join(["stackctl", *words])])


def interrupt_message(verb: str, environment: str) -> str:
    """Return the text to print on Ctrl-C. The text says what continues, and how to follow, end or undo the run."""
    there = f"  ssh -F {host.data.ssh_config_file} {host.name} sudo"
    if verb in background.VERBS:
        follow = "restore --follow" if verb == "restore" else "release --follow"
        back = (
            ""
            if verb == "restore"
            else f"\n  make rollback ENV={environment}{' ' * 20}undoes the {verb} once it is live"
        )
        return (
            f"Interrupted here. If the {verb} had begun, the {verb} continues on {host.name}:\n"
            f"{there} stackctl {follow}    shows its progress\n"
            f"{there} systemctl stop {Paths(host.data.app).units.release}    ends and undoes the {verb}{back}"
        )
    if verb == "backup":
        return (
            f"Interrupted here. If the backup had begun, the backup continues on {host.name}:\n"
            f"{there} stackctl list-backups    shows whether the backup succeeded"
        )
    return "Interrupted. Nothing was changed."
