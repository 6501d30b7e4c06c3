"""What nobody declared, by stackctl's word: put right where it overrides us, removed where it is named."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra import host, logger
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts.stackctl import planned
from deploys.internals import ctx_host
from deploys.operations import Commands, declared, this_run
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler
from deploys.operations.trial import on_trial
from stackctl.cli.background import PROGRAM

SYSCTL = "/usr/lib/systemd/systemd-sysctl"

Finding = dict[str, Any]


def findings() -> list[Finding]:
    """What a plan saw. None on a droplet that has no stackctl yet, or one of before."""
    return list((planned(ctx_host.get()) or {}).get("foreign") or [])


@operation()
def undo_overrides(sysctls: str) -> Commands:
    """Unmasks what somebody masked, and sets the kernel's parameters that somebody changed.

    + sysctls: the path of our sysctl.d file
    """
    ours = [one for one in findings() if one["remedy"] == "site"]
    masks = [one["path"] for one in ours if one["path"] and "/systemd/" in one["path"]]
    if not masks and not any(one["name"].startswith("sysctl:") for one in ours):
        host.noop("nothing of the site is switched off")
        return
    for path in masks:
        # Not `systemctl unmask`, which leaves an empty file and one in /run.
        yield StringCommand("rm -f", QuoteString(path))
    if masks:
        yield StringCommand("systemctl daemon-reload")
    if any(one["name"].startswith("sysctl:") for one in ours):
        # Ours alone, and so after any other file.
        yield StringCommand(SYSCTL, QuoteString(sysctls))


@operation()
def remove(names: Sequence[str], *, sshd: Handler) -> Commands:
    """Removes what is foreign and named. A name that is not there is gone already.

    + sshd: the handler that puts sshd's files in force; what is removed of them is on trial
    """
    there = {one["name"] for one in findings() if one["remedy"] == "remove"}
    gone = [name for name in names if name in there]
    if not gone:
        host.noop("nothing that is named is there")
        return
    of_sshd = [name for name in gone if name.startswith("/etc/ssh/sshd_config.d/")]
    others = [name for name in gone if name not in of_sshd]
    if others:
        yield StringCommand(PROGRAM, "remove-foreign", shlex.join(others))
    if of_sshd:
        removal = StringCommand(PROGRAM, "remove-foreign", shlex.join(of_sshd))
        yield from on_trial("ssh", [removal, *map(StringCommand, sshd.commands)])


@operation()
def declaration(dest: str, accepted: Mapping[str, str]) -> Commands:
    """Tells stackctl what the site put here; the last of what places anything."""
    declared.of(host).files.add(dest)
    content = declared.document(declared.of(host), accepted)
    yield from atomic_file._inner(dest=dest, content=content, mode="600")  # noqa: SLF001


def report(names: Sequence[str]) -> None:
    """Says before the first change what is foreign; a converge that would be overridden stops there.

    + names: what this run removes
    """
    there = findings()
    this_run.tell_foreign(host, there)
    for name in names:
        if name not in {one["name"] for one in there}:
            host.log(f"{name} is not among what is foreign: nothing is removed for it", logger.warning)
    overriding = [one for one in there if one["remedy"] == "refuse" and one["path"] not in names]
    if overriding:
        causes = "; ".join(f"{one['what']}. Next: {one['next']}" for one in overriding)
        this_run.refuse_to_begin(host, f"{causes}. Nothing was changed")
