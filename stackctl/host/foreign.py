"""Finds everything that exists or is in force on the droplet without being declared.

`look` only reads. `remove` removes the findings with the given names.

The search finds things that somebody left behind, forgot or changed by hand. The search does not find an attacker with
root access, who could also change this program.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

from stackctl.core import openat
from stackctl.core.config import Config
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.host import declared, roles
from stackctl.host.findings import Finding, can_be_typed
from stackctl.host.foreign_accounts import MOST as MOST_KEYS
from stackctl.host.foreign_accounts import Accounts, parse_keys
from stackctl.host.foreign_files import Files
from stackctl.host.foreign_force import Force
from stackctl.host.packaged import Packaged

MOST_PROBLEMS = 20


class Foreign(NamedTuple):
    """The foreign things on a droplet.

    `known` is False until a converge has written the list of everything that the site declares.
    """

    known: bool
    findings: list[Finding]
    accepted: list[str]
    gone: list[str]
    """Accepted names that are no longer there."""


def look(paths: Paths, config: Config, machine: Machine, of_roles: Sequence[Finding] | None = None) -> Foreign:
    """Return everything that is foreign.

    `of_roles` has the findings in PostgreSQL, or is None if PostgreSQL did not answer.
    """
    ours = declared.load(paths)
    if ours is None:
        return Foreign(known=False, findings=[], accepted=[], gone=[])
    force = Force(paths, ours, config.operator, machine)
    accounts = Accounts(paths, ours, config.operator, force.key_files)
    files = Files(paths, ours, config.operator, Packaged(paths.root))
    there = files.findings()
    in_force = [
        one for one in force.findings() if one.path not in {file.name for file in there} or one.remedy != "hand"
    ]
    by_name = {one.name: one for one in [*accounts.findings(), *in_force, *there, *(of_roles or ())]}
    unknown = () if of_roles is not None else tuple(name for name in ours.accepted if name.startswith(roles.KIND))
    return Foreign(
        known=True,
        findings=[one for name, one in by_name.items() if name not in ours.accepted],
        accepted=[name for name in ours.accepted if name in by_name],
        # If the file of an accepted name still exists, but is no longer foreign, the name is not "gone", because such a
        # name does no harm.
        gone=[
            name for name in ours.accepted if name not in by_name and name not in unknown and not _is_there(paths, name)
        ],
    )


def _is_there(paths: Paths, name: str) -> bool:
    return name.startswith("/") and os.path.lexists(paths.root / name[1:])


def problems(found: Foreign) -> list[str]:
    """Return a line for each finding, with the next step."""
    if not found.known:
        return [
            "the list of what the site declares is missing, so stackctl cannot tell what is foreign. Next: make site"
        ]
    lines = [f"{one.name}: {one.what}. Next: {next_step(one)}" for one in found.findings[:MOST_PROBLEMS]]
    if len(found.findings) > MOST_PROBLEMS:
        lines.append(
            f"{len(found.findings) - MOST_PROBLEMS} more things are foreign. Next: sudo stackctl status --json"
        )
    return lines + [
        f"foreign_accepted names {name}, which the droplet no longer has. Next: remove that name from group_data"
        for name in found.gone
    ]


def next_step(one: Finding) -> str:
    """Return the command that an operator has to type, or the correction that the operator has to make."""
    match one.remedy:
        case "site":
            return "make site"
        case "remove" if can_be_typed(one.name):
            return f"make site REMOVE={one.name}, or accept that name in group_data (foreign_accepted)"
        case "refuse" if one.path and can_be_typed(one.path):
            return f"make site REMOVE={one.path}" if one.path.count("sshd_config.d/") else f"correct {one.path}"
    return "correct this by hand, or accept that name in group_data (foreign_accepted)"


def remove(paths: Paths, config: Config, machine: Machine, names: Sequence[str]) -> list[str]:
    """Remove the findings with the given names, and return these names.

    If one of the findings cannot be removed, remove no finding.
    """
    there = look(paths, config, machine)
    by_name = {one.name: one for one in there.findings}
    for name in names:
        if name not in by_name or by_name[name].remedy != "remove" or not can_be_typed(name):
            raise RefusedError(
                f"{name} is not the name of a foreign thing that can be removed. Nothing was changed",
                next_step="sudo stackctl status, which lists what can be removed",
            )
    for name in names:
        _remove(paths, machine, by_name[name])
    if any("/systemd/" in name or "/init.d/" in name for name in names):
        _run(machine, ["systemctl", "daemon-reload"])
    if any("sysctl" in name for name in names):
        _run(machine, ["systemctl", "restart", "systemd-sysctl.service"])
    return list(names)


def _remove(paths: Paths, machine: Machine, one: Finding) -> None:
    kind, _, rest = one.name.partition(":")
    match kind:
        case "account":
            # Without --force, userdel refuses to delete a second account with uid 0, because processes of that uid run.
            # The home directory is kept.
            _run(machine, ["userdel", "--force", rest])
        case "member":
            group, _, login = rest.partition(":")
            _run(machine, ["gpasswd", "--delete", login, group])
        case "key":
            _remove_key(paths, one, rest.partition(":")[2])
        case _:
            _remove_file(paths, machine, one)


def _remove_key(paths: Paths, one: Finding, key: str) -> None:
    """Remove a key from its file.

    The file is opened through directory descriptors, because root does not own the directory, and a planted link could
    lead anywhere.
    """
    *directories, name = str(one.path).strip("/").split("/")
    with openat.directory(paths.root, *directories) as directory:
        text = directory.read(name, MOST_KEYS).decode(errors="surrogateescape")
        gone = {found.number for found in parse_keys(text) if found.name == key}
        kept = [line for number, line in enumerate(text.splitlines(keepends=True), start=1) if number not in gone]
        fresh = f"{name}.new"
        with directory.creating(fresh, 0o600, directory.owner) as file:
            file.write("".join(kept).encode(errors="surrogateescape"))
        directory.rename(fresh, name)


def _remove_file(paths: Paths, machine: Machine, one: Finding) -> None:
    where = paths.root / str(one.path)[1:]
    if where.parent == paths.root / "etc/systemd/system" and not where.is_symlink():
        # Ignore a failure, because the unit may not be enabled.
        machine.run(["systemctl", "disable", "--now", where.name])
    where.unlink(missing_ok=True)


def _run(machine: Machine, argv: list[str]) -> None:
    ran = machine.run(argv)
    if ran.code:
        raise FailedError(f"{' '.join(argv)} failed: {ran.reason}")
