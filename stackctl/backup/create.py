"""backup: what PostgreSQL and Redis hold, and which release was live, under /opt/backups/ID.

BACKUP is the whole story of one, in order. It is made in ID.partial, and named ID once it was restored elsewhere and
held what was dumped: what has its name is a backup. Killed anywhere, it leaves a directory that nobody has locked; the
next run removes it. A release's own is dumped and counted like any other, and not restored: there is no time.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup import backup_number, manifest, offsite, retention, roles, verify
from stackctl.backup.manifest import UNFINISHED, Manifest, Offsite, Reason
from stackctl.core import durable, openat
from stackctl.core.config import Data
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.printable import printable
from stackctl.core.steps import Step, take
from stackctl.services.postgres import Postgres, Room, Server
from stackctl.services.redis import Redis

DUMP_TIMEOUT = 3600
KEPT_DAYS = 7
KEPT_OF_RELEASES = 3


@dataclass
class Work:
    """A backup under way: what its steps hand on."""

    stack: Stack
    data: Data
    id: str
    reason: Reason
    ends: ExitStack
    """Closed when it is over, however it went."""
    place: Path = Path()
    made: list[Manifest] = field(default_factory=list)
    """Before this one."""
    there: list[Manifest] = field(default_factory=list)
    """Off the droplet, where that was asked."""
    manifest: Manifest = field(init=False)
    """Of this one, as far as it is."""

    @property
    def postgres(self) -> Postgres:
        return Postgres(self.stack.docker, self.stack.paths, self.data)

    @property
    def whole(self) -> Path:
        return self.stack.paths.backup(self.id)


def backup(stack: Stack, reason: Reason, site: AbstractContextManager[None]) -> None:
    """Make one. `site` is the site's lock: held while the data is dumped, and no longer.

    Raises RefusedError when nothing was begun, FailedError when no backup came of it, or one that is not what it should
    be: then nothing was pruned.
    """
    # PostgreSQL may be the restored one already, and Redis still the former: together they never were.
    if half := unfinished_restore.load(stack.paths):
        raise RefusedError(half.remedy)
    with _work(stack, reason) as work:
        with site:
            take(stack, work, DUMPED)
        _prove(work, PROVEN)


def safety(stack: Stack) -> Manifest:
    """One of what a restore is about to replace; whoever calls holds the site's lock. Nothing is pruned for it."""
    with _work(stack, "safety") as work:
        take(stack, work, DUMPED)
        _prove(work, (VERIFY, PUBLISH))
        return work.manifest


def fetch(stack: Stack, told: Manifest) -> None:
    """Fetch one that lies off the droplet, and restore it for proof before it gets its name.

    An intruder may have sent it. What is here of that name is damaged, and stays until the other one is proven.
    """
    whole = stack.paths.backup(told.id)
    check_room(stack, Room(told.postgres.major, 0, told.postgres.bytes), restored=True)
    _reap(stack)
    with _unfinished(whole) as place:
        offsite.fetch(stack, told, place)
        manifest.save(place, told)
        verify.verify(stack, place, told)
        damaged = f"{whole.name}.damaged{UNFINISHED}"
        with openat.directory(whole.parent) as backups:
            if backups.has(whole.name):
                backups.rename(whole.name, damaged)
            backups.rename(place.name, whole.name)
            backups.remove(damaged)


def of_release(stack: Stack, data: Data, release_id: str) -> Manifest:
    """A release's own, of before its migrations; those of former releases make room for it."""
    with ExitStack() as ends:
        work = Work(stack, data, release_id, "release", ends)
        for act in (_begin, _dump, _publish):
            act(work)
    _prune_releases(stack.paths.backups)
    return work.manifest


def check_room(stack: Stack, room: Room, *, restored: bool = False, image: int = 0) -> None:
    """RefusedError when a dump, and where it is to be `restored` that as well, might fill the disk.

    `image`: bytes of one that comes before, to where Docker and we have ours.

    A dump is compressed, and indexes aren't in it: it is smaller than the database.
    """
    stack.paths.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    needed = room.database_bytes + offsite.SPARE + (room.database_bytes + verify.ROOM if restored else 0)
    free = stack.machine.free(stack.paths.backups)
    image = image if stack.paths.backups.stat().st_dev == stack.paths.var.stat().st_dev else 0
    if free < needed + image:
        what = f"a backup may need {needed >> 20}" + (f" and an image {image >> 20}" if image else "")
        raise RefusedError(f"{stack.paths.backups} has {free >> 20} MiB left, {what}: make room there")


@contextmanager
def _work(stack: Stack, reason: Reason) -> Iterator[Work]:
    data = stack.config.data
    if not data:
        raise RefusedError("the database is on another host: make the backup there")
    with ExitStack() as ends:
        yield Work(stack, data, stack.journal.run, reason, ends)


def _preflight(work: Work) -> str:
    room = work.postgres.room()
    _begin(work)
    if work.reason != "safety":  # that one is part of a restore
        _drop_half_restored(work.postgres.server)
    # What a killed upload fetched. A release, which has nothing of this lock, leaves it to whoever is at it.
    with openat.directory(work.stack.paths.backups) as backups:
        backups.remove(offsite.FETCHED)
    check_room(work.stack, room, restored=True)
    return f"the database has {room.database_bytes / 1e6:.1f} MB"


def _drop_half_restored(server: Server) -> None:
    """What restores left that were killed before they had anything to finish: there is no other one under way."""
    for name in server.databases():
        if name.endswith(unfinished_restore.DATABASE):
            server.drop(name)
    roles.end_loader(server)


def _begin(work: Work) -> None:
    """A place for it, and none for what killed runs left."""
    stack = work.stack
    stack.paths.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    work.postgres.end_dumps()
    _reap(stack)
    work.made = manifest.every(stack.paths.backups)
    work.place = work.ends.enter_context(_unfinished(work.whole))


def _dump(work: Work) -> str:
    stack, postgres = work.stack, work.postgres
    at = stack.machine.now().isoformat(timespec="seconds")
    dump, roles, remembered = (work.place / name for name in (manifest.DUMP, manifest.GLOBALS, manifest.STATE))
    tables = postgres.dump(dump, DUMP_TIMEOUT)
    postgres.server.listing(dump)
    postgres.globals(roles, DUMP_TIMEOUT)
    current = state.load(stack.paths)
    durable.write(remembered, current.to_json().encode())
    work.manifest = Manifest(
        id=work.id,
        app=stack.paths.app,
        reason=work.reason,
        at=at,
        sequence=_next_sequence(work),
        release=asdict(current.release) if current.release else None,
        schema=current.revisions[-1].revision if current.revisions else None,
        postgres=manifest.Postgres(
            postgres.query("SHOW server_version"), work.data.database, postgres.room().database_bytes
        ),
        redis=None,
        tables=tables,
        files={file.name: manifest.describe(file) for file in (dump, roles, remembered)},
    )
    return f"{work.manifest.rows} rows in {len(tables)} tables, {dump.stat().st_size / 1e6:.1f} MB"


def _next_sequence(work: Work) -> int:
    """One more than the highest that was ever seen. A droplet that has none here, or never could, asks off the droplet.

    A release doesn't: its own never goes there. No backup depends on a storage that answers.
    """
    stack = work.stack
    known = backup_number.highest(stack.paths) is not None and any(one.reason != "release" for one in work.made)
    if not known and work.reason != "release" and offsite.configured(stack):
        stack.journal.tell("dump", "progress", offsite.READING)
        try:
            work.there = offsite.available(stack)
        except FailedError as error:
            stack.journal.tell("dump", "progress", f"not read, so the next one will: {error}")
    return 1 + max(
        backup_number.highest(stack.paths) or 0,
        backup_number.greatest(one.sequence for one in (*work.made, *work.there)),
    )


def _save_redis(work: Work) -> str:
    redis, rdb = Redis(work.stack.docker, work.stack.paths), work.place / manifest.RDB
    redis.dump(rdb, DUMP_TIMEOUT)
    told = manifest.Redis(redis.info()["redis_version"], verify.keys_in(work.stack, rdb, work.id))
    files = {**work.manifest.files, rdb.name: manifest.describe(rdb)}
    work.manifest = replace(work.manifest, redis=told, files=files)
    return f"{told.keys} keys"


def _verify(work: Work) -> str:
    proof = verify.verify(work.stack, work.place, work.manifest)
    work.manifest = replace(work.manifest, verified=proof)
    return f"restored {proof.rows} rows, in {proof.seconds:.1f} s"


def _prove(work: Work, steps: Sequence[Step[Work]]) -> None:
    """Take these steps. A dump that can't be restored for proof is kept and sent all the same, and the run has failed.

    Raises FailedError then. The newest such dump takes the place of earlier ones, and of nothing that is proven.
    """
    try:
        take(work.stack, work, steps)
    except verify.UnprovenError as error:
        work.manifest = replace(work.manifest, unproven=printable(str(error), "")[: manifest.MOST_TOLD])
        take(work.stack, work, [PUBLISH])
        for one in [one for one in work.made if one.unproven and _is_a_safety_one(one) == _is_a_safety_one(work)]:
            _discard(work.stack.paths.backup(one.id))
            work.made.remove(one)
        also = ""
        if UPLOAD in steps:
            try:
                take(work.stack, work, [UPLOAD])
            except FailedError as upload:
                also = f"; it was not sent off the droplet: {upload}"
        raise FailedError(f"{error}; the dump is kept as {work.id}, unproven{also}", error.tail) from error


def _is_a_safety_one(one: Work | Manifest) -> bool:
    """What a restore saved may be all that is left of its data: nothing but another such one takes its place."""
    return one.reason == "safety"


def _publish(work: Work) -> str:
    manifest.save(work.place, work.manifest)
    durable.rename(work.place, work.whole)
    return str(work.whole)


def _upload(work: Work) -> str:
    """What the storage lacks of earlier ones goes along: it could not be sent, or the storage is another one now.

    So does what lies there and was never found to be whole: its comparison failed, or was killed.
    """
    stack = work.stack
    if not offsite.configured(stack):
        return "nowhere: offsite_repository is not set"
    if stack.config.isolated:
        return "nowhere: this droplet is isolated, and only reads what is there"
    there = offsite.sent(stack)
    _number_behind(work, there)
    kept = [one for one in manifest.every(stack.paths.backups) if one.verified or one.unproven]
    unsent = [one for one in kept if one.id not in there or not one.offsite]
    for one in reversed(unsent):
        directory = stack.paths.backup(one.id)
        snapshot = offsite.upload(stack, one, directory)
        sent = replace(one, offsite=Offsite(stack.machine.now().isoformat(timespec="seconds"), snapshot))
        manifest.save(directory, sent)
        stack.journal.tell("upload", "progress", f"{one.id} is snapshot {snapshot}")
    return f"{len(unsent)} sent"


def _number_behind(work: Work, there: set[str]) -> None:
    """Number what was not sent yet behind what the storage has and this droplet never saw.

    Numbers are kept on this disk. After the droplet was put back to a provider's snapshot they would be used twice, and
    the nights that were given up would count as the newest ones.
    """
    ours = [*work.made, work.manifest]
    shared = max((one.id for one in ours if one.id in there), default="")
    strangers = {one for one in there if one > shared} - {one.id for one in ours}
    try:
        highest = offsite.highest_since(work.stack, shared, strangers)
    except FailedError as error:  # off the droplet the time has the order anyway
        work.stack.journal.tell("upload", "progress", f"the numbers there were not read: {error}")
        return
    if not highest:
        return
    backup_number.seen(work.stack.paths, highest)
    late = [one for one in ours if one.id > shared and one.reason != "release"]
    if not late or late[0].sequence > highest:
        return
    again = {one.id: replace(one, sequence=number) for number, one in enumerate(late, start=highest + 1)}
    for one in again.values():
        manifest.save(work.stack.paths.backup(one.id), one)
    work.made = [again.get(one.id, one) for one in work.made]
    work.manifest = again.get(work.manifest.id, work.manifest)
    work.stack.journal.tell("upload", "progress", f"the storage has numbers up to {highest}: numbered behind them")


def _prune(work: Work) -> str:
    paths = work.stack.paths
    _compare_with_former_ones(work)
    _prune_releases(paths.backups)
    others = [one for one in manifest.every(paths.backups) if one.reason != "release"]
    kept = retention.choose(others, daily=KEPT_DAYS)
    # What is newer and proven has other data: a restore put that in the place of what this one has.
    oldest = min(one.sequence for one in others if one.id in kept)
    kept |= {one.id for one in others if one.unproven and _is_a_safety_one(one) and one.sequence > oldest}
    for one in others:
        if one.id not in kept:
            _discard(paths.backup(one.id))
    return f"kept {', '.join(one.id for one in others if one.id in kept)}"


def _compare_with_former_ones(work: Work) -> None:
    """With the largest since somebody asked for one: each night tells of what is gone, until somebody asks again."""
    former = [*_since_one_was_asked_for(work.made), *_since_one_was_asked_for(work.there)[-1:]]
    if not former:
        return
    largest = max(former, key=_dumped)
    was, now = _dumped(largest), _dumped(work.manifest)
    if 2 * now < was:
        asked = work.reason == "asked"
        meant = "this one is what the next are compared with" if asked else "sudo stackctl backup acknowledges it"
        raise FailedError(
            f"the dump has lost more than half of its size: {now / 1e6:.1f} MB, {was / 1e6:.1f} MB in {largest.id}; "
            f"nothing was pruned: look for what is gone, and keep what has it; if it was meant, {meant}"
        )


def _since_one_was_asked_for(made: Sequence[Manifest]) -> list[Manifest]:
    """The verified ones, that one among them; all where none was."""
    proven = [one for one in made if one.verified and one.reason != "safety"]
    asked = [number for number, one in enumerate(proven) if one.reason == "asked"]
    return proven[max(asked, default=0) :]


def _dumped(one: Manifest) -> int:
    return one.files[manifest.DUMP].bytes


def _prune_releases(backups: Path) -> None:
    """Of what releases made, the last ones stay, and whatever no newer verified backup makes up for."""
    made = manifest.every(backups)
    proven = max((one.sequence for one in made if one.verified), default=0)
    for one in [one for one in made if one.reason == "release"][:-KEPT_OF_RELEASES]:
        if one.sequence < proven:
            _discard(backups / one.id)


def _discard(whole: Path) -> None:
    """Killed amid it, it is no backup any more, but a leftover."""
    leftover = whole.name + UNFINISHED
    with openat.directory(whole.parent) as backups:
        backups.rename(whole.name, leftover)
        backups.remove(leftover)


@contextmanager
def _unfinished(whole: Path) -> Iterator[Path]:
    """A directory to make this one in, locked by who does; gone at the end, unless it was given its name."""
    name = whole.name + UNFINISHED
    with openat.directory(whole.parent) as backups:
        place = backups.make(name)
        try:
            fcntl.flock(place.descriptor, fcntl.LOCK_EX)
            yield place.path
        finally:
            with suppress(OSError):
                backups.remove(name)
            place.close()


def _reap(stack: Stack) -> None:
    """What killed runs left: nobody has it locked."""
    with openat.directory(stack.paths.backups) as backups:
        for path in stack.paths.backups.glob(f"*{UNFINISHED}"):
            place = backups.below(path.name)
            try:
                fcntl.flock(place.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                verify.remove(stack, path.name.removesuffix(UNFINISHED))
                backups.remove(path.name)
            except BlockingIOError:
                continue
            finally:
                place.close()


PREFLIGHT = Step("preflight", "the data answers, there is room, no leftovers", _preflight)
DUMP = Step("dump", "PostgreSQL's data and roles, and counts of the same moment", _dump)
REDIS = Step("redis", "all its keys", _save_redis)
VERIFY = Step("verify", "restore it into throwaway containers, and count", _verify)
PUBLISH = Step("publish", "give it its name: from here on it is a backup", _publish)
UPLOAD = Step("upload", "send it off the droplet", _upload)
PRUNE = Step("prune", f"keep those of {KEPT_DAYS} days", _prune)

DUMPED = (PREFLIGHT, DUMP, REDIS)
"""While nobody else may change the droplet."""
PROVEN = (VERIFY, PUBLISH, UPLOAD, PRUNE)
BACKUP = (*DUMPED, *PROVEN)
