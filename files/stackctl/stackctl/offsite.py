"""Backups off the droplet: a restic repository on S3-compatible storage, a snapshot a backup, tagged with its id.

The droplet's key only adds. What goes from there goes by the operator's (`make prune`), so that a broken-in droplet can't
have it; where the storage has no such keys, `Powers` tells so. Nothing is believed: what was sent is fetched again.
"""

import http.client
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import durable, environment, manifest, s3
from .errors import FailedError, RefusedError
from .machine import ENVIRONMENT, TIMED_OUT, Machine, Result
from .manifest import Manifest, Offsite
from .paths import Paths
from .stack import Stack

PATIENCE_S = 120
SLOWEST = 500_000
"""Bytes a second below which the storage counts as gone: restic itself would try each object for a quarter of an hour."""
LOCKED_S = 600
"""How long another's work in the repository is waited for."""
PROBE = "stackctl-probe"
"""An object beside restic's own, by which is tried what a key may do."""
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
"""restic's exit codes, since 0.17."""


@dataclass(frozen=True)
class Access:
    """secrets/offsite/access.json: what the deploys tell of the storage."""

    repository: str
    append_only: bool
    """Whether the storage was said to let this key add alone."""
    read_only: bool
    """This droplet is a copy of another one, whose backups these are."""
    key_id: str = field(repr=False)
    key_secret: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def secrets(self) -> list[str]:
        return environment.spellings([self.key_id, self.key_secret, self.password])


@dataclass(frozen=True)
class Powers:
    """What the droplet's key was found to be able to do at the storage."""

    at: str
    deletes: bool
    overwrites: bool

    @property
    def appends_only(self) -> bool:
        return not (self.deletes or self.overwrites)

    def __str__(self) -> str:
        if self.appends_only:
            return "the droplet's key can add, and neither delete nor overwrite"
        can = " and ".join(word for word, may in (("delete", self.deletes), ("overwrite", self.overwrites)) if may)
        return f"the droplet's key can {can} what is there"


@dataclass(frozen=True)
class Snapshot:
    """What restic has of a backup."""

    id: str
    time: str
    backup: str
    """Its id, from the tag."""
    path: str
    """Where its directory was on the droplet."""


def configured(stack: Stack) -> bool:
    return stack.paths.offsite.exists()


def load(paths: Paths) -> Access:
    try:
        document = json.loads(paths.offsite.read_text())
    except FileNotFoundError:
        raise RefusedError(
            "no backup goes off this droplet: set offsite_repository in group_data (docs/backups.md), make site"
        ) from None
    except ValueError as error:
        raise RefusedError(f"{paths.offsite} is no JSON ({error}): converge the site (make site)") from None
    kinds = {name: bool if name in {"append_only", "read_only"} else str for name in Access.__dataclass_fields__}
    if not isinstance(document, dict) or {name: type(value) for name, value in document.items()} != kinds:
        raise RefusedError(f"{paths.offsite} is not as this stackctl has it: converge the site (make site)")
    return Access(**document)


def upload(stack: Stack, told: Manifest, directory: Path) -> str:
    """Send a whole backup. Its snapshot's id, once all of it was fetched again and is as its manifest says."""
    repository = Repository(stack)
    if repository.access.read_only:
        raise RefusedError("this droplet is isolated, and only reads what is off it: make live")
    repository.find()
    _note(stack, repository)
    wait = PATIENCE_S + told.bytes / SLOWEST
    sent = repository.restic(
        "backup", "--json", "--quiet", "--no-scan", "--host", told.app, "--tag", told.id, directory, timeout=wait
    )
    snapshot = Snapshot(_summary(sent)["snapshot_id"], "", told.id, str(directory))
    _room(stack, told)
    proof = directory.with_name(f"{told.id}{manifest.UNFINISHED}")
    proof.mkdir(mode=0o700)
    try:
        _fetch(repository, snapshot, proof, wait)
        if (fetched := manifest.load(proof)) != told:
            raise FailedError(f"the storage has another manifest of {fetched.id} than was sent: sudo stackctl backup")
    finally:
        shutil.rmtree(proof)
    return snapshot.id


def available(stack: Stack) -> list[Manifest]:
    """What lies there, oldest first; of what was sent twice the newest. What has no readable manifest is none."""
    repository = Repository(stack)
    repository.find()
    found = {}
    for snapshot in snapshots(repository.restic("snapshots", "--json", "--host", stack.paths.app)):
        with suppress(FailedError):
            told = repository.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}").stdout
            read = manifest.parse(told, f"{manifest.NAME} of snapshot {snapshot.id}")
            if read.id == snapshot.backup:
                found[read.id] = replace(read, offsite=Offsite(snapshot.time, snapshot.id))
    return manifest.in_order(found.values())


def fetch(stack: Stack, backup_id: str, directory: Path) -> Manifest:
    """Have a backup's files in that directory, which is there and empty, each as its manifest says."""
    repository = Repository(stack)
    repository.find()
    listed = repository.restic("snapshots", "--json", "--host", stack.paths.app, "--tag", backup_id)
    found = snapshots(listed)
    if not found:
        raise RefusedError(f"{repository.access.repository} has no backup {backup_id}: sudo stackctl offsite")
    snapshot = found[-1]
    told = repository.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}").stdout
    size = manifest.parse(told, f"{manifest.NAME} of snapshot {snapshot.id}")
    _room(stack, size)
    _fetch(repository, snapshot, directory, PATIENCE_S + size.bytes / SLOWEST)
    return manifest.load(directory)


def look(stack: Stack) -> tuple[Access, list[Manifest], Powers | None]:
    """The storage as it is now. It has been tried what the key may do, unless this droplet only reads."""
    found = available(stack)
    repository = Repository(stack)
    return repository.access, found, None if repository.access.read_only else _note(stack, repository)


def powers(paths: Paths) -> Powers | None:
    """As they were found last; None when they weren't tried yet."""
    try:
        return Powers(**json.loads(paths.offsite_powers.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def problems(paths: Paths, where: str) -> list[str]:
    """What of it needs somebody, a line each. `where` is the environment: only production has to have it."""
    if not paths.offsite.exists():
        nowhere = "no backup goes off this droplet: set offsite_repository in group_data (docs/backups.md)"
        return [nowhere] if where == "production" else []
    found = powers(paths)
    if found and not found.appends_only and load(paths).append_only:
        return [f"{found}, against offsite_append_only: give it a key that can only add (docs/backups.md)"]
    return []


class Repository:
    """The restic repository, opened with what the droplet has."""

    def __init__(self, stack: Stack) -> None:
        self.access = load(stack.paths)
        self._stack = stack

    def find(self) -> None:
        """Raises FailedError when the storage can't be reached, refuses the key, or has no repository there."""
        answer = self.ask("GET", "config")
        if answer.status == 404:
            what = "bucket" if answer.code == "NoSuchBucket" else "repository"
            raise FailedError(
                f"{self.access.repository}: there is no such {what}: make offsite, or mend offsite_repository"
            )
        if answer.status == 403:
            raise FailedError(
                f"the storage refuses the droplet's key ({answer.cause}): mend OFFSITE_KEY_ID and OFFSITE_KEY_SECRET "
                "in the env file, then make site"
            )
        if answer.status >= 500:
            raise FailedError(f"the storage is unwell ({answer.cause}): sudo stackctl backup, when it is well again")

    def restic(self, *arguments: object, timeout: float = PATIENCE_S) -> Result:
        """Raises FailedError with the cause and the next step."""
        ran = self._run(*arguments, timeout=timeout)
        if ran.code == LOCKED:
            # Only locks whose holder is known to be gone, or that were not renewed for half an hour.
            self._run("unlock", timeout=PATIENCE_S)
            ran = self._run(*arguments, timeout=timeout)
        if ran.code:
            raise FailedError(self._fault(str(arguments[0]), ran, timeout))
        return ran

    def ask(self, method: str, name: str, body: bytes = b"") -> s3.Answer:
        """Without restic. Raises FailedError when nobody answers."""
        machine, access = self._stack.machine, self.access
        url = s3.url_of(access.repository, name)
        headers = s3.signed(method, url, body, access.key_id, access.key_secret, machine.now())
        try:
            return s3.Answer.of(*machine.request(method, url, body, headers))
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(
                f"the storage of {access.repository} can't be reached ({error or type(error).__name__}): "
                "sudo stackctl offsite, when it answers again"
            ) from None

    def _run(self, *arguments: object, timeout: float) -> Result:
        access = self.access
        env = {
            **ENVIRONMENT,
            "RESTIC_REPOSITORY": access.repository,
            "RESTIC_PASSWORD": access.password,
            "AWS_ACCESS_KEY_ID": access.key_id,
            "AWS_SECRET_ACCESS_KEY": access.key_secret,
            "RESTIC_CACHE_DIR": str(self._stack.paths.offsite_cache),
        }
        # A copy of another droplet writes nothing there, be it a lock.
        locking = ["--no-lock"] if access.read_only else ["--retry-lock", f"{LOCKED_S}s"]
        argv = ["restic", *locking, *map(str, arguments)]
        return self._stack.machine.run(argv, env, timeout + LOCKED_S)

    def _fault(self, verb: str, ran: Result, timeout: float) -> str:
        where = self.access.repository
        said = environment.mask(_reason(ran), self.access.secrets)
        match ran.code:
            case 127:
                return "restic is not installed: converge the site (make site)"
            case code if code == NO_REPOSITORY:
                return f"{where}: there is no such repository: make offsite"
            case code if code == WRONG_PASSWORD:
                return f"{where} doesn't open with the droplet's password: make offsite, which has it take that"
            case code if code == LOCKED:
                return (
                    f"{where} is locked by another's work ({said}): when make prune has ended, or half an hour after it "
                    "died, sudo stackctl backup"
                )
            case code if code == TIMED_OUT:
                return (
                    f"restic {verb} came to no end, last it said: {said}: sudo stackctl offsite, then stackctl backup"
                )
        return f"restic {verb}: {said}: sudo stackctl offsite"


def snapshots(listed: Result) -> list[Snapshot]:
    """Those of `restic snapshots --json` that are a backup's, oldest first by restic's own order."""
    found = []
    for one in json.loads(listed.stdout or "null") or []:
        tags = [tag for tag in one.get("tags") or [] if manifest.ID.fullmatch(tag)]
        if len(tags) == 1 and len(one["paths"]) == 1:
            found.append(Snapshot(one["id"], one["time"], tags[0], one["paths"][0]))
    return found
