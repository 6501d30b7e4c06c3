"""Finds and applies the missing revisions of the schema, and determines which releases work with the schema."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stackctl.app.stack import Stack
from stackctl.app.state import Release, Revision
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.program import TIMED_OUT
from stackctl.services import compose

REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", re.ASCII)
"""The form in which migration tools name revisions."""


@dataclass(frozen=True)
class Report:
    """The answer of an image to `schema --json`."""

    current: str | None
    head: str | None
    pending: tuple[Revision, ...]


def read(stack: Stack, project: str, env: Mapping[str, str], release: Release) -> Report:
    """Run the image's `schema --json`, and return the answer.

    Raises FailedError if the answer is missing or breaks the app contract.
    """
    argv = compose.one_shot(project, stack.paths.app_yaml, _name(stack, "schema", release), "schema", "--json")
    ran = stack.machine.run(argv, env, stack.config.healthy_timeout)
    if ran.code:
        raise FailedError(f"`schema --json` failed (exit code {ran.code}): {ran.reason}", ran.tail())
    try:
        document = json.loads(ran.stdout.splitlines()[-1])
        pending = tuple(Revision(one["revision"], one["kind"]) for one in document["pending"])
        report = Report(document["current"], document["head"], pending)
    except (ValueError, LookupError, TypeError) as error:
        raise FailedError(
            f"the answer from `schema --json` does not follow the app contract ({error!r})", ran.tail()
        ) from None
    named = [*(one.revision for one in pending), *filter(None, (report.current, report.head))]
    if odd := [name for name in named if not REVISION.fullmatch(str(name))]:
        raise FailedError(
            f"{odd[0]!a} is not a valid revision name",
            next_step="name the revision with at most 128 letters, digits and the characters _ . + -",
        )
    if unknown := {one.kind for one in pending} - {"expand", "contract"}:
        raise FailedError(
            f"a revision has the unknown kind {', '.join(sorted(unknown))}",
            next_step="mark it as `expand` or `contract`",
        )
    return report


def first_breaking(coming: Sequence[Revision]) -> Revision | None:
    """Return the first revision that breaks a release which knows none of the given revisions, or None.

    An expand keeps older releases working. A contract removes the parts of the schema that the expand replaced. So a
    contract breaks only releases that are older than the expand.
    """
    kinds = [one.kind for one in coming]
    first = kinds.index("expand") if "expand" in kinds else len(kinds)
    return next((one for one in coming[first:] if one.kind == "contract"), None)


def migrate(stack: Stack, project: str, env: Mapping[str, str], release: Release) -> None:
    """Run the migrations. Raises FailedError if the migrations fail or take too long."""
    limit = stack.config.migrate_timeout
    argv = compose.one_shot(project, stack.paths.app_yaml, _name(stack, "migrate", release))
    ran = stack.machine.run(argv, env, limit)
    if ran.code == TIMED_OUT:
        what = f"migrations took longer than {limit} s"
        raise FailedError(what, ran.tail(), next_step="see what the migrations wait for (pg_stat_activity)")
    if ran.code:
        raise FailedError(f"migrations failed (exit code {ran.code})", ran.tail())


def applied(meant: Sequence[Revision], report: Report) -> tuple[Revision, ...]:
    """Return the revisions in `meant` that the database has.

    After a failed migration, some of these revisions are missing.
    """
    names = [one.revision for one in meant]
    if report.current in names:
        return tuple(meant[: names.index(report.current) + 1])
    return tuple(one for one in meant if one not in report.pending)


def release_conflict(applied: Sequence[Revision], report: Report, live: Release | None) -> RefusedError | None:
    """Return an error if the image cannot be released now, and None otherwise.

    The live release must keep working while the image migrates the database, and the image must work with the migrated
    database.
    """
    if live:
        names = [one.revision for one in applied]
        since = applied[names.index(live.schema) + 1 :] if live.schema in names else []
        if cut := first_breaking([*since, *report.pending]):
            return RefusedError(
                f"{cut.revision} is a contract, and {live.tag} is older than the expand before it",
                next_step="release the version with that expand migration first",
            )
    if not report.pending and (reason := _passed(applied, report.head)):
        return RefusedError(f"the image cannot work with the database: {reason}", next_step="release another image")
    return None


def incompatibility(applied: Sequence[Revision], target: Release) -> str | None:
    """Return why this release no longer works with the schema, or None."""
    if applied and target.schema not in [one.revision for one in applied]:
        return f"it is unknown which revisions came after {target.schema}"
    return _passed(applied, target.schema)


def _passed(applied: Sequence[Revision], head: str | None) -> str | None:
    names = [one.revision for one in applied]
    cut = first_breaking(applied[names.index(head) + 1 :]) if head in names else None
    return f"the later revision {cut.revision} is a contract migration" if cut else None


def named(revisions: Sequence[Revision]) -> str:
    """Return the revisions as text."""
    return ", ".join(f"{one.revision} ({one.kind})" for one in revisions) or "none"


def _name(stack: Stack, what: str, release: Release) -> str:
    return f"{stack.paths.app}-{what}-{release.id}"
