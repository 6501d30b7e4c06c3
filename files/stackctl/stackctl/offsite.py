"""Backups off the droplet: a restic repository on S3-compatible storage, with a snapshot a backup, tagged with its id.

The droplet's key only adds, so that whoever breaks in can't take the backups away: what goes from there goes from the
operator's side (`make prune`). Not every storage has such keys, so what this one may do is tried (`Powers`). Nothing is
believed: what was sent is fetched again, and compared.
"""

import http.client
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from . import durable, environment, manifest, openat, s3, sequence
from .errors import FailedError, RefusedError
from .machine import ENVIRONMENT, TIMED_OUT, Result
from .manifest import Manifest, Offsite
from .paths import Paths
from .stack import Stack

PATIENCE_S = 120
SLOWEST = 500_000
"""Bytes a second; slower than that, nothing gets through. restic itself would try on for a quarter of an hour."""
LOCKED_S, ASK_AGAIN_S = 600, 15
"""How long somebody else's work in the repository is waited for."""
SPARE = 256 << 20
"""Bytes that stay free beside a backup, and what is fetched or restored of one: a full disk stops PostgreSQL."""
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
PATH = re.compile(r"(/[\w.-]+)+")
"""What whoever broke in sends is no option of restic's, such as --password-command."""
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
        return environment.spellings([self.key_id, self.key_secret, self.password])


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


@dataclass(frozen=True)
class Snapshot:
    """What restic has of a backup."""

    id: str
    time: str
    backup: str
    """The backup's id, from the tag."""
    path: str
    """Of its directory on the droplet."""


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
            if repository.restore(snapshot, told, proof) != told:
                raise FailedError(f"the storage has another {manifest.NAME} than was sent: {AGAIN}")
        finally:
            backups.remove(FETCHED)
    return snapshot.id


def sent(stack: Stack) -> set[str]:
    """The ids of the backups that lie there. Raises FailedError."""
    repository = Repository(stack)
    repository.find()
    return {snapshot.backup for snapshot in repository.snapshots()}


def available(stack: Stack, backup_id: str | None = None) -> list[Manifest]:
    """What lies there, or that one alone, oldest first; of what was sent twice the newest. All of it, or FailedError.

    Whoever broke in can add to what is there: what has no manifest that can be read is no backup, and hides none.
    """
    repository = Repository(stack)
    repository.find()
    found = {}
    for snapshot in repository.snapshots(*(["--tag", backup_id] if backup_id else [])):
        text = repository.text(snapshot)
        with suppress(FailedError):
            found[snapshot.backup] = replace(read(text, snapshot), offsite=Offsite(snapshot.time, snapshot.id))
    if not backup_id:
        with suppress(OSError):  # as in probe; as long as nothing is kept, it is asked again
            sequence.seen(stack.paths, max((one.sequence for one in found.values()), default=0))
    return manifest.in_order(found.values())


def fetch(stack: Stack, backup_id: str, directory: Path) -> Manifest:
    """Have a backup's files in that empty directory, which is named by its id, each as its manifest says.

    Of what was sent twice the newest that is whole: the clock may have jumped between the two.
    Raises RefusedError when there is no such backup, FailedError for everything else.
    """
    repository = Repository(stack)
    repository.find()
    found = repository.snapshots("--tag", backup_id)
    if not found:
        raise RefusedError(
            f"{repository.access.repository} has no backup {backup_id}: sudo stackctl offsite lists them"
        )
    for snapshot in found[:0:-1]:
        with suppress(FailedError):
            return repository.restore(snapshot, read(repository.text(snapshot), snapshot), directory)
    return repository.restore(found[0], read(repository.text(found[0]), found[0]), directory)


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
        return [f"{found}, against offsite_append_only: give it one that only adds (docs/backups.md)"]
    return []


NOWHERE = "no backup goes off this droplet: set offsite_repository in group_data (docs/backups.md)"


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
                f"(docs/backups.md), then {AGAIN}"
            )
        overwrites = there.body == second
        self.ask("DELETE", PROBE)
        found = Powers(now, deletes=self.ask("GET", PROBE).status == 404, overwrites=overwrites)
        with suppress(OSError):  # a full disk is when somebody looks which backups may go from here
            durable.write(self._stack.paths.offsite_powers, json.dumps(asdict(found)).encode() + b"\n")
        return found

    def snapshots(self, *options: str) -> list[Snapshot]:
        """Oldest first."""
        return snapshots(self.restic("snapshots", "--json", "--host", self._stack.paths.app, *options).stdout)

    def text(self, snapshot: Snapshot) -> str:
        """Of its manifest; nothing where it has none. Raises FailedError."""
        try:
            return self.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}").stdout
        except FailedError as error:
            if NO_SUCH_FILE.search(str(error)):
                return ""
            raise FailedError(f"{snapshot.backup} (snapshot {snapshot.id[:8]}) can't be read: {error}") from None

    def restore(self, snapshot: Snapshot, told: Manifest, directory: Path) -> Manifest:
        """All of it, from the storage and no cache. Raises FailedError unless it is as its manifest says."""
        free, needed = self._stack.machine.free(directory), told.bytes + SPARE
        if free < needed:
            raise FailedError(f"{directory} has {free >> 20} MiB left, fetching needs {needed >> 20}: make room there")
        source = f"{snapshot.id}:{snapshot.path}"
        self.restic("restore", source, "--no-cache", "--target", directory, timeout=_patience(told))
        found = manifest.load(directory)
        if faults := manifest.differing(directory, found):
            raise FailedError(f"what the storage has of {told.id} is damaged: {', '.join(faults)}: {AGAIN}")
        return found

    def restic(self, *arguments: object, timeout: float = PATIENCE_S) -> Result:
        """Raises FailedError."""
        machine = self._stack.machine
        deadline = machine.monotonic() + LOCKED_S
        while (ran := self._run(*arguments, timeout=timeout)).code == LOCKED and machine.monotonic() < deadline:
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

    def _run(self, *arguments: object, timeout: float) -> Result:
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
        return self._stack.machine.run(argv, env, timeout)

    def _fault(self, verb: str, ran: Result) -> str:
        """The cause and the next step."""
        where, said = self.access.repository, environment.mask(reason(ran), self.access.secrets)
        known = {
            127: "restic is not installed: converge the site (make site)",
            NO_REPOSITORY: f"{where}: there is no such repository: make offsite",
            WRONG_PASSWORD: f"{where} doesn't open with the droplet's password: make offsite, which has it do so",
            LOCKED: f"{where} is locked ({said}): when make prune has ended, or half an hour after it died, {AGAIN}",
            TIMED_OUT: f"{where}: restic {verb} got no further ({said}): when sudo stackctl offsite goes well, {AGAIN}",
        }
        return known.get(ran.code, f"{where}: restic {verb}: {said}: when sudo stackctl offsite goes well, {AGAIN}")


def snapshots(listed: str) -> list[Snapshot]:
    """Those of `restic snapshots --json` that are backups, oldest first."""
    found = []
    for one in json.loads(listed) or []:
        tags = [tag for tag in one.get("tags") or [] if manifest.ID.fullmatch(tag)]
        paths = [path for path in one.get("paths") or [] if PATH.fullmatch(path)]
        if len(tags) == 1 and len(paths) == 1:
            found.append(Snapshot(one["id"], one["time"], tags[0], paths[0]))
    return found


def read(text: str, snapshot: Snapshot) -> Manifest:
    """A snapshot's manifest. Raises FailedError."""
    told = manifest.parse(text, f"{manifest.NAME} of snapshot {snapshot.id}")
    if told.id != snapshot.backup:
        raise FailedError(f"snapshot {snapshot.id} is tagged {snapshot.backup}, and has {told.id} in it")
    return told


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
