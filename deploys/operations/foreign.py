"""Operations for the foreign objects that stackctl found. The operations undo overrides and remove objects by name."""

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
    """Return the foreign objects in the stackctl status that was read for the plan.

    The list is empty if stackctl is not installed yet, or is an old version that does not look for foreign objects.
    """
    return list((planned(ctx_host.get()) or {}).get("foreign") or [])


@operation()
def undo_overrides(sysctls: str) -> Commands:
    """Remove masks from the site's units, and restore kernel parameters that somebody changed.

    + sysctls: path of the site's sysctl.d file
    """
    ours = [one for one in findings() if one["remedy"] == "site"]
    masks = [one["path"] for one in ours if one["path"] and "/systemd/" in one["path"]]
    if not masks and not any(one["name"].startswith("sysctl:") for one in ours):
        host.noop("nothing of the site is overridden")
        return
    for path in masks:
        # Do not use `systemctl unmask`, which would leave an empty file or a mask in /run behind.
        yield StringCommand("rm -f", QuoteString(path))
    if masks:
        yield StringCommand("systemctl daemon-reload")
    if any(one["name"].startswith("sysctl:") for one in ours):
        # Apply only the site's file, so that no other file overrides its values.
        yield StringCommand(SYSCTL, QuoteString(sysctls))


@operation()
def remove(names: Sequence[str], *, sshd: Handler) -> Commands:
    """Remove the foreign objects with these names. Names that are not found are skipped.

    + sshd: the handler that puts sshd's files in force. Foreign files of sshd are removed on trial.
    """
    there = {one["name"] for one in findings() if one["remedy"] == "remove"}
    gone = [name for name in names if name in there]
    if not gone:
        host.noop("none of the named objects exists")
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
    """Write the list of everything that the site puts on the droplet.

    The operation `declaration` runs last, when the list is complete.
    """
    declared.of(host).files.add(dest)
    content = declared.document(declared.of(host), accepted)
    yield from atomic_file._inner(dest=dest, content=content, mode="600")  # noqa: SLF001


def report(names: Sequence[str]) -> None:
    """Report foreign objects before the first change. Refuse the converge if a foreign object would override the site.

    + names: the names of the objects that this run removes
    """
    there = findings()
    this_run.tell_foreign(host, there)
    for name in names:
        if name not in {one["name"] for one in there}:
            host.log(f"{name} is not a foreign object, so nothing was removed for this name", logger.warning)
    overriding = [one for one in there if one["remedy"] == "refuse" and one["path"] not in names]
    if overriding:
        causes = "; ".join(one["what"] for one in overriding)
        remedies = ", then ".join(dict.fromkeys(one["next"] for one in overriding))
        this_run.refuse_to_begin(host, f"{causes}. Nothing was changed. Next: {remedies}")
