"""The schema's revisions: what the database lacks, migrating it, and which release can still serve with it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stackctl.app.stack import Stack
from stackctl.app.state import Release, Revision
from stackctl.core.errors import FailedError
from stackctl.core.program import TIMED_OUT
from stackctl.services import compose

READ_TIMEOUT = 60
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", re.ASCII)
"""As migration tools name theirs."""


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
    named = [*(one.revision for one in pending), *filter(None, (report.current, report.head))]
    if odd := [name for name in named if not REVISION.fullmatch(str(name))]:
        raise FailedError(f"{odd[0]!a} is no revision's name: letters, digits, _ . + - and at most 128 of them")
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
        what = f"migrations took longer than {limit} s: see what they wait for (pg_stat_activity)"
        raise FailedError(what, ran.tail())
    if ran.code:
        raise FailedError(f"migrations failed (exit code {ran.code})", ran.tail())


def applied(meant: Sequence[Revision], report: Report) -> tuple[Revision, ...]:
    """Of those that releases meant to apply, the ones that the database has: a migration may have failed."""
    names = [one.revision for one in meant]
    if report.current in names:
        return tuple(meant[: names.index(report.current) + 1])
    return tuple(one for one in meant if one not in report.pending)


def conflict(applied: Sequence[Revision], report: Report, live: Release | None) -> str | None:
    """Why this image can't be released now, or None: what is live has to serve while it migrates, and it afterwards."""
    if live:
        names = [one.revision for one in applied]
        since = applied[names.index(live.schema) + 1 :] if live.schema in names else []
        if cut := cutting([*since, *report.pending]):
            return (
                f"{cut.revision} is a contract, and {live.tag} is older than its expand: release the version that "
                "expands first"
            )
    if not report.pending and (reason := _passed(applied, report.head)):
        return f"it can't serve: {reason}: release a version that can"
    return None


def barred(applied: Sequence[Revision], target: Release) -> str | None:
    """Why this release can't serve with the schema any more, or None."""
    if applied and target.schema not in [one.revision for one in applied]:
        return f"which revisions came after its {target.schema} isn't known"
    return _passed(applied, target.schema)


def _passed(applied: Sequence[Revision], head: str | None) -> str | None:
    names = [one.revision for one in applied]
    cut = cutting(applied[names.index(head) + 1 :]) if head in names else None
    return f"the schema has moved past it ({cut.revision} is a contract)" if cut else None


def named(revisions: Sequence[Revision]) -> str:
    """For people."""
    return ", ".join(f"{one.revision} ({one.kind})" for one in revisions) or "none"


def _name(stack: Stack, what: str, release: Release) -> str:
    return f"{stack.paths.app}-{what}-{release.id}"
