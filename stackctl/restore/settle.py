"""Settles a restore that the end of the droplet interrupted, so that the site comes back without a person.

`boot` calls these functions. `boot` holds the lock `work`, which a restore holds from start to end, so no restore is
running. An interrupted restore is treated like a failed restore: if not all restored data is in place, the restore is
undone, or else the restore is finished. If either is impossible, the marker stays. Then the bot stays closed, and
`status` names the command that continues the restore.
"""

from collections.abc import Callable
from contextlib import suppress

from stackctl.app import unfinished_restore
from stackctl.app.stack import Stack
from stackctl.app.unfinished_restore import Record
from stackctl.backup import create, partial
from stackctl.core.errors import FailedError, StackError
from stackctl.restore import swap
from stackctl.restore.run import Request, RestoreRun, forget_former
from stackctl.services.postgres import Postgres


def undo(stack: Stack) -> None:
    """Bring the former data back if not all data of an interrupted restore is in place. The app starts afterwards."""
    record = _marker(stack)
    if record and not record.placed:
        _settle(stack, record, "undo", _undo, f". Next: sudo stackctl restore {record.id}")


def finish(stack: Stack) -> None:
    """Finish an interrupted restore if all its data is in place. The app has started and is healthy."""
    record = _marker(stack)
    if record and record.placed:
        _settle(stack, record, "finish", _finish)


def remove_leftovers(stack: Stack) -> None:
    """Remove the leftovers of runs that were killed before they could change anything live.

    The next backup tries again if this fails, so a failure is only recorded.
    """
    if not stack.paths.restoring.exists():
        _try(stack, "tidy", lambda: _remove_leftovers(stack), "remove the leftovers of killed runs")


def _marker(stack: Stack) -> Record | None:
    if stack.is_copy:
        return None  # no app runs on a copy, and a person may want to look at the data
    with suppress(FailedError):  # `lifecycle.boot` and `status` report an unreadable marker
        return unfinished_restore.load(stack.paths)
    return None


def _settle(stack: Stack, record: Record, what: str, act: Callable[[RestoreRun], str], next_step: str = "") -> None:
    def settle() -> str:
        if not stack.config.data:
            raise FailedError("the database is on another host")
        done = act(RestoreRun(stack, Request(record.id), stack.config.data, record=record))
        cause = f"the droplet or {stack.paths.units.app} was restarted"
        stack.log.outcome = f"the restore of {record.id} was interrupted: {cause}. {done}{next_step}"
        return stack.log.outcome

    _try(stack, "settle", settle, f"{what} the restore of {record.id}, which was interrupted")


def _undo(run: RestoreRun) -> str:
    # Docker may have started the app again, which must not work on partly restored data.
    swap.close(run)
    # Redis gets its former files before Redis starts, because the files of a half-done restore may not load.
    swap.put_redis_back(run)
    run.stack.start_data("settle")
    swap.swap_back(run)
    swap.check_former_data(run)
    # Maintenance ends before the marker goes. After a power cut between the two, the next boot does both again.
    swap.turn_maintenance_off(run)
    unfinished_restore.remove(run.stack.paths.restoring)
    return "The restore was undone, so the data is as before that restore"


def _finish(run: RestoreRun) -> str:
    if run.record:
        swap.record_revisions(run.stack, run.record)
    answer = swap.turn_maintenance_off(run)
    forget_former(run)
    unfinished_restore.remove(run.stack.paths.restoring)
    return f"The restore is now finished, so the restored data is live, and {answer}"


def _remove_leftovers(stack: Stack) -> str:
    stack.remove_one_shots()
    if stack.paths.backups.exists():
        partial.remove_leftovers(stack)
    if not stack.config.data or not stack.paths.data_yaml.exists():
        return ""
    dropped = create.drop_half_restored(Postgres(stack.docker, stack.paths, stack.config.data).server)
    return f"dropped {', '.join(dropped)}" if dropped else ""


def _try(stack: Stack, name: str, act: Callable[[], str], description: str) -> None:
    """Run a step, and record its failure without ending the boot."""
    try:
        stack.log.step(name, act, description)
    except (StackError, OSError) as error:
        stack.log.emit_tail(name, getattr(error, "tail", ""))
