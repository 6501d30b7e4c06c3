"""The steps that replace the live data with the restored data, and start the bot again."""

from dataclasses import replace

from stackctl.app import lifecycle, state, unfinished_restore, webhook
from stackctl.app.stack import Stack
from stackctl.app.unfinished_restore import Record
from stackctl.backup import create, manifest
from stackctl.core import durable
from stackctl.core.errors import FailedError
from stackctl.restore.load import tell_left_out
from stackctl.restore.run import DONE_BEFORE, RestoreRun, answer, forget_former
from stackctl.services.docker import Container
from stackctl.services.redis import Redis, loaded


def save(run: RestoreRun) -> str:
    """Back up the data that is about to be replaced."""
    if run.record:
        return DONE_BEFORE
    if not run.asked.safety:
        return "no backup was made, because of --no-safety"
    return create.pre_restore(run.stack).id


def close(run: RestoreRun) -> str:
    """Write the marker, make nginx answer 503, and stop web and worker."""
    stack = run.stack
    if run.placed:
        return "not needed, because all data is already restored"
    if not run.record:
        closed = run.earlier.maintenance if run.earlier else stack.paths.maintenance.exists()
        run.record = Record(run.manifest.id, stack.log.run, closed, run.revisions)
        unfinished_restore.save(stack.paths, run.record)
    durable.write(stack.paths.maintenance, b"", 0o644)
    lifecycle.stop_app(stack)
    lifecycle.stop_worker(stack)
    return "clients get 503, and neither web nor worker runs"


def reopen(run: RestoreRun) -> None:
    """Start the bot with the former data, and remove the marker of the unfinished restore."""
    if not run.record:
        return
    check_former_data(run)
    run.stack.start_data("rdb")
    if run.earlier:
        unfinished_restore.save(run.stack.paths, run.earlier)  # the bot stays closed, because of the earlier restore
        return
    start(run)
    wait_for_health(run)
    end_maintenance(run)
    unfinished_restore.remove(run.stack.paths.restoring)


def check_former_data(run: RestoreRun) -> None:
    """Raise FailedError unless both the live database and the files of Redis are those from before the restore."""
    if run.swapped or run.redis.has_former:
        raise FailedError("the data is partly restored; the bot stays closed")


def swap(run: RestoreRun) -> str:
    """In one transaction, rename the live database, and give the name of the live database to the restored database."""
    if not run.swapped:
        run.server.drop(run.former)
        run.server.rename((run.target, run.former), (run.restored, run.target))
    return f"{run.target} is now the restored database"


def swap_back(run: RestoreRun) -> None:
    """Give both databases their former names again."""
    if run.swapped and run.former in run.server.databases():
        run.server.rename((run.target, run.restored), (run.former, run.target))


def replace_redis(run: RestoreRun) -> str:
    """Restart Redis with the backup's RDB file, and record that all restored data is live."""
    stack = run.stack
    if not run.manifest.redis:
        message = "the backup has no Redis data"
    elif run.placed:
        message = DONE_BEFORE
    else:
        stack.docker.stop(_redis(stack))  # Redis saves its data when Redis stops, and nothing writes afterwards
        run.redis.place(run.directory / manifest.RDB)
        stack.start_data("rdb")
        message = _loaded(run, run.manifest.redis.keys)
    if run.record:
        run.record = replace(run.record, placed=True)
        unfinished_restore.save(stack.paths, run.record)
        record_revisions(stack, run.record)
    return message


def record_revisions(stack: Stack, record: Record) -> None:
    """Record the revisions of the restored schema.

    A release that began after the restore may have migrated the restored data, and has then recorded more revisions.
    """
    current = state.load(stack.paths)
    known = (*current.kept, *filter(None, current.colours.values()))
    if not any(release.id > record.token for release in known):
        state.save(stack.paths, replace(current, revisions=record.revisions))


def put_redis_back(run: RestoreRun) -> None:
    """Stop Redis, and restore the former files of Redis. Later, `reopen` starts Redis again."""
    if run.redis.has_former:
        run.stack.docker.stop(_redis(run.stack))
    run.redis.put_back()


def _loaded(run: RestoreRun, keys: int) -> str:
    found = loaded(Redis(run.stack.docker, run.stack.paths).info())
    if found != keys:
        raise FailedError(f"Redis loaded {found} keys, but the backup has {keys}", next_step="sudo stackctl logs redis")
    return f"Redis loaded {keys} keys, including those that have expired since the backup"


def _redis(stack: Stack) -> list[Container]:
    return [one for one in stack.docker.containers(stack.paths.docker.data_project) if one.service == "redis"]


def start(run: RestoreRun) -> str:
    """Start web and worker."""
    started = lifecycle.start_app(run.stack)
    lifecycle.start_worker(run.stack)
    return started


def wait_for_health(run: RestoreRun) -> str:
    return lifecycle.wait_for_app(run.stack)


def end_maintenance(run: RestoreRun) -> str:
    """Turn maintenance off, but not if maintenance was already on before the restore."""
    webhook.mend_and_tell(run.stack)
    return turn_maintenance_off(run)


def turn_maintenance_off(run: RestoreRun) -> str:
    """Do the same as `end_maintenance`, but do not ask Telegram."""
    if run.record and run.record.maintenance:
        return "clients still get 503, because maintenance was on before the restore"
    if run.stack.paths.maintenance.exists():
        durable.remove(run.stack.paths.maintenance)
    return answer(run.stack)


def forget(run: RestoreRun) -> str:
    """Delete the replaced data and the marker. The pre-restore backup, if any, keeps the replaced data."""
    tell_left_out(run)
    forget_former(run)
    unfinished_restore.remove(run.stack.paths.restoring)
    current, then = state.load(run.stack.paths).release, run.manifest.release
    if current or not then:
        return ""
    return f"no release is live. The backup was made with {then['tag']}. Next: make release TAG={then['tag']}"
