"""Backups off the droplet: a restic repository on S3-compatible storage, with a snapshot a backup, tagged with its id.

The droplet's key only adds, so that whoever breaks in can't take the backups away: what goes from there goes from the
operator's side (`make prune`). Not every storage has such keys, so what this one may do is tried (`Powers`). Nothing is
believed: what was sent is fetched again, and compared.
"""

import http.client
import json
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import backup_number, manifest, stored
from stackctl.backup.manifest import Manifest, Offsite
from stackctl.backup.stored import LATEST, Snapshot, Stored
from stackctl.core import durable, openat, redact
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.machine import ENVIRONMENT, SPARE, TIMED_OUT, TOO_LONG, Result
from stackctl.core.paths import Paths
from stackctl.services import s3

PATIENCE_S = 120
SLOWEST = 500_000
"""Bytes a second; slower than that, nothing gets through. restic itself would try on for a quarter of an hour."""
LOCKED_S, ASK_AGAIN_S = 600, 15
"""How long somebody else's work in the repository is waited for."""
READING = "reading what lies off the droplet, about a second a backup"
"""restic derives its key anew for each, on purpose slowly."""
FETCHED = "fetched"
"""Where what was sent is fetched to, beside the backups."""
PROBE = "stackctl-probe"
"""An object beside restic's, by which is tried what the key may do."""
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
"""Exit codes of restic's, since 0.17."""
NO_SUCH_FILE = re.compile(r"cannot dump file: .*( not found in snapshot| should be a (file|dir), but is a )")
"""What restic says of one that a snapshot doesn't have."""
AGAIN = "sudo stackctl backup"


@dataclass(frozen=True)
class Access:
    """What the deploys tell of the storage, in paths.offsite."""

    repository: str
    append_only: bool
    """The storage is to let this key add, and no more."""
    read_only: bool
    """This droplet is a copy of the one whose backups these are."""
    key_id: str = field(repr=False)
    key_secret: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def key(self) -> s3.Key:
        return s3.Key(self.key_id, self.key_secret)

    @property
    def secrets(self) -> list[str]:
        return redact.spellings([self.key_id, self.key_secret, self.password])


@dataclass(frozen=True)
class Powers:
    """What the droplet's key was found to be able to do to what is there."""

    at: str
    deletes: bool
    overwrites: bool

    @property
    def appends_only(self) -> bool:
        return not (self.deletes or self.overwrites)

    def __str__(self) -> str:
        if self.appends_only:
            return "the droplet's key can add, and neither delete nor overwrite"
        can = [word for word, may in (("delete", self.deletes), ("overwrite", self.overwrites)) if may]
        return f"the droplet's key can {' and '.join(can)} what is there"


def configured(stack: Stack) -> bool:
    return stack.paths.offsite.exists()


def load(paths: Paths) -> Access:
    """Raises RefusedError."""
    try:
        document = json.loads(paths.offsite.read_text())
    except FileNotFoundError:
        raise RefusedError(f"{NOWHERE}, then make site") from None
    except ValueError:
        document = None
    kinds = {one.name: bool if one.name.endswith("_only") else str for one in fields(Access)}
    if not isinstance(document, dict) or {name: type(value) for name, value in document.items()} != kinds:
        raise RefusedError(f"{paths.offsite} is not what this stackctl reads: converge the site (make site)")
    return Access(**document)


def upload(stack: Stack, told: Manifest, directory: Path) -> str:
    """Send a whole backup. Its snapshot's id, once all of it was fetched again and is as it was.

    Raises FailedError with the cause and the next step.
    """
    repository = Repository(stack)
    if repository.access.read_only:
        raise RefusedError("this droplet is isolated, and only reads what is off it: make live")
    # Sent as it is, it would come back as damaged night by night, and the storage be blamed for it.
    if faults := manifest.differing(directory, told):
        raise FailedError(
            f"{told.id} is no longer what was written: {', '.join(faults)}: look at the disk (journalctl -k), then "
            f"remove {directory}"
        )
    repository.find()
    repository.probe()
    # Of a run of ours that was killed, the lock would keep make prune out for half an hour.
    repository.restic("unlock")
    options = ("--json", "--quiet", "--no-scan", "--host", told.app, "--tag", told.id)
    sent = repository.restic("backup", *options, directory, timeout=_patience(told))
    snapshot = Snapshot(_summary(sent), "", told.id, str(directory))
    # Nobody else sends meanwhile: what is there was left by one that was killed.
    with openat.directory(stack.paths.backups) as backups:
        backups.remove(FETCHED)
        try:
            proof = stack.paths.backups / FETCHED / told.id
            proof.mkdir(mode=0o700, parents=True)
            repository.restore(snapshot, told, proof)
        finally:
            backups.remove(FETCHED)
    return snapshot.id


def sent(stack: Stack) -> set[str]:
    """The ids of the backups that lie there. Raises FailedError."""
    repository = Repository(stack)
    repository.find()
    return {snapshot.backup for snapshot in repository.snapshots()}


def everything(stack: Stack, *backup_ids: str) -> list[Stored]:
    """Every snapshot of a backup there, or of these backups alone, oldest first and with its doubts.

    Raises FailedError unless all of it could be read. A snapshot without a readable manifest is no backup and hides
    none: an intruder can add one.
    """
    repository = Repository(stack)
    repository.find()
    found = []
    for snapshot in repository.snapshots(*(word for one in backup_ids for word in ("--tag", one))):
        text = repository.text(snapshot)
        try:
            told = stored.read(text, snapshot)
        except FailedError:
            continue
        at = repository.stored_at(snapshot)
        note = Offsite(at.isoformat(timespec="seconds"), snapshot.id)
        found.append(Stored(snapshot, replace(told, offsite=note), at))
    return stored.judged(found)


def available(stack: Stack) -> list[Manifest]:
    """The manifests of the backups there that are in no doubt, oldest first, as `everything` has them."""
    found = {one.manifest.id: one.manifest for one in everything(stack) if not one.doubts}
    with suppress(OSError):  # as in probe; as long as nothing is kept, it is asked again
        backup_number.seen(stack.paths, _highest(found.values()))
    return list(found.values())


def highest_since(stack: Stack, backup_id: str, later: Iterable[str]) -> int:
    """The highest number among those `later` backups there; 0 if there is none.

    `backup_id` is the newest backup that this droplet and the storage share. A number that jumps from there is not
    followed.
    """
    later = [*later]
    if not later:
        return 0
    found = everything(stack, *([backup_id] if backup_id else []), *later)
    return _highest(one.manifest for one in found if one.manifest.id in later and not one.doubts)


def chosen(stack: Stack, wanted: str, snapshot: str | None = None) -> Manifest:
    """The manifest of what an operator asks for. Its doubts are told.

    Where an intact backup lies here under this ID it is taken, and never replaced. Raises RefusedError when there is no
    such backup, or when it is in doubt which one is meant.
    """
    if wanted == LATEST:
        stack.journal.tell("preflight", "progress", READING)
    elif not manifest.ID.fullmatch(wanted):
        raise RefusedError(f"there is no backup {wanted!r}: sudo stackctl offsite lists those off the droplet")
    elif not snapshot and (here := intact(stack.paths.backup(wanted))):
        return here
    found = everything(stack, *([] if wanted == LATEST else [wanted]))
    one = stored.choose(found, wanted, snapshot)
    place = stack.paths.backup(one.manifest.id)
    if (here := intact(place)) and not one.copies(here):
        if snapshot:
            raise RefusedError(
                f"{place} is intact, and is not what snapshot {snapshot} has. Nothing was changed. Next: restore it "
                "without --from-offsite, or move it away first"
            )
        stack.journal.tell("preflight", "progress", f"{one.name} is not what lies here under its ID, which is taken")
    for doubt in one.doubts:
        stack.journal.tell("preflight", "progress", f"{one.name} is in doubt: {doubt}")
    if wanted == LATEST and (doubtful := sum(1 for other in found if other.doubts)):
        stack.journal.tell("preflight", "progress", f"{doubtful} others are in doubt: sudo stackctl offsite")
    return here or one.manifest


def intact(directory: Path) -> Manifest | None:
    """The manifest of the backup in it, if that is whole."""
    with suppress(FailedError):
        here = manifest.load(directory)
        if not manifest.differing(directory, here):
            return here
    return None


def fetch(stack: Stack, told: Manifest, directory: Path) -> Manifest:
    """Have this very backup's files in that empty directory, which is named by its ID, each as its manifest says.

    Where it was sent more than once, any whole copy will do. Raises RefusedError when the storage has none, FailedError
    for everything else.
    """
    repository = Repository(stack)
    copies = [one.snapshot for one in everything(stack, told.id) if one.copies(told)]
    if not copies:
        raise RefusedError(f"{repository.access.repository} has no such backup {told.id}: sudo stackctl offsite")
    for snapshot in copies[:-1]:
        with suppress(FailedError):
            return repository.restore(snapshot, told, directory)
        with openat.directory(directory.parent, directory.name) as there:
            there.empty()
    return repository.restore(copies[-1], told, directory)


def _highest(found: Iterable[Manifest]) -> int:
    return backup_number.greatest(one.sequence for one in found)


def look(stack: Stack) -> Powers | None:
    """The storage as it is now: whether it opens, and what the key may do; None where this droplet only reads."""
    repository = Repository(stack)
    repository.find()
    repository.restic("cat", "config")
    return None if repository.access.read_only else repository.probe()


def powers(paths: Paths) -> Powers | None:
    """As they were found last; None when they weren't tried yet."""
    try:
        return Powers(**json.loads(paths.offsite_powers.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def problems(paths: Paths, where: str) -> list[str]:
    """What of it needs somebody, a line each. `where` is the environment: staging and the lab may do without."""
    if not paths.offsite.exists():
        return [NOWHERE] if where == "production" else []
    found = powers(paths)
    if found and not found.appends_only and load(paths).append_only:
        return [f"{found}, against offsite_append_only: give it one that only adds (docs/how-to/offsite-backups.md)"]
    return []


NOWHERE = "no backup goes off this droplet: set offsite_repository in group_data (docs/how-to/offsite-backups.md)"


class Repository:
    """The restic repository, by what the droplet has of it."""

    def __init__(self, stack: Stack) -> None:
        self.access = load(stack.paths)
        self._stack = stack

    def find(self) -> None:
        """Raises FailedError when the storage can't be reached, refuses the key, or has no repository there."""
        where, answer = self.access.repository, self.ask("GET", "config")
        if answer.status == 404:
            what = "bucket" if answer.code == "NoSuchBucket" else "repository"
            raise FailedError(f"{where}: there is no such {what}: make offsite, or mend offsite_repository")
        if answer.code == "RequestTimeTooSkewed":
            raise FailedError(f"{where}: the storage has another time than the droplet: timedatectl, then {AGAIN}")
        if answer.status == 403:
            raise FailedError(
                f"{where}: the storage refuses the droplet's key ({answer.cause}): mend OFFSITE_KEY_ID and "
                "OFFSITE_KEY_SECRET in the env file, then make site"
            )
        if answer.status >= 500:
            raise FailedError(f"{where}: the storage is unwell ({answer.cause}): look at it, then {AGAIN}")

    def probe(self) -> Powers:
        """Try what the key may do, and keep that for status. Nothing of restic's is touched.

        Raises FailedError when it can't even add.
        """
        now = self._stack.machine.now().isoformat()
        first, second = f"{now} 1\n".encode(), f"{now} 2\n".encode()
        self.ask("PUT", PROBE, first)
        put, there = self.ask("PUT", PROBE, second), self.ask("GET", PROBE)
        if there.status == 404:
            raise FailedError(
                f"{self.access.repository}: the droplet's key can't add anything ({put.cause}): let it write there "
                f"(docs/how-to/offsite-backups.md), then {AGAIN}"
            )
        overwrites = there.body == second
        self.ask("DELETE", PROBE)
        found = Powers(now, deletes=self.ask("GET", PROBE).status == 404, overwrites=overwrites)
        with suppress(OSError):  # a full disk is when somebody looks which backups may go from here
            durable.write(self._stack.paths.offsite_powers, json.dumps(asdict(found)).encode() + b"\n")
        return found

    def snapshots(self, *options: str) -> list[Snapshot]:
        """In restic's order."""
        return stored.snapshots(self.restic("snapshots", "--json", "--host", self._stack.paths.app, *options).stdout)

    def stored_at(self, snapshot: Snapshot) -> datetime:
        """The storage's own date for it, past restic. Raises FailedError."""
        access, machine = self.access, self._stack.machine
        url = s3.url_of(access.repository, f"snapshots/{snapshot.id}")
        headers = s3.signed("HEAD", url, b"", access.key, machine.now())
        try:
            return s3.date_of(*machine.head(url, headers))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FailedError(
                f"{access.repository}: no date of snapshot {snapshot.id[:8]} ({error}): {AGAIN}"
            ) from None

    def text(self, snapshot: Snapshot) -> str:
        """Of its manifest; nothing where it has none. Raises FailedError."""
        try:
            return self.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}").stdout
        except FailedError as error:
            if NO_SUCH_FILE.search(str(error)):
                return ""
            raise FailedError(f"{snapshot.backup} (snapshot {snapshot.id[:8]}) can't be read: {error}") from None

    def restore(self, snapshot: Snapshot, told: Manifest, directory: Path) -> Manifest:
        """All of it, from the storage and no cache. Raises FailedError unless it is as its manifest says.

        `restic restore` would write whatever an intruder's snapshot has. Of this one, the files that the manifest names
        are written, and of each no more than the manifest says.
        """
        free, needed = self._stack.machine.free(directory), told.bytes + SPARE
        if free < needed:
            raise FailedError(f"{directory} has {free >> 20} MiB left, fetching needs {needed >> 20}: make room there")
        self._fetch(snapshot, directory / manifest.NAME, manifest.LONGEST, PATIENCE_S)
        found = manifest.load(directory)
        if replace(found, offsite=None) != replace(told, offsite=None):
            raise FailedError(f"the storage has another {manifest.NAME} than was sent: {AGAIN}")
        for name, file in told.files.items():
            self._fetch(snapshot, directory / name, file.bytes, _patience(told))
        if faults := manifest.differing(directory, found):
            raise FailedError(f"what the storage has of {told.id} is damaged: {', '.join(faults)}: {AGAIN}")
        return found

    def _fetch(self, snapshot: Snapshot, file: Path, most: int, timeout: float) -> None:
        source = f"{snapshot.path}/{file.name}"
        self.restic("dump", snapshot.id, source, "--no-cache", timeout=timeout, stdout=file, most=most)

    def restic(
        self, *arguments: object, timeout: float = PATIENCE_S, stdout: Path | None = None, most: int = sys.maxsize
    ) -> Result:
        """Raises FailedError. `stdout` and `most` are as Machine.run has them."""
        machine = self._stack.machine

        def run() -> Result:
            return self._run(*arguments, timeout=timeout, stdout=stdout, most=most)

        deadline = machine.monotonic() + LOCKED_S
        while (ran := run()).code == LOCKED and machine.monotonic() < deadline:
            # Takes only locks whose holder is known to be gone, or that were not renewed for half an hour.
            self._run("unlock", timeout=PATIENCE_S)
            machine.sleep(ASK_AGAIN_S)
        if ran.code:
            raise FailedError(self._fault(str(arguments[0]), ran))
        return ran

    def ask(self, method: str, name: str, body: bytes = b"") -> s3.Answer:
        """Past restic. Raises FailedError when nobody answers."""
        machine, access = self._stack.machine, self.access
        url = s3.url_of(access.repository, name)
        headers = s3.signed(method, url, body, access.key, machine.now())
        try:
            return s3.Answer.of(*machine.request(method, url, body, headers))
        except (OSError, http.client.HTTPException) as error:
            cause = error or type(error).__name__
            raise FailedError(
                f"{access.repository}: the storage can't be reached ({cause}): when it answers again, {AGAIN}"
            ) from None

    def _run(self, *arguments: object, timeout: float, stdout: Path | None = None, most: int = sys.maxsize) -> Result:
        access = self.access
        cache = self._stack.paths.offsite_cache
        cache.mkdir(mode=0o700, exist_ok=True)
        env = {
            **ENVIRONMENT,
            "TMPDIR": str(cache),  # for what it is about to send: /tmp is memory
            "RESTIC_REPOSITORY": access.repository,
            "RESTIC_PASSWORD": access.password,
            "AWS_ACCESS_KEY_ID": access.key_id,
            "AWS_SECRET_ACCESS_KEY": access.key_secret,
            "RESTIC_CACHE_DIR": str(cache),
        }
        # A copy of another droplet writes nothing there, be it a lock.
        argv = ["restic", *(["--no-lock"] if access.read_only else []), *map(str, arguments)]
        return self._stack.machine.run(argv, env, timeout, stdout=stdout, most=most)

    def _fault(self, verb: str, ran: Result) -> str:
        """The cause and the next step."""
        where, said = self.access.repository, redact.mask(reason(ran), self.access.secrets)
        known = {
            127: "restic is not installed: converge the site (make site)",
            NO_REPOSITORY: f"{where}: there is no such repository: make offsite",
            WRONG_PASSWORD: f"{where} doesn't open with the droplet's password: make offsite, which has it do so",
            LOCKED: f"{where} is locked ({said}): when make prune has ended, or half an hour after it died, {AGAIN}",
            TOO_LONG: f"{where}: what the storage has is damaged or forged: {ran.reason}: {AGAIN}",
            TIMED_OUT: f"{where}: restic {verb} got no further ({said}): when sudo stackctl offsite goes well, {AGAIN}",
        }
        return known.get(ran.code, f"{where}: restic {verb}: {said}: when sudo stackctl offsite goes well, {AGAIN}")


def reason(ran: Result) -> str:
    """What restic says last of the cause: who has it locked; when it was stopped, what it went on trying."""
    said = [_message(line) for line in ran.stderr.splitlines()]
    tried = [match[1] for line in said if (match := re.search(r"retrying after [^:]+: (.+)", line))]
    fatal = [line.removeprefix("Fatal: ") for line in said if line.startswith("Fatal: ")]
    locked = [line for line in said if "already locked" in line]
    return (locked or (tried if ran.code == TIMED_OUT else fatal) or [ran.reason])[-1].removeprefix("Fatal: ")


def _message(line: str) -> str:
    """With --json, errors are JSON, too."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    return str(document.get("message", line)) if isinstance(document, dict) else line


def _summary(sent: Result) -> str:
    """The snapshot's id, from the last line of `restic backup --json`."""
    try:
        return str(json.loads(sent.stdout.splitlines()[-1])["snapshot_id"])
    except (ValueError, LookupError, TypeError):
        raise FailedError(f"restic named no snapshot ({sent.reason}): {AGAIN}") from None


def _patience(told: Manifest) -> float:
    return PATIENCE_S + told.bytes / SLOWEST
