"""The preflight of a restore: find the backup, and check that this droplet can restore it."""

import re
from pathlib import Path

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import download
from stackctl.backup.stored import LATEST
from stackctl.core import disk
from stackctl.core.errors import RefusedError
from stackctl.release.preflight import check_data
from stackctl.restore.run import RestoreRun, too_new
from stackctl.services.postgres import Postgres
from stackctl.services.redis import Redis


def preflight(run: RestoreRun) -> str:
    stack = run.stack
    run.manifest = _chosen(run)
    then = run.manifest
    if then.app != stack.paths.app:
        raise RefusedError(f"{then.id} is a backup of the app {then.app}, not of {stack.paths.app}")
    if run.asked.from_offsite and not run.asked.to_database and _is_fresh(stack):
        raise RefusedError(
            "no release was ever live on this droplet, so another droplet may still serve the users",
            next_step="make isolate, then restore again",
        )
    if not run.asked.to_database:
        _read_marker(run)
    check_data(stack)
    _check_postgres(run)
    _check_redis(run)
    if run.asked.to_database and run.target in run.server.databases():
        raise RefusedError(
            f"the database {run.target} already exists", next_step="drop the database, or choose another name"
        )
    if not run.ready:
        _check_disk_space(run)
    _check_schema(run)
    begun = "; an earlier run has begun this restore" if run.record else ""
    return f"backup {then.id}, made at {then.at}, has {then.rows} rows{begun}"


def _is_fresh(stack: Stack) -> bool:
    """Return whether the first release would serve users: no release was ever live, and the droplet is not isolated."""
    return not stack.config.isolated and not state.load(stack.paths).kept


def _read_marker(run: RestoreRun) -> None:
    record = unfinished_restore.load(run.stack.paths)
    if not record:
        return
    if record.id == run.manifest.id:
        run.record = record
    else:
        run.earlier = record
    # The killed run may have stopped Redis.
    run.stack.start_data("preflight")


def _chosen(run: RestoreRun) -> Manifest:
    """Find the backup that the operator asked for. Raise FailedError or RefusedError if there is no such backup."""
    stack, wanted = run.stack, run.asked.backup
    if run.asked.from_offsite:
        return download.chosen(stack, wanted, run.asked.snapshot)
    if run.asked.snapshot:
        raise RefusedError("--snapshot works only for an off-site backup", next_step="add --from-offsite")
    known = manifest.every(stack.paths.backups)
    if wanted == LATEST:
        # The data in a pre-restore backup was replaced on purpose, so `latest` never means a pre-restore backup.
        usable = [one for one in known if one.verified and one.reason != "safety"]
        if not usable:
            raise RefusedError(
                "there is no verified backup on this droplet",
                next_step="sudo stackctl list-backups, or sudo stackctl restore "
                "latest --from-offsite (make restore OFFSITE=yes)",
            )
        return usable[-1]
    if found := next((one for one in known if one.id == wanted), None):
        return found
    if manifest.ID.fullmatch(wanted) and stack.paths.backup(wanted).exists():
        manifest.load(stack.paths.backup(wanted))  # raises an error with the reason why `known` lacks the backup
    raise RefusedError(
        f"there is no backup {wanted!r} on this droplet",
        next_step="sudo stackctl list-backups shows the backups on this droplet, and sudo stackctl check-offsite the "
        "off-site backups; to restore an off-site backup, add --from-offsite (make restore OFFSITE=yes)",
    )


def _check_postgres(run: RestoreRun) -> None:
    """Raise RefusedError if a newer major version of PostgreSQL made the dump."""
    then, running = run.manifest, Postgres(run.stack.docker, run.stack.paths, run.data).capacity().major
    if then.postgres.major > running:
        raise RefusedError(
            f"{then.id} is from PostgreSQL {then.postgres.major}, but {running} is running",
            next_step=f"declare an image of PostgreSQL {then.postgres.major}",
        )


def _check_redis(run: RestoreRun) -> None:
    """Raise RefusedError if a newer Redis wrote the RDB file, because the running Redis could not read the file."""
    saved = run.manifest.redis
    if not saved or run.asked.to_database:
        return
    running = Redis(run.stack.docker, run.stack.paths).info()["redis_version"]
    if _minor(saved.version) > _minor(running):
        raise RefusedError(
            f"{run.manifest.id} is from Redis {saved.version}, but {running} is running",
            next_step=f"declare an image of Redis {saved.version}",
        )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:2])


def _check_disk_space(run: RestoreRun) -> None:
    directory = Path(run.data.root)
    needs = {"a restore": disk.of_restore(run.manifest.postgres.bytes)}
    disk.check(directory, run.stack.machine.free(directory), needs)


def _check_schema(run: RestoreRun) -> None:
    """Raise RefusedError if, according to state.json, the live release does not know the backup's schema.

    Later, the step `migrate` checks the schema of the restored data again, with the live release's own image.
    """
    current = state.load(run.stack.paths)
    if run.asked.to_database or not run.stack.config.migrate or not current.release:
        return
    coming = run.manifest.schema
    now = current.revisions[-1].revision if current.revisions else None
    names = [one.revision for one in current.revisions]
    known = names[: names.index(current.release.schema) + 1] if current.release.schema in names else []
    if coming in {None, now, current.release.schema, *known}:
        return
    if coming in names:
        raise too_new(run, coming)
