"""The verb `backup` saves the data of PostgreSQL and Redis, and the live release, in /opt/backups/ID.

BACKUP lists all steps in order. A backup is made in the directory ID.partial. After the backup was restored into
throwaway containers and its rows were counted, the directory is renamed to ID. Only a directory whose name is an ID is
a backup. A killed run leaves a directory that no process has locked, and the next run removes that directory. The
backup of a release is dumped and counted, but not restored, because a restore would delay the release.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup import backup_number, manifest, partial, prune, roles, send, verify
from stackctl.backup.manifest import UNFINISHED, Manifest, Reason
from stackctl.backup.offsite import access, download, upload
from stackctl.backup.run import BackupRun
from stackctl.core import disk, durable, openat
from stackctl.core.config import Data
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.printable import printable
from stackctl.core.steps import Step, run_steps
from stackctl.services.postgres import Server
from stackctl.services.redis import Redis

DUMP_TIMEOUT = 3600


def backup(stack: Stack, reason: Reason, site: AbstractContextManager[None]) -> None:
    """Make a backup. `site` is the lock of the site, which is held only while the data is dumped.

    Raises RefusedError if the backup was not started. Raises FailedError if there is no new backup, or if the new
    backup has a problem. If an error is raised, no backup is pruned.
    """
    # Refuse a backup during an unfinished restore, because PostgreSQL may have the restored data, while Redis still has
    # the former data.
    if half := unfinished_restore.load(stack.paths):
        raise RefusedError(half.remedy)
    with _run(stack, reason) as run:
        with site:
            run_steps(stack, run, DUMPED)
        _verify_and_publish(run, AFTER_DUMP)


def pre_restore(stack: Stack) -> Manifest:
    """Make a pre-restore backup, without pruning. The caller holds the lock of the site."""
    with _run(stack, "safety") as run:
        run_steps(stack, run, DUMPED)
        _verify_and_publish(run, (VERIFY, PUBLISH))
        return run.manifest


def fetch(stack: Stack, wanted: Manifest) -> None:
    """Fetch an off-site backup.

    An intruder may have sent the backup, so verify the backup before the directory gets its name.

    A damaged backup with the same ID on the droplet is replaced only after the verification.
    """
    whole = stack.paths.backup(wanted.id)
    check_disk_space(stack, wanted.postgres.bytes, verified=True)
    partial.remove_leftovers(stack)
    with partial.directory(whole) as directory:
        download.fetch(stack, wanted, directory)
        manifest.save(directory, wanted)
        verify.verify(stack, directory, wanted)
        damaged = f"{whole.name}.damaged{UNFINISHED}"
        with openat.directory(whole.parent) as backups:
            if backups.has(whole.name):
                backups.rename(whole.name, damaged)
            backups.rename(directory.name, whole.name)
            backups.remove(damaged)


def of_release(stack: Stack, data: Data, release_id: str) -> Manifest:
    """Make the backup that a release takes before its migrations, and prune the backups of earlier releases."""
    with ExitStack() as ends:
        run = BackupRun(stack, data, release_id, "release", ends)
        for act in (_begin, _dump, _publish):
            act(run)
    prune.prune_releases(stack.paths.backups)
    return run.manifest


def check_disk_space(stack: Stack, database: int, *, verified: bool = False, image: int = 0) -> None:
    """Raise RefusedError if a backup of a database of this size might fill the disk.

    `image` is the size of an image that is pulled first. The image's size counts only if Docker uses the same disk as
    the backups.
    """
    backups = stack.paths.backups
    backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = backups.stat().st_dev == stack.paths.var.stat().st_dev
    needs = {"a backup": disk.of_backup(database, verified=verified), "an image": image if shared else 0}
    disk.check(backups, stack.machine.free(backups), needs)


@contextmanager
def _run(stack: Stack, reason: Reason) -> Iterator[BackupRun]:
    data = stack.config.data
    if not data:
        raise RefusedError("the database is on another host", next_step="make the backup on that host")
    with ExitStack() as ends:
        yield BackupRun(stack, data, stack.log.run, reason, ends)


def _preflight(run: BackupRun) -> str:
    room = run.postgres.capacity()
    _begin(run)
    if run.reason != "safety":  # not for a pre-restore backup, because a restore is running
        drop_half_restored(run.postgres.server)
    # A killed upload may have left fetched files. A release must not remove these files, because a release does not
    # hold the lock of the backups, and the files may belong to a running upload.
    with openat.directory(run.stack.paths.backups) as backups:
        backups.remove(upload.FETCHED)
    check_disk_space(run.stack, room.database_bytes, verified=True)
    return f"the database has {room.database_bytes / 1e6:.1f} MB"


def drop_half_restored(server: Server) -> list[str]:
    """Drop the databases of restores that were killed before the step `close`. Return the names of these databases.

    No restore is running, because the caller holds a lock that a restore holds as well.
    """
    left = [name for name in server.databases() if name.endswith(unfinished_restore.DATABASE)]
    for name in left:
        server.drop(name)
    roles.end_loader(server)
    return left


def _begin(run: BackupRun) -> None:
    """Remove the leftovers of killed runs, and make the directory of this backup."""
    stack = run.stack
    stack.paths.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    run.postgres.end_dumps()
    partial.remove_leftovers(stack)
    run.made = manifest.every(stack.paths.backups)
    run.directory = run.ends.enter_context(partial.directory(run.whole))


def _dump(run: BackupRun) -> str:
    stack, postgres = run.stack, run.postgres
    at = stack.machine.now().isoformat(timespec="seconds")
    dump, globals_, remembered = (run.directory / name for name in (manifest.DUMP, manifest.GLOBALS, manifest.STATE))
    tables = postgres.dump(dump, DUMP_TIMEOUT)
    postgres.server.listing(dump)
    postgres.globals(globals_, DUMP_TIMEOUT)
    current = state.load(stack.paths)
    durable.write(remembered, current.to_json().encode())
    run.manifest = Manifest(
        id=run.id,
        app=stack.paths.app,
        reason=run.reason,
        at=at,
        sequence=_next_number(run),
        release=asdict(current.release) if current.release else None,
        schema=current.revisions[-1].revision if current.revisions else None,
        postgres=manifest.Postgres(
            postgres.query("SHOW server_version"), run.data.database, postgres.capacity().database_bytes
        ),
        redis=None,
        tables=tables,
        files={file.name: manifest.describe(file) for file in (dump, globals_, remembered)},
        verified=None,
        offsite=None,
    )
    return f"dumped {run.manifest.rows} rows in {len(tables)} tables, {dump.stat().st_size / 1e6:.1f} MB"


def _next_number(run: BackupRun) -> int:
    """Return the highest backup number ever seen, plus one.

    A droplet that knows of no backup, or that could never read the off-site storage, reads the storage first. The
    backup of a release is never sent, so its number does not depend on the storage. The backup is made even if the
    storage does not answer.
    """
    stack = run.stack
    known = backup_number.highest(stack.paths) is not None and any(one.reason != "release" for one in run.made)
    if not known and run.reason != "release" and access.configured(stack):
        stack.log.emit("dump", "progress", download.READING)
        try:
            run.there = download.available(stack)
        except FailedError as error:
            stack.log.emit(
                "dump", "progress", f"cannot read the off-site storage, so the next backup will try again: {error}"
            )
    return 1 + max(
        backup_number.highest(stack.paths) or 0,
        backup_number.greatest(one.sequence for one in (*run.made, *run.there)),
    )


def _save_redis(run: BackupRun) -> str:
    redis, rdb = Redis(run.stack.docker, run.stack.paths), run.directory / manifest.RDB
    redis.dump(rdb, DUMP_TIMEOUT)
    saved = manifest.Redis(redis.info()["redis_version"], verify.keys_in(run.stack, rdb, run.id))
    files = {**run.manifest.files, rdb.name: manifest.describe(rdb)}
    run.manifest = replace(run.manifest, redis=saved, files=files)
    return f"saved {saved.keys} keys"


def _verify(run: BackupRun) -> str:
    proof = verify.verify(run.stack, run.directory, run.manifest)
    run.manifest = replace(run.manifest, verified=proof)
    return f"restored {proof.rows} rows in {proof.seconds:.1f} s"


def _verify_and_publish(run: BackupRun, steps: Sequence[Step[BackupRun]]) -> None:
    """Run these steps. If the dump cannot be restored, keep and send an unverified backup, and raise FailedError.

    The newest unverified backup replaces earlier unverified backups, but never a verified backup. An unverified
    pre-restore backup may be the only copy of its data, so only another pre-restore backup replaces it.
    """
    try:
        run_steps(run.stack, run, steps)
    except verify.UnverifiedError as error:
        run.manifest = replace(run.manifest, unproven=printable(str(error), "")[: manifest.MOST_TOLD])
        run_steps(run.stack, run, [PUBLISH])
        for one in [one for one in run.made if one.unproven and (one.reason == "safety") == (run.reason == "safety")]:
            partial.discard(run.stack.paths.backup(one.id))
            run.made.remove(one)
        also = ""
        if UPLOAD in steps:
            try:
                run_steps(run.stack, run, [UPLOAD])
            except FailedError as fault:
                also = f", and could not be sent off the droplet: {fault.message}"
        kept = f"{error.message}. The dump is kept as the unverified backup {run.id}{also}"
        raise FailedError(kept, error.tail, next_step=error.next_step) from error


def _publish(run: BackupRun) -> str:
    manifest.save(run.directory, run.manifest)
    durable.rename(run.directory, run.whole)
    return str(run.whole)


PREFLIGHT = Step(
    "preflight", "check the data services and the disk space, and remove the remains of killed runs", _preflight
)
DUMP = Step("dump", "dump PostgreSQL's data and roles, and count the rows in the same PostgreSQL snapshot", _dump)
REDIS = Step("redis", "save all keys of Redis", _save_redis)
VERIFY = Step("verify", "restore the backup into throwaway containers, and count its rows and keys", _verify)
PUBLISH = Step("publish", "rename the finished directory, so that it counts as a backup", _publish)
UPLOAD = Step("upload", "send the backup off the droplet", send.send)
PRUNE = Step("prune", f"delete old backups, but keep the backups of {prune.KEPT_DAYS} days", prune.prune)

DUMPED = (PREFLIGHT, DUMP, REDIS)
"""These steps run under the lock of the site."""
AFTER_DUMP = (VERIFY, PUBLISH, UPLOAD, PRUNE)
BACKUP = (*DUMPED, *AFTER_DUMP)
