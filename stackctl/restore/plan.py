"""Shows the plan of a restore with everything that will change, and checks that the operator confirmed the plan."""

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.core.errors import FailedError, RefusedError
from stackctl.restore.run import SHOWN, Request, RestoreRun, answer
from stackctl.services.redis import Redis

BETWEEN = (
    "writes between that backup and the moment clients get 503 are lost. To prevent such writes, run sudo stackctl "
    "maintenance on before the restore (the worker still continues with its jobs)"
)


def tell(run: RestoreRun) -> str:
    for line in _lines(run):
        run.stack.log.emit("plan", "progress", line)
    return ""


def _lines(run: RestoreRun) -> list[str]:
    lines = _about_backup(run)
    if run.asked.to_database:
        live = run.data.database
        added = (
            f"{run.manifest.rows} rows go into the new database {run.target}; the live database {live} is not changed"
        )
        return [*lines, added]
    return [*lines, *_about_data(run), *_about_release(run), *_about_safety(run), _downtime(run.stack)]


def _about_backup(run: RestoreRun) -> list[str]:
    then = run.manifest
    proof = f"was verified in {then.verified.seconds:.0f} s" if then.verified else "was never verified"
    lines = [f"backup {then.id} ({then.reason}) is from {then.at}, has {then.bytes / 1e6:.1f} MB and {proof}"]
    if then.unproven:
        lines.append(f"the backup is unverified, because the whole dump does not load: {then.unproven}")
    return [*lines, *_left_out(run)]


def _left_out(run: RestoreRun) -> list[str]:
    """List how the restored database will differ from the backup.

    If the backup still has to be fetched, return an empty list. The restore shows the differences later.
    """
    if run.ready or not (run.directory / manifest.DUMP).exists():
        return []
    try:
        told = run.load.contents().told
    except (FailedError, FileNotFoundError):
        return []  # the step `fetch` refuses or replaces a damaged backup
    return [*told[:SHOWN], *([f"… and {len(told) - SHOWN} more"] if len(told) > SHOWN else [])]


def _about_data(run: RestoreRun) -> list[str]:
    try:
        lines = _rows_now_and_then(run)
    except FailedError as error:
        lines = [f"cannot count the rows of {run.data.database}: {error}"]
    if run.manifest.redis:
        keys = Redis(run.stack.docker, run.stack.paths).keys()
        return [*lines, f"Redis has {keys} keys now, and {run.manifest.redis.keys} after the restore"]
    return [*lines, "Redis is not changed, because the backup has no Redis data"]


def _rows_now_and_then(run: RestoreRun) -> list[str]:
    with run.server.snapshot(run.data.database) as snapshot:
        now = snapshot.rows()
    then = run.manifest.tables
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    lines = [
        f"{run.data.database} has {sum(now.values())} rows in {len(now)} tables now, "
        f"and {run.manifest.rows} rows in {len(then)} tables after the restore"
    ]
    lines += [
        f"  {name}: {now.get(name, 'no table')} now, {then.get(name, 'no table')} after" for name in differing[:SHOWN]
    ]
    return lines + ([f"  … and {len(differing) - SHOWN} more tables that differ"] if len(differing) > SHOWN else [])


def _about_release(run: RestoreRun) -> list[str]:
    then, current = run.manifest, state.load(run.stack.paths)
    live = f"{current.release.tag} is live now" if current.release else "no release is live now"
    was = f"{then.release['tag']} was" if then.release else "none was"
    lines = [f"{live}, and {was} live when the backup was made"]
    if current.revisions and current.revisions[-1].revision != then.schema:
        lines.append(
            f"the schema is at {current.revisions[-1].revision} now, but at {then.schema} in the backup, "
            "so the backup's data is migrated first"
        )
    return lines


def _about_safety(run: RestoreRun) -> list[str]:
    if run.record:
        return ["the replaced data was saved before the interruption"]
    if not run.asked.safety:
        return ["the replaced data is lost, because of --no-safety"]
    saved = f"the data that will be replaced is first saved as backup {run.stack.log.run}"
    return [saved, BETWEEN] if _is_serving(run.stack) else [saved]


def _is_serving(stack: Stack) -> bool:
    """Return whether a release answers requests on this droplet."""
    return bool(state.load(stack.paths).release) and not stack.config.isolated and not stack.paths.maintenance.exists()


def _downtime(stack: Stack) -> str:
    if not _is_serving(stack):
        return f"{answer(stack)}, so the restore causes no downtime"
    telegram = ", and Telegram repeats its updates" if stack.config.webhook_path else ""
    return f"the live release keeps running until the data is ready; then clients get 503 for some seconds{telegram}"


def confirm(run: RestoreRun) -> str:
    check_answer(run.asked, run.manifest.id)
    return run.manifest.id


def check_answer(asked: Request, wanted: str) -> None:
    """Raise RefusedError unless the operator confirmed the restore by repeating the backup's ID."""
    if asked.yes != wanted:
        cause = f"{asked.yes!r} is not the ID of the backup" if asked.yes else "the ID of the backup was not repeated"
        again = " ".join(["sudo stackctl restore", *asked._replace(backup=wanted, yes=wanted).words])
        elsewhere = " OFFSITE=yes" if asked.from_offsite else ""
        added = f" (or make restore with ID={wanted}{elsewhere} YES={wanted})" if asked.safety else ""
        raise RefusedError(f"restore refused: {cause}. Nothing was changed", next_step=f"{again}{added}")
