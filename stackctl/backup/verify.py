"""Verifies a backup: restores the backup into throwaway containers, and counts the rows and keys.

The containers use the images of the live services, have no network, and run one after the other. The containers write
only below the backup's directory, and are removed at the end. If the run is killed, a container stays. The name of such
a container contains the backup's ID, so the container is removed together with the partial backup.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import loading, roles
from stackctl.backup.manifest import DUMP, GLOBALS, RDB, Manifest, Verified, differing
from stackctl.core import openat
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError
from stackctl.services.postgres import Server
from stackctl.services.redis import facts, loaded

DATABASE = "proof"
RESTORE_TIMEOUT = 4 * 3600
READY_TIMEOUT = 180
RDB_TIMEOUT = 600
SHOWN = 5
WORK = "work"
"""The working directory in a backup's directory."""
LOOK_S = 0.2
"""Seconds between looks at the free space. One session writes at most some hundred MB per second, so the rest of SPARE
lasts until the container is killed."""
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETPCAP", "SETUID")
CLOSED = (
    *("--pull=never", "--network=none", "--read-only", "--tmpfs=/tmp:size=16m", "--pids-limit=128"),
    *("--security-opt=no-new-privileges:true", "--cap-drop=ALL", *(f"--cap-add={name}" for name in CAPABILITIES)),
    "--cpu-shares=128",  # under load, the container gets an eighth of a live container's CPU time
)
CONNECTIONS, MOST_LOCKS = 10, 10_000
# The throwaway server need not survive a crash, and has only one client. Parallel workers would only use memory.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "64MB",
    "autovacuum": "off",
    "max_connections": str(CONNECTIONS),
    "max_parallel_workers": "0",
    "shared_buffers": "16MB",
    "maintenance_work_mem": "32MB",
}


class UnverifiedError(FailedError):
    """The dump is complete, but could not be restored."""


def verify(stack: Stack, place: Path, manifest: Manifest) -> Verified:
    """Restore a backup, and compare the restored data with the manifest. Raise FailedError if the data differs.

    Raises UnverifiedError if the dump does not load. A backup that is already marked as unverified is loaded as far as
    possible, without a comparison.
    """
    began = stack.machine.monotonic()
    try:
        with _work(place):
            _restore_postgres(stack, place, manifest)
            if manifest.redis:
                _load_redis(stack, place, manifest.id, manifest.redis.keys)
    except FailedError as error:
        _check_undamaged(place, manifest)
        if "no space left" in f"{error} {error.tail}".lower():
            raise type(error)(
                f"no space left on the disk ({error.message})", error.tail, next_step=f"make room in {place.parent}"
            ) from error
        raise
    _check_undamaged(place, manifest)  # check the hashes, because a dump with a flipped bit may still load
    at = stack.machine.now().isoformat(timespec="seconds")
    return Verified(at, round(stack.machine.monotonic() - began, 1), manifest.rows)


@contextmanager
def _work(place: Path) -> Iterator[None]:
    """Make a directory for the containers.

    At the end, delete the directory with everything that the containers wrote.
    """
    with openat.directory(place.parent, place.name) as there:
        there.make(WORK).close()
        try:
            yield
        finally:
            there.remove(WORK)


def _check_undamaged(place: Path, manifest: Manifest) -> None:
    if faults := differing(place, manifest):
        raise FailedError(
            f"the backup was damaged after it was written: {', '.join(faults)}",
            next_step="check the disk (sudo journalctl -k)",
        )


def keys_in(stack: Stack, rdb: Path, backup_id: str) -> int:
    """Check the RDB file, and return its number of keys. Raise FailedError if the file is damaged."""
    mounted = f"--mount=type=bind,source={rdb},target=/dump.rdb,readonly"
    options = (*_limits(stack), mounted, "--entrypoint=redis-check-rdb")
    name = stack.paths.docker.verification(backup_id)
    run = ["docker", "run", "--rm", f"--name={name}", *options, _image(stack, "redis"), "/dump.rdb"]
    try:
        checked = stack.machine.run(run, timeout=RDB_TIMEOUT)
    finally:
        remove(stack, backup_id)  # if the client timed out, the container still runs
    found = re.search(r"\] (\d{1,18}) keys read", checked.stdout)
    if checked.code or not found:
        raise FailedError(f"cannot read {rdb.name}: {checked.reason}", checked.tail())
    return int(found[1])


def _restore_postgres(stack: Stack, place: Path, manifest: Manifest) -> None:
    options = (
        *_data(place, "postgres", "/var/lib/postgresql/data"),
        "--tmpfs=/run/postgresql:size=1m",
        "--env=POSTGRES_PASSWORD=nobody-can-reach-it",
        "--env=PGDATA=/var/lib/postgresql/data",
        "--env=POSTGRES_INITDB_ARGS=--no-sync",
    )
    settings = {**SETTINGS, "max_locks_per_transaction": str(_locks(manifest))}
    command = ("postgres", *(f"--{name}={value}" for name, value in settings.items()))
    with _container(stack, manifest.id, "postgres", options, command) as name:
        server = Server(stack.docker, name)
        # Connect over TCP, because PostgreSQL listens only on its unix socket until the initialisation has ended.
        _wait(stack, name, server.inside("pg_isready", "--quiet", "--host=127.0.0.1"))
        _load_postgres(stack, server, place, manifest)


def _load_postgres(stack: Stack, server: Server, place: Path, manifest: Manifest) -> None:
    """Load the dump in the same way as a restore (loading.py), and compare the row counts with the manifest."""
    assert stack.config.data  # noqa: S101 - for mypy: without a database there is no backup
    owner = stack.config.data.owner
    load = loading.Load(server, DATABASE, owner, place / DUMP, place / GLOBALS, RESTORE_TIMEOUT)
    roles.create(server, [owner])
    contents = load.contents()
    if manifest.unproven:
        load.as_far_as_possible(contents)
        return
    try:
        load.strictly(contents)
    except FailedError as error:
        raise UnverifiedError(str(error), error.tail) from error
    compare(server.rows(DATABASE), manifest.tables)


def _locks(manifest: Manifest) -> int:
    """Return enough locks for one transaction on all tables, such as DROP SCHEMA or a query of all partitions."""
    return min(64 + len(manifest.tables), MOST_LOCKS)


def _load_redis(stack: Stack, place: Path, backup_id: str, keys: int) -> None:
    options = _data(place, "redis", "/data")
    with openat.directory(place.parent, place.name) as there, openat.directory(place / WORK, "redis") as fresh:
        fresh.copy("dump.rdb", there, RDB, there.size(RDB))
    command = ("redis-server", "--save", "", "--appendonly", "no")
    with _container(stack, backup_id, "redis", options, command) as name:
        _wait(stack, name, ["docker", "exec", name, "redis-cli", "PING"], says="PONG")
        said = stack.docker.call("docker exec redis-cli", ["docker", "exec", name, "redis-cli", "INFO", "persistence"])
        found = loaded(facts(said.stdout))
        if found != keys:
            raise FailedError(f"{RDB} has {keys} keys, but Redis loaded {found}")


@contextmanager
def _container(
    stack: Stack, backup_id: str, service: str, options: Sequence[str], command: Sequence[str]
) -> Iterator[str]:
    """Run a throwaway container and yield the container's name.

    A FailedError says if the container ran out of memory.
    """
    name = stack.paths.docker.verification(backup_id)
    run = ["docker", "run", "--detach", f"--name={name}", *_limits(stack), *options, _image(stack, service), *command]
    try:
        stack.docker.call(f"a throwaway {service} does not start", run, timeout=120)
        with _leaving_room(stack, name):
            yield name
    except FailedError as error:
        if _was_out_of_memory(stack, name):
            raise type(error)(
                f"out of memory while {service} was restored ({error.message})",
                next_step="raise backup_memory_mib, then make site",
            ) from error
        raise
    finally:
        remove(stack, backup_id)


@contextmanager
def _leaving_room(stack: Stack, name: str) -> Iterator[None]:
    """Kill the container and raise FailedError when less than SPARE is left on the disk.

    While rows are loaded, a function from the app or from an intruder may run, and write until the disk is full.
    """
    over, full = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            if stack.machine.free(stack.paths.backups) < SPARE:
                full.set()
                stack.machine.run(["docker", "kill", name])

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    why = f"less than {SPARE >> 20} MiB is left on the disk, so the verification was stopped"
    room = f"make room in {stack.paths.backups}"
    try:
        yield
    except FailedError as error:
        if full.is_set():
            raise type(error)(f"{why} ({error.message})", error.tail, next_step=room) from error
        raise
    else:
        if full.is_set():
            raise FailedError(why, next_step=room)
    finally:
        over.set()
        watch.join()


def remove(stack: Stack, backup_id: str) -> None:
    """Remove the container that verifies a backup, if there is one."""
    stack.machine.run(["docker", "rm", "--force", "--volumes", stack.paths.docker.verification(backup_id)])


def _limits(stack: Stack) -> list[str]:
    data = stack.config.data
    mib = data.backup_memory_mib if data else 0
    return [*CLOSED, f"--memory={mib}m", f"--memory-swap={mib}m"]


def _data(place: Path, service: str, target: str) -> list[str]:
    directory = place / WORK / service
    directory.mkdir(mode=0o700)
    return [f"--mount=type=bind,source={directory},target={target}"]


def _image(stack: Stack, service: str) -> str:
    containers = stack.docker.containers(stack.paths.docker.data_project)
    found = next((one.image for one in containers if one.service == service), None)
    if not found:
        raise FailedError(f"{service} has no container", next_step=f"sudo systemctl restart {stack.paths.units.app}")
    return found


def _wait(stack: Stack, name: str, argv: Sequence[str], says: str = "") -> None:
    """Wait until the program `argv` succeeds and prints `says`. Raise FailedError if the container ends first."""

    def look() -> str | None:
        asked = stack.machine.run(argv)
        if not asked.code and says in asked.stdout:
            return None
        state = stack.machine.run(["docker", "container", "inspect", "--format", "{{.State.Status}}", name]).stdout
        if state.strip() != "running":
            ended = stack.machine.run(["docker", "logs", "--tail", "20", name])
            raise FailedError(f"the throwaway container ended: {ended.reason}", ended.tail())
        return "the throwaway container is not ready"

    try:
        stack.wait("verify", READY_TIMEOUT, look)
    except TimeoutError as error:
        raise FailedError(str(error)) from None


def _was_out_of_memory(stack: Stack, name: str) -> bool:
    said = stack.machine.run(["docker", "container", "inspect", "--format", "{{.State.OOMKilled}}", name])
    return said.stdout.strip() == "true"


def compare(found: Mapping[str, int], told: Mapping[str, int]) -> None:
    """Raise FailedError unless `found` and `told` have the same tables with the same number of rows."""
    faults = [f"{name} is missing" for name in sorted(told.keys() - found.keys())]
    faults += [f"{name} is not in the manifest" for name in sorted(found.keys() - told.keys())]
    faults += [
        f"{name} has {found[name]} rows, but the manifest says {told[name]}"
        for name in sorted(found.keys() & told.keys())
        if found[name] != told[name]
    ]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise FailedError(f"the restored data differs from the manifest: {', '.join(faults[:SHOWN])}{more}")
