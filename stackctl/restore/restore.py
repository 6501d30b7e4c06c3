"""The verb `restore` replaces the live data with a backup, or loads a backup into a new database.

The bot keeps running while the backup is loaded beside the live database, counted and migrated. The site is closed
while the databases swap names and Redis restarts. If a step before `start` fails, that step and the steps before it are
undone in reverse order. If the run is killed after `close`, a marker remains (unfinished_restore.py), and the same
command finishes the restore.
"""

import re

from stackctl.app import unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup.manifest import Manifest
from stackctl.core.errors import PersonNeededError, RefusedError
from stackctl.core.steps import Step, run_or_undo, run_steps, undo
from stackctl.restore import choose, load, plan, swap
from stackctl.restore.run import FORMER, Request, RestoreRun, forget_former

RESERVED = ("postgres", "template0", "template1")
NAME = re.compile(r"[a-z][a-z0-9_]{0,52}", re.ASCII)


def restore(stack: Stack, asked: Request) -> None:
    """Restore a backup. The caller holds the site lock and the backup lock. Raises the same errors as `run_or_undo`."""
    run = _run(stack, asked)
    if asked.to_database:
        run_or_undo(run, BESIDE)
        return
    run_or_undo(run, AGREED)
    _undo_earlier(run)
    run_or_undo(run, REPLACED, already_begun=REPLACED if run.record else ())


def look(stack: Stack, asked: Request) -> Manifest:
    """Show the plan of a restore, and return the backup's manifest. Do not start the restore."""
    run = _run(stack, asked)
    run_steps(stack, run, (PREFLIGHT, PLAN))
    return run.manifest


def _run(stack: Stack, asked: Request) -> RestoreRun:
    if not stack.config.data:
        raise RefusedError("the database is on another host", next_step="restore the backup on that host")
    name, live = asked.to_database, stack.config.data.database
    if name and (
        name in {live, *RESERVED} or name.endswith((unfinished_restore.DATABASE, FORMER)) or not NAME.fullmatch(name)
    ):
        raise RefusedError(
            f"{name!r} cannot be the name of a new database",
            next_step="choose a name of a-z, 0-9 and _ that is not in use",
        )
    return RestoreRun(stack, asked, stack.config.data)


def _undo_earlier(run: RestoreRun) -> None:
    """Undo an unfinished restore of another backup.

    If the other backup is already live, only delete the replaced data.
    """
    earlier = run.earlier
    if not earlier:
        return
    if earlier.placed:
        forget_former(run)
        return
    run.earlier = None
    begun = RestoreRun(run.stack, run.asked, run.data, record=earlier)
    run.stack.log.emit("settle", "progress", f"the interrupted restore of {earlier.id} is undone first")
    if left := undo(begun, REPLACED):
        raise PersonNeededError(
            f"the restore of {earlier.id} could not be undone completely. Not undone: {left}", next_step=begun.remedy
        )


PREFLIGHT = Step("preflight", "choose the backup, and check that it can be restored here", choose.preflight)
PLAN = Step("plan", "show what will change", plan.tell)
_CONFIRM = Step("confirm", "check that the operator confirmed this backup", plan.confirm)
_FETCH = Step("fetch", "fetch the backup's files if needed, and check them", load.fetch)
_LOAD = Step("load", "load the backup into a database beside the live database", load.load, load.drop)
_COUNT = Step("count", "compare the row counts with the backup", load.count)
_MIGRATE = Step("migrate", "use the live release to migrate an older schema", load.migrate, load.remove_one_shots)
_SAFETY = Step("safety", "back up the data that will be replaced", swap.save)
_CLOSE = Step("close", "make nginx answer 503, and stop web and worker", swap.close, swap.reopen)
_SWAP = Step("swap", "swap the names of the two databases", swap.swap, swap.swap_back)
_RDB = Step("rdb", "restart Redis with the backup's RDB file", swap.replace_redis, swap.put_redis_back)
_START = Step("start", "start web and worker", swap.start)
_HEALTH = Step("health", "wait until web is healthy", swap.wait_for_health)
_OPEN = Step("open", "end maintenance, unless it was on before the restore", swap.end_maintenance)
_FORGET = Step("forget", "delete the replaced data", swap.forget)
_NAME = Step("name", "give the new database the chosen name", load.name)

AGREED = (PREFLIGHT, PLAN, _CONFIRM)
REPLACED = (_FETCH, _LOAD, _COUNT, _MIGRATE, _SAFETY, _CLOSE, _SWAP, _RDB, _START, _HEALTH, _OPEN, _FORGET)
RESTORE = (*AGREED, *REPLACED)
# A restore into a new database changes nothing live, so the operator need not confirm the restore.
BESIDE = (PREFLIGHT, PLAN, _FETCH, _LOAD, _COUNT, _NAME)
