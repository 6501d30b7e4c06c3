"""The verb restore."""

import argparse

from stackctl.cli.call import Call
from stackctl.core import lock
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.paths import Paths
from stackctl.restore import restore as restoring
from stackctl.restore.plan import check_answer
from stackctl.restore.run import Request


def restore(call: Call) -> int:
    restoring.restore(call.stack, _asked(call.arguments))
    return 0


def subject(arguments: argparse.Namespace, _paths: Paths) -> str:
    beside = f" --to-database {arguments.to_database}" if arguments.to_database else ""
    return f"{arguments.backup}{beside}"


def words(call: Call) -> list[str]:
    """Return the request as arguments for a second stackctl process."""
    try:
        return _confirmed(call)
    except KeyboardInterrupt:
        raise FailedError("the restore was interrupted. Nothing was changed") from None


def _confirmed(call: Call) -> list[str]:
    """Show the plan and ask the operator, unless the command line confirms the restore."""
    stack, asked = call.stack, _asked(call.arguments)
    if not asked.yes and not asked.to_database:
        with lock.hold(call.paths, call.held_for("plan of stackctl restore")):
            chosen = restoring.look(stack, asked).id
        answer = call.machine.prompt(f"Type {chosen} to replace the live data with this backup: ")
        asked = asked._replace(backup=chosen, yes=answer)
        check_answer(asked, chosen)
    return asked.words


def _asked(arguments: argparse.Namespace) -> Request:
    if not arguments.backup:
        raise RefusedError(
            "no backup was named", next_step="stackctl list-backups, then stackctl restore with an ID or latest"
        )
    return Request(
        arguments.backup,
        arguments.from_offsite,
        arguments.to_database,
        arguments.yes,
        not arguments.no_safety,
        arguments.snapshot,
    )
