"""restore: a backup's data in the place of the live data, or in a database beside it.

RESTORE is the whole story, in order; BESIDE takes of it what changes nothing that is live. The bot serves on while the
database is restored beside the live one, counted and migrated; it is closed while the two change names and Redis starts
anew. Up to `start` a failure is undone, step by step backwards. A kill behind `close` leaves a record
(unfinished_restore.py), with which the same command again finishes the job.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from stackctl.app import app_env, lifecycle, schema, state, unfinished_restore, webhook
from stackctl.app.stack import Stack
from stackctl.app.state import Revision
from stackctl.app.unfinished_restore import Record
from stackctl.backup import create, loading, manifest, offsite, verify
from stackctl.backup.manifest import Manifest
from stackctl.backup.stored import LATEST
from stackctl.core import durable, openat
from stackctl.core.config import Data
from stackctl.core.errors import FailedError, PersonNeededError, RefusedError
from stackctl.core.steps import Step, carry_out, take, undo
from stackctl.release import preflight
from stackctl.services import compose
from stackctl.services.docker import Container
from stackctl.services.postgres import ADMIN, Postgres, Server
from stackctl.services.redis import Directory, Redis, loaded

LOAD_TIMEOUT = 4 * 3600
WAL = 1 << 30
"""Bytes of write-ahead log that PostgreSQL keeps while much is written, at most (max_wal_size)."""
SHOWN = 20
MOST_REVISIONS = 10_000
"""Of a backup's schema: they are the live state's afterwards, which each command reads."""
BETWEEN = (
    "what is written from then until everybody gets 503 is in neither, and lost: where that matters, sudo stackctl "
    "maintenance on first (the worker goes on with its jobs)"
)
FORMER = "_replaced"
RESERVED = ("postgres", "template0", "template1")
NAME = re.compile(r"[a-z][a-z0-9_]{0,52}", re.ASCII)


class Asked(NamedTuple):
    """What the operator said."""

    backup: str
    """An id, or `latest`."""
    from_offsite: bool = False
    to_database: str | None = None
    yes: str | None = None
    """The id, once more."""
    safety: bool = True
    snapshot: str | None = None
    """Off the droplet, where several have one ID."""

    @property
    def words(self) -> list[str]:
        """As arguments."""
        flags = {"--from-offsite": self.from_offsite, "--no-safety": not self.safety}
        options = {"--to-database": self.to_database, "--yes": self.yes, "--snapshot": self.snapshot}
        given = [flag for flag, wanted in flags.items() if wanted]
        return [self.backup, *given, *(word for option, value in options.items() if value for word in (option, value))]


@dataclass
class Work:
    """A restore under way: what its steps hand on."""

    stack: Stack
    asked: Asked
    data: Data
    manifest: Manifest = field(init=False)
    record: Record | None = None
    """Of this one, begun now or by a run that was killed."""
    earlier: Record | None = None
    """Of another backup's, which came to no end."""
    left_out: Sequence[str] = ()
    """What the restored database has not as it was, a line each."""
    revisions: tuple[Revision, ...] = ()
    """Of the backup's schema, as its droplet remembered them."""

    @property
    def place(self) -> Path:
        return self.stack.paths.backup(self.manifest.id)

    @property
    def server(self) -> Server:
        return Postgres(self.stack.docker, self.stack.paths, self.data).server

    @property
    def load(self) -> loading.Load:
        dump, roles = (self.place / name for name in (manifest.DUMP, manifest.GLOBALS))
        return loading.Load(self.server, self.restored, self.data.owner, dump, roles, LOAD_TIMEOUT)

    @property
    def target(self) -> str:
        return self.asked.to_database or self.data.database

    @property
    def restored(self) -> str:
        """The database while it is restored."""
        return self.target + unfinished_restore.DATABASE

    @property
    def former(self) -> str:
        """The one that was live."""
        return self.target + FORMER

    @property
    def mark(self) -> str:
        """What the restored database says of itself."""
        id_, token = (self.record.id, self.record.token) if self.record else (self.manifest.id, self.stack.journal.run)
        return f"restored from {id_} by {token}"

    @property
    def placed(self) -> bool:
        return self.record is not None and self.record.placed

    @property
    def lasts(self) -> str:
        return "the data is in its place" if self.placed else ""

    @property
    def serving(self) -> str:
        return self.stack.serving

    @property
    def remedy(self) -> str:
        asked = self.asked._replace(backup=self.record.id) if self.record else self.asked
        return " ".join(["sudo stackctl restore", *asked.words])

    @property
    def swapped(self) -> bool:
        """The live database is the restored one."""
        return self.record is not None and (self.placed or self.server.comment(self.target) == self.mark)

    @property
    def ready(self) -> bool:
        """There is nothing left to do for the restored database but to take its place."""
        return self.record is not None and (self.swapped or self.server.comment(self.restored) == self.mark)

    @property
    def redis(self) -> Directory:
        return Directory(Path(self.data.root) / "redis")


def restore(stack: Stack, asked: Asked) -> None:
    """Whoever calls holds the site's lock and that of backups.

    Raises what carry_out does.
    """
    work = _work(stack, asked)
    if asked.to_database:
        carry_out(work, BESIDE)
        return
    carry_out(work, AGREED)
    _settle(work)
    carry_out(work, REPLACED, begun=REPLACED if work.record else ())


def look(stack: Stack, asked: Asked) -> Manifest:
    """Tell what would happen; the backup that it would happen with."""
    work = _work(stack, asked)
    take(stack, work, (PREFLIGHT, PLAN))
    return work.manifest


def _work(stack: Stack, asked: Asked) -> Work:
    if not stack.config.data:
        raise RefusedError("the database is on another host: restore there")
    name, live = asked.to_database, stack.config.data.database
    if name and (
        name in {live, *RESERVED} or name.endswith((unfinished_restore.DATABASE, FORMER)) or not NAME.fullmatch(name)
    ):
        raise RefusedError(f"{name!r} can't be a database beside {live}: a-z, 0-9 and _, and none that is in use")
    return Work(stack, asked, stack.config.data)


def _settle(work: Work) -> None:
    """What another backup's restore has half done is undone. Where its data is in its place, that is what gives way."""
    earlier = work.earlier
    if not earlier:
        return
    if earlier.placed:
        _forget_former(work)
        return
    work.earlier = None
    begun = Work(work.stack, work.asked, work.data, record=earlier)
    work.stack.journal.tell("settle", "progress", f"the restore of {earlier.id} was interrupted, and is undone")
    if left := undo(begun, REPLACED):
        raise PersonNeededError(f"the restore of {earlier.id} is not undone: {left}: {begun.remedy}")


# what is to be restored, and whether it can be


def _preflight(work: Work) -> str:
    stack, config = work.stack, work.stack.config
    work.manifest = _chosen(work)
    then = work.manifest
    if then.app != stack.paths.app:
        raise RefusedError(f"{then.id} is a backup of {then.app}, this is {stack.paths.app}")
    if work.asked.from_offsite and not work.asked.to_database and _starts_here(stack):
        raise RefusedError("no release was ever live here, so another droplet may live: make isolate first, then again")
    record = unfinished_restore.load(stack.paths)
    if record and not work.asked.to_database:
        if record.id == then.id:
            work.record = record
        else:
            work.earlier = record
        # It may have been killed while it had Redis stopped.
        stack.bring_up("data", compose.resume(stack.paths.data_project, stack.paths.data_yaml))
        stack.wait_until_well(stack.paths.data_project, "preflight", config.healthy_timeout, fail_early=False)
    preflight.check_data(stack)
    room = Postgres(stack.docker, stack.paths, work.data).room()
    if then.postgres.major > room.major:
        raise RefusedError(
            f"{then.id} is of PostgreSQL {then.postgres.major}, {room.major} runs: declare an image of it"
        )
    _check_redis(work)
    if work.asked.to_database and work.target in work.server.databases():
        raise RefusedError(f"there is a database {work.target} already: drop it, or choose another name")
    needed = then.postgres.bytes + min(then.postgres.bytes, WAL) + offsite.SPARE
    if not work.ready and (free := stack.machine.free(Path(work.data.root))) < needed:
        raise RefusedError(
            f"{work.data.root} has {free >> 20} MiB left, a restore needs {needed >> 20}: make room there"
        )
    _check_schema(work)
    return f"{then.id}, {then.rows} rows of {then.at}" + (", which a run before this one began" if work.record else "")


def _starts_here(stack: Stack) -> bool:
    """A droplet that nobody works with yet, and that would go to work with its first release."""
    return not stack.config.isolated and not state.load(stack.paths).kept


def _chosen(work: Work) -> Manifest:
    """FailedError and RefusedError say why there is no such backup."""
    stack, wanted = work.stack, work.asked.backup
    if work.asked.from_offsite:
        return offsite.chosen(stack, wanted, work.asked.snapshot)
    if work.asked.snapshot:
        raise RefusedError("--snapshot is one off the droplet: add --from-offsite")
    known = manifest.every(stack.paths.backups)
    if wanted == LATEST:
        # What a restore saved is for whoever names it: it has what was to be got rid of.
        usable = [one for one in known if one.verified and one.reason != "safety"]
        if not usable:
            raise RefusedError(
                "there is no verified backup here. Next: sudo stackctl backups; sudo stackctl restore latest "
                "--from-offsite (make restore OFFSITE=yes) looks off the droplet"
            )
        return usable[-1]
    if found := next((one for one in known if one.id == wanted), None):
        return found
    if manifest.ID.fullmatch(wanted) and stack.paths.backup(wanted).exists():
        manifest.load(stack.paths.backup(wanted))  # says what is wrong with it
    raise RefusedError(
        f"there is no backup {wanted!r}: sudo stackctl backups lists those here, sudo stackctl offsite the others, "
        "which --from-offsite takes (make restore OFFSITE=yes)"
    )


def _check_redis(work: Work) -> None:
    """An older Redis can't read what a newer one saved."""
    told = work.manifest.redis
    if not told or work.asked.to_database:
        return
    runs = Redis(work.stack.docker, work.stack.paths).info()["redis_version"]
    if _minor(told.version) > _minor(runs):
        raise RefusedError(f"{work.manifest.id} is of Redis {told.version}, {runs} runs: declare an image of it")


def _check_schema(work: Work) -> None:
    """As far as records tell; what the live image itself says of the restored data comes before the swap."""
    current = state.load(work.stack.paths)
    if work.asked.to_database or not work.stack.config.migrate or not current.release:
        return
    coming = work.manifest.schema
    now = current.revisions[-1].revision if current.revisions else None
    names = [one.revision for one in current.revisions]
    known = names[: names.index(current.release.schema) + 1] if current.release.schema in names else []
    if coming in {None, now, current.release.schema, *known}:
        return
    if coming in names:
        raise RefusedError(_too_new(work, coming))


def _too_new(work: Work, revision: str | None) -> str:
    live = state.load(work.stack.paths).release
    then = work.manifest.release
    known = f"{live.tag} knows {live.schema}" if live else ""
    version = f"stackctl release {then['tag']}" if then else "release the version that made it"
    return f"its schema {revision} is newer than the live release's ({known}): {version} first, or --to-database NAME"


# what is about to happen


def _tell_plan(work: Work) -> str:
    for line in _plan(work):
        work.stack.journal.tell("plan", "progress", line)
    return ""


def _plan(work: Work) -> list[str]:
    then, current, database = work.manifest, state.load(work.stack.paths), work.data.database
    proof = f"restored for proof in {then.verified.seconds:.0f} s" if then.verified else "never restored for proof"
    lines = [f"backup {then.id} ({then.reason}), of {then.at}, {then.bytes / 1e6:.1f} MB, {proof}"]
    if then.unproven:
        lines.append(f"unproven, since it does not restore in one go: {then.unproven}")
    lines += _not_as_it_was(work)
    if work.asked.to_database:
        return [*lines, f"{then.rows} rows into the database {work.target}, beside {database}: nothing live is changed"]
    try:
        lines += _rows_now_and_then(work)
    except FailedError as error:
        lines.append(f"{database} can't be counted now: {error}")
    if then.redis:
        keys = Redis(work.stack.docker, work.stack.paths).keys()
        lines.append(f"Redis: {keys} keys now give way to {then.redis.keys}")
    else:
        lines.append("Redis stays as it is: the backup has nothing of it")
    made_by = then.release["tag"] if then.release else "none"
    lines.append(f"release: {current.release.tag if current.release else 'none'} now, {made_by} then")
    if current.revisions and current.revisions[-1].revision != then.schema:
        lines.append(f"schema: {current.revisions[-1].revision} now, {then.schema} then: migrated before it is live")
    if work.record:
        lines.append("what it replaces was saved before the interruption")
    elif work.asked.safety:
        lines.append(f"what it replaces is saved before, as backup {work.stack.journal.run}")
        lines += [BETWEEN] if _is_asked(work.stack) else []
    else:
        lines.append("what it replaces is lost: --no-safety")
    return [*lines, _downtime(work.stack)]


def _is_asked(stack: Stack) -> bool:
    """Whether a release answers here."""
    return bool(state.load(stack.paths).release) and not stack.config.isolated and not stack.paths.maintenance.exists()


def _downtime(stack: Stack) -> str:
    """Who notices."""
    if not _is_asked(stack):
        return f"{_answers(stack)}, so nobody is turned away for it"
    telegram = ", and Telegram asks again" if stack.config.webhook_path else ""
    return f"the live release goes on until all is ready; then everybody gets 503 for some seconds{telegram}"


def _not_as_it_was(work: Work) -> list[str]:
    """What the restored database will lack, or have otherwise. What is yet to be fetched tells it when it is loaded."""
    if work.ready or not (work.place / manifest.DUMP).exists():
        return []
    try:
        told = work.load.contents().told
    except (FailedError, FileNotFoundError):
        return []  # what is damaged is refused, or fetched
    return [*told[:SHOWN], *([f"… and {len(told) - SHOWN} more"] if len(told) > SHOWN else [])]


def _rows_now_and_then(work: Work) -> list[str]:
    with work.server.snapshot(work.data.database) as snapshot:
        now = snapshot.rows()
    then = work.manifest.tables
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    lines = [
        f"{work.data.database}: {sum(now.values())} rows in {len(now)} tables now give way to "
        f"{work.manifest.rows} in {len(then)}"
    ]
    lines += [
        f"  {name}: {now.get(name, 'no table')} now, {then.get(name, 'no table')} then" for name in differing[:SHOWN]
    ]
    return lines + ([f"  … and {len(differing) - SHOWN} tables more that differ"] if len(differing) > SHOWN else [])


def check_answer(asked: Asked, wanted: str) -> None:
    """RefusedError unless the operator named the very backup."""
    if asked.yes != wanted:
        said = f"{asked.yes!r} isn't its id" if asked.yes else "nobody has confirmed it"
        again = " ".join(["sudo stackctl restore", *asked._replace(backup=wanted, yes=wanted).words])
        elsewhere = " OFFSITE=yes" if asked.from_offsite else ""
        added = f" (or your make restore with ID={wanted}{elsewhere} YES={wanted})" if asked.safety else ""
        raise RefusedError(f"{said}: nothing was changed; to go on: {again}{added}")


def _confirm(work: Work) -> str:
    check_answer(work.asked, work.manifest.id)
    return work.manifest.id


def _fetch(work: Work) -> str:
    """From here on its files are here, and as they were written."""
    if work.placed:
        return "before the interruption"
    faults = manifest.differing(work.place, work.manifest)
    if not faults:
        message = "here, and as it was written"
    elif work.asked.from_offsite:
        create.fetch(work.stack, work.manifest)
        message = f"fetched, {work.manifest.bytes / 1e6:.1f} MB"
    else:
        raise RefusedError(
            f"{work.manifest.id}: {', '.join(faults)}: restore another, or this one --from-offsite (make: OFFSITE=yes)"
        )
    work.revisions = _remembered(work.place)
    return message


def _remembered(place: Path) -> tuple[Revision, ...]:
    """The revisions of the backup's schema, by the state.json in it."""
    with openat.directory(place.parent, place.name) as there:
        text = there.read(manifest.STATE, manifest.LONGEST)
    try:
        found = state.State.from_json(text).revisions
        if odd := next((one for one in found if not re.fullmatch(manifest.REVISION, one.revision, re.ASCII)), None):
            raise ValueError(f"{str(odd.revision)[:80]!a} is no revision")
        if len(found) > MOST_REVISIONS or not {one.kind for one in found} <= {"expand", "contract"}:
            raise ValueError("its revisions make no sense")
        return found
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FailedError(f"{place / manifest.STATE} can't be read ({error!r}): restore another backup") from None


# the restored data, beside the live data


def _load(work: Work) -> str:
    if work.ready:
        return "before the interruption"
    load = work.load
    work.server.drop(work.restored)
    contents = load.contents()
    try:
        if work.manifest.unproven:
            work.left_out = [*contents.told, *load.as_far_as_possible(contents)]
        else:
            load.strictly(contents)
            work.left_out = contents.told
        load.as_live(work.data.database)
    finally:
        loading.end(work.server)
    return f"{work.manifest.rows} rows"


def _forget_restored(work: Work) -> None:
    work.server.drop(work.restored)
    loading.end(work.server)


def _count(work: Work) -> str:
    if work.ready:
        return "before the interruption"
    try:
        verify.compare(work.server.rows(work.restored), work.manifest.tables)
    except FailedError as error:
        if not work.manifest.unproven:
            raise
        if not work.asked.to_database:
            raise FailedError(f"{error}; --to-database NAME takes what there is of it") from error
        work.left_out = [*work.left_out, str(error)]
    return f"{len(work.manifest.tables)} tables have what the backup counted"


def _name(work: Work) -> str:
    work.server.rename((work.restored, work.target))
    _tell_left_out(work)
    return work.target


def _tell_left_out(work: Work) -> None:
    for line in work.left_out[:SHOWN]:
        work.stack.journal.tell("load", "progress", f"not as it was: {line}")
    if len(work.left_out) > SHOWN:
        work.stack.journal.tell("load", "progress", f"not as it was: {len(work.left_out) - SHOWN} things more")


def _migrate(work: Work) -> str:
    stack, current = work.stack, state.load(work.stack.paths)
    if work.ready:
        return "before the interruption"
    live, message = current.release, "as the live release has it"
    if not stack.config.migrate:
        message = "the image has none"
    elif not live or not current.active:
        message = "no release yet: whatever comes migrates it"
    else:
        project = stack.paths.project(current.active)
        values = app_env.load(stack.paths.snapshot(live.id))
        elsewhere = {**values, "DATABASE_URL": _of_database(values["DATABASE_URL"], work.restored)}
        env = stack.web_environment(current.active, live, elsewhere)
        _remove_one_shots(work)
        report = schema.read(stack, project, env, live)
        ahead = not report.pending and report.current != report.head
        now = current.revisions[-1].revision if current.revisions else None
        if ahead and report.current not in {None, now}:
            raise RefusedError(_too_new(work, report.current))
        if report.pending:
            schema.migrate(stack, project, env, live)
            work.revisions, message = (*work.revisions, *report.pending), schema.named(report.pending)
    work.server.query(ADMIN, f"COMMENT ON DATABASE \"{work.restored}\" IS '{work.mark}'")
    return message


def _remove_one_shots(work: Work) -> None:
    """One outlives its client, whether that was killed now or in an earlier run."""
    docker, active = work.stack.docker, state.load(work.stack.paths).active
    if active:
        docker.remove(docker.containers(work.stack.paths.project(active), one_off=True))


# the one in the other's place


def _save(work: Work) -> str:
    if work.record:
        return "before the interruption"
    if not work.asked.safety:
        return "not wanted"
    return create.safety(work.stack).id


def _close(work: Work) -> str:
    stack = work.stack
    if work.placed:
        return "not any more: the data is in its place"
    if not work.record:
        closed = work.earlier.maintenance if work.earlier else stack.paths.maintenance.exists()
        work.record = Record(work.manifest.id, stack.journal.run, closed, work.revisions)
        unfinished_restore.save(stack.paths, work.record)
    durable.write(stack.paths.maintenance, b"", 0o644)
    lifecycle.stop_app(stack)
    lifecycle.stop_worker(stack)
    return "everybody gets 503, and nothing writes any more"


def _reopen(work: Work) -> None:
    if not work.record:
        return
    if work.swapped or work.redis.has_former:
        raise FailedError("the data is half the backup's, half its own: nobody is let in")
    _start_data(work)
    if work.earlier:
        unfinished_restore.save(work.stack.paths, work.earlier)  # it was closed already
        return
    _start(work)
    _wait_for_health(work)
    _open(work)
    unfinished_restore.remove(work.stack.paths.restoring)


def _swap(work: Work) -> str:
    if not work.swapped:
        work.server.drop(work.former)
        work.server.rename((work.target, work.former), (work.restored, work.target))
    return f"{work.target} is the restored one"


def _swap_back(work: Work) -> None:
    if work.swapped and work.former in work.server.databases():
        work.server.rename((work.target, work.restored), (work.former, work.target))


def _place_rdb(work: Work) -> str:
    stack = work.stack
    if not work.manifest.redis:
        message = "the backup has nothing of it"
    elif work.placed:
        message = "before the interruption"
    else:
        stack.docker.stop(_redis(stack))  # it saves, and nothing is written any more
        work.redis.place(work.place / manifest.RDB)
        _start_data(work)
        message = _loaded(work, work.manifest.redis.keys)
    if work.record:
        work.record = replace(work.record, placed=True)
        unfinished_restore.save(stack.paths, work.record)
        state.save(stack.paths, replace(state.load(stack.paths), revisions=work.record.revisions))
    return message


def _put_rdb_back(work: Work) -> None:
    if work.redis.has_former:
        work.stack.docker.stop(_redis(work.stack))
        work.redis.put_back()


def _loaded(work: Work, keys: int) -> str:
    there = loaded(Redis(work.stack.docker, work.stack.paths).info())
    if there != keys:
        raise FailedError(f"Redis has {there} keys, the backup has {keys}: stackctl logs redis")
    return f"{keys} keys, those among them that have expired since"


# the bot again


def _start(work: Work) -> str:
    started = lifecycle.start_app(work.stack)
    lifecycle.start_worker(work.stack)
    return started


def _wait_for_health(work: Work) -> str:
    return lifecycle.wait_for_app(work.stack)


def _open(work: Work) -> str:
    webhook.mend_and_tell(work.stack)
    if work.record and work.record.maintenance:
        return "not yet: maintenance was on before"
    work.stack.paths.maintenance.unlink(missing_ok=True)
    return _answers(work.stack)


def _answers(stack: Stack) -> str:
    """What nginx says to those who ask now."""
    if stack.config.isolated:
        return "everybody gets 503, since this droplet is isolated"
    if not state.load(stack.paths).release:
        return "everybody gets 503, since no release is live"
    return "everybody gets 503, since maintenance is on" if stack.paths.maintenance.exists() else "nginx answers again"


def _forget(work: Work) -> str:
    """What was replaced is in the safety backup."""
    _tell_left_out(work)
    _forget_former(work)
    unfinished_restore.remove(work.stack.paths.restoring)
    current, then = state.load(work.stack.paths).release, work.manifest.release
    if current or not then:
        return ""
    return f"no release is live. At the backup it was {then['tag']}. Next: make release TAG={then['tag']}"


def _forget_former(work: Work) -> None:
    work.server.drop(work.former)
    work.redis.forget_former()


# tools


def _of_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:2])


def _redis(stack: Stack) -> list[Container]:
    return [one for one in stack.docker.containers(stack.paths.data_project) if one.service == "redis"]


def _start_data(work: Work) -> None:
    stack = work.stack
    stack.bring_up("data", compose.resume(stack.paths.data_project, stack.paths.data_yaml))
    stack.wait_until_well(stack.paths.data_project, "rdb", stack.config.healthy_timeout, fail_early=False)


PREFLIGHT = Step("preflight", "which backup, and whether it can be restored here", _preflight)
PLAN = Step("plan", "what is about to happen", _tell_plan)
_CONFIRM = Step("confirm", "somebody wants just this", _confirm)
_FETCH = Step("fetch", "its files are here, and as they were written", _fetch)
_LOAD = Step("load", "into a database beside the live one", _load, _forget_restored)
_COUNT = Step("count", "compare with what the backup counted", _count)
_MIGRATE = Step("migrate", "by the live release, when its schema is older", _migrate, _remove_one_shots)
_SAFETY = Step("safety", "a backup of what is to be replaced", _save)
_CLOSE = Step("close", "nginx answers 503, web and worker end", _close, _reopen)
_SWAP = Step("swap", "the two databases change names", _swap, _swap_back)
_RDB = Step("rdb", "Redis starts anew, from the backup's file", _place_rdb, _put_rdb_back)
_START = Step("start", "web and worker, as they were", _start)
_HEALTH = Step("health", "wait for it", _wait_for_health)
_OPEN = Step("open", "maintenance ends, unless it was on before", _open)
_FORGET = Step("forget", "what was replaced", _forget)
_NAME = Step("name", "it gets its name", _name)

AGREED = (PREFLIGHT, PLAN, _CONFIRM)
REPLACED = (_FETCH, _LOAD, _COUNT, _MIGRATE, _SAFETY, _CLOSE, _SWAP, _RDB, _START, _HEALTH, _OPEN, _FORGET)
RESTORE = (*AGREED, *REPLACED)
# It changes nothing that is live, so nobody has to confirm it.
BESIDE = (PREFLIGHT, PLAN, _FETCH, _LOAD, _COUNT, _NAME)
