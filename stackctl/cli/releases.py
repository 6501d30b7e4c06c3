"""The verbs `release` and `rollback`."""

import argparse
from contextlib import suppress

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.cli.call import Call
from stackctl.core.errors import RefusedError, StackError
from stackctl.core.paths import Paths
from stackctl.release import release as releasing
from stackctl.release import rollback as rolling_back


def release(call: Call) -> int:
    asked = call.arguments
    _refuse_during_restore(call.stack)
    releasing.release(call.stack, asked.tag, keep_image=asked.lock_id is not None, dry_run=asked.dry_run)
    return 0


def rollback(call: Call) -> int:
    _refuse_during_restore(call.stack)
    rolling_back.rollback(call.stack, call.arguments.tag)
    return 0


def subject(arguments: argparse.Namespace, paths: Paths) -> str:
    """Return the tag. For a rollback without a tag, return the tag of the release that the rollback would make live."""
    tag = arguments.tag or ""
    if arguments.verb == "rollback" and not tag:
        with suppress(StackError):
            return rolling_back.target(state.load(paths), None).tag
    return tag


def words(call: Call) -> list[str]:
    """Return the request as arguments for a second stackctl process."""
    asked = call.arguments
    if asked.verb == "release" or asked.tag:
        releasing.parse(asked.tag or "")
    dry_run = ["--dry-run"] if getattr(asked, "dry_run", False) else []
    return [*dry_run, *(["--id", asked.id] if asked.id else []), *([asked.tag] if asked.tag else [])]


def _refuse_during_restore(stack: Stack) -> None:
    half = unfinished_restore.load(stack.paths)
    if half and not half.placed:
        raise RefusedError(half.remedy)
