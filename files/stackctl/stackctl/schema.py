"""The schema's revisions: what the database lacks, migrating it, and which release can still serve with it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import compose
from .errors import FailedError
from .machine import TIMED_OUT
from .stack import Stack
from .state import Release, Revision

READ_TIMEOUT = 60


@dataclass(frozen=True)
class Report:
    """What the image says with `schema --json`."""

    current: str | None
    head: str | None
    pending: tuple[Revision, ...]


def read(stack: Stack, project: str, env: Mapping[str, str], release: Release) -> Report:
    """FailedError when the image can't say, or not in the contract's form."""
    argv = compose.one_shot(project, stack.paths.app_yaml, _name(stack, "schema", release), "schema", "--json")
    ran = stack.machine.run(argv, env, READ_TIMEOUT)
    if ran.code:
        raise FailedError(f"`schema --json` failed (exit code {ran.code}): {ran.reason}", ran.tail())
    try:
        document = json.loads(ran.stdout.splitlines()[-1])
        pending = tuple(Revision(one["revision"], one["kind"]) for one in document["pending"])
        report = Report(document["current"], document["head"], pending)
    except (ValueError, LookupError, TypeError) as error:
        raise FailedError(f"`schema --json` isn't of the contract's form ({error!r})", ran.tail()) from None
    if unknown := {one.kind for one in pending} - {"expand", "contract"}:
        raise FailedError(f"a revision's kind is {', '.join(sorted(unknown))}: mark it expand or contract")
    return report


def cutting(coming: Sequence[Revision]) -> Revision | None:
    """The first of these that a release which knows none of them can't live with, or None.

    An expand leaves it all that it needs. A contract takes away what its expand made needless: a release that is newer
    than the expand lives with that, an older one doesn't.
    """
    kinds = [one.kind for one in coming]
    first = kinds.index("expand") if "expand" in kinds else len(kinds)
    return next((one for one in coming[first:] if one.kind == "contract"), None)


def migrate(stack: Stack, project: str, env: Mapping[str, str], release: Release) -> None:
    """FailedError when they fail, or don't end in time."""
    limit = stack.config.migrate_timeout
    argv = compose.one_shot(project, stack.paths.app_yaml, _name(stack, "migrate", release))
    ran = stack.machine.run(argv, env, limit)
    if ran.code == TIMED_OUT:
        what = f"migrations took longer than {limit} s: see what they wait for (pg_stat_activity), then release again"
        raise FailedError(what, ran.tail())
    if ran.code:
        raise FailedError(f"migrations failed (exit code {ran.code}): mend them, then release", ran.tail())


def applying(applied: Sequence[Revision], pending: Sequence[Revision]) -> tuple[Revision, ...]:
    """What will have been applied: those that an earlier run meant to and that are pending still count once."""
    return (*(one for one in applied if one not in pending), *pending)


def barred(applied: Sequence[Revision], target: Release) -> str | None:
    """Why this release can't serve with the schema any more, or None."""
    names = [one.revision for one in applied]
    if target.schema not in names:
        return f"which revisions came after its {target.schema} isn't known" if names else None
    cut = cutting(applied[names.index(target.schema) + 1 :])
    return f"the schema has moved past it ({cut.revision} is a contract)" if cut else None


def named(revisions: Sequence[Revision]) -> str:
    """For people."""
    return ", ".join(f"{one.revision} ({one.kind})" for one in revisions) or "none"


def _name(stack: Stack, what: str, release: Release) -> str:
    return f"{stack.paths.app}-{what}-{release.id}"
