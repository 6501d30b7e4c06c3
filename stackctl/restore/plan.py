"""The plan of a restore: what it will change, shown to the operator, who confirms it."""

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.core.errors import FailedError, RefusedError
from stackctl.restore.run import SHOWN, Request, RestoreRun, answer
from stackctl.services.redis import Redis

BETWEEN = (
    "what is written from then until everybody gets 503 is in neither, and lost: where that matters, sudo stackctl "
    "maintenance on first (the worker goes on with its jobs)"
)


def tell(run: RestoreRun) -> str:
    for line in _lines(run):
        run.stack.journal.tell("plan", "progress", line)
    return ""


def _lines(run: RestoreRun) -> list[str]:
    lines = _about_backup(run)
    if run.asked.to_database:
        live = run.data.database
        added = f"{run.manifest.rows} rows into the database {run.target}, beside {live}: nothing live is changed"
        return [*lines, added]
    return [*lines, *_about_data(run), *_about_release(run), *_about_safety(run), _downtime(run.stack)]


def _about_backup(run: RestoreRun) -> list[str]:
    then = run.manifest
    proof = f"restored for proof in {then.verified.seconds:.0f} s" if then.verified else "never restored for proof"
    lines = [f"backup {then.id} ({then.reason}), of {then.at}, {then.bytes / 1e6:.1f} MB, {proof}"]
    if then.unproven:
        lines.append(f"unproven, since it does not restore in one go: {then.unproven}")
    return [*lines, *_left_out(run)]


def _left_out(run: RestoreRun) -> list[str]:
    """List what the restored database will lack or have otherwise.

    The list is empty for a backup that is yet to be fetched; `load` shows it later.
    """
    if run.ready or not (run.directory / manifest.DUMP).exists():
        return []
    try:
        told = run.load.contents().told
    except (FailedError, FileNotFoundError):
        return []  # `fetch` refuses or replaces a damaged backup
    return [*told[:SHOWN], *([f"… and {len(told) - SHOWN} more"] if len(told) > SHOWN else [])]


def _about_data(run: RestoreRun) -> list[str]:
    try:
        lines = _rows_now_and_then(run)
    except FailedError as error:
        lines = [f"{run.data.database} can't be counted now: {error}"]
    if run.manifest.redis:
        keys = Redis(run.stack.docker, run.stack.paths).keys()
        return [*lines, f"Redis: {keys} keys now give way to {run.manifest.redis.keys}"]
    return [*lines, "Redis stays as it is: the backup has nothing of it"]


def _rows_now_and_then(run: RestoreRun) -> list[str]:
    with run.server.snapshot(run.data.database) as snapshot:
        now = snapshot.rows()
    then = run.manifest.tables
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    lines = [
        f"{run.data.database}: {sum(now.values())} rows in {len(now)} tables now give way to "
        f"{run.manifest.rows} in {len(then)}"
    ]
    lines += [
        f"  {name}: {now.get(name, 'no table')} now, {then.get(name, 'no table')} then" for name in differing[:SHOWN]
    ]
    return lines + ([f"  … and {len(differing) - SHOWN} tables more that differ"] if len(differing) > SHOWN else [])


def _about_release(run: RestoreRun) -> list[str]:
    then, current = run.manifest, state.load(run.stack.paths)
    made_by = then.release["tag"] if then.release else "none"
    lines = [f"release: {current.release.tag if current.release else 'none'} now, {made_by} then"]
    if current.revisions and current.revisions[-1].revision != then.schema:
        lines.append(f"schema: {current.revisions[-1].revision} now, {then.schema} then: migrated before it is live")
    return lines


def _about_safety(run: RestoreRun) -> list[str]:
    if run.record:
        return ["what it replaces was saved before the interruption"]
    if not run.asked.safety:
        return ["what it replaces is lost: --no-safety"]
    saved = f"what it replaces is saved before, as backup {run.stack.journal.run}"
    return [saved, BETWEEN] if _is_serving(run.stack) else [saved]


def _is_serving(stack: Stack) -> bool:
    """Return whether a release answers requests on this droplet."""
    return bool(state.load(stack.paths).release) and not stack.config.isolated and not stack.paths.maintenance.exists()


def _downtime(stack: Stack) -> str:
    if not _is_serving(stack):
        return f"{answer(stack)}, so nobody is turned away for it"
    telegram = ", and Telegram asks again" if stack.config.webhook_path else ""
    return f"the live release goes on until all is ready; then everybody gets 503 for some seconds{telegram}"


def confirm(run: RestoreRun) -> str:
    check_answer(run.asked, run.manifest.id)
    return run.manifest.id


def check_answer(asked: Request, wanted: str) -> None:
    """Raise RefusedError unless the operator repeated the ID of this backup."""
    if asked.yes != wanted:
        said = f"{asked.yes!r} isn't its id" if asked.yes else "nobody has confirmed it"
        again = " ".join(["sudo stackctl restore", *asked._replace(backup=wanted, yes=wanted).words])
        elsewhere = " OFFSITE=yes" if asked.from_offsite else ""
        added = f" (or your make restore with ID={wanted}{elsewhere} YES={wanted})" if asked.safety else ""
        raise RefusedError(f"{said}: nothing was changed; to go on: {again}{added}")
