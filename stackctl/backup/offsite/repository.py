"""The client of the restic repository."""

import http.client
import re
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import manifest, stored
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite.access import KeyPermissions, load
from stackctl.backup.stored import Snapshot
from stackctl.core import disk, durable, records, redact
from stackctl.core.errors import FailedError
from stackctl.core.program import ENVIRONMENT, TIMED_OUT, TOO_LONG, Result
from stackctl.services import restic, s3
from stackctl.services.restic import LOCKED, NO_REPOSITORY, WRONG_PASSWORD

TIMEOUT_S = 120
SLOWEST = 500_000
"""Bytes per second. A slower transfer is aborted. restic itself would retry for a quarter of an hour."""
LOCKED_S, ASK_AGAIN_S = 600, 15
"""The seconds to wait in all while another process has the repository locked, and between two attempts."""
PROBE = "stackctl-probe"
"""An object beside restic's own objects. The probe writes and deletes it to find out what the key may do."""
NO_SUCH_FILE = re.compile(r"cannot dump file: .*( not found in snapshot| should be a (file|dir), but is a )")
"""The error that restic prints for a file that a snapshot does not have."""
AGAIN = "sudo stackctl backup"


class Repository:
    """The restic repository, with the droplet's credentials."""

    def __init__(self, stack: Stack) -> None:
        self.config = load(stack.paths)
        self._stack = stack

    def find(self) -> None:
        """Raise FailedError if the storage cannot be reached, refuses the droplet's key, or has no repository."""
        where, answer = self.config.repository, self.ask("GET", "config")
        if answer.status == 404:
            what = "bucket" if answer.code == "NoSuchBucket" else "repository"
            raise FailedError(
                f"{where}: there is no such {what}", next_step="make offsite, or correct offsite_repository"
            )
        if answer.code == "RequestTimeTooSkewed":
            raise FailedError(
                f"{where}: the clocks of the droplet and the storage differ", next_step=self._then("timedatectl")
            )
        if answer.status == 403:
            raise FailedError(
                f"{where}: the storage refuses the droplet's key ({answer.cause})",
                next_step="correct OFFSITE_KEY_ID and OFFSITE_KEY_SECRET in the env file, then make site",
            )
        if answer.status >= 500:
            raise FailedError(
                f"{where}: the storage returned an error ({answer.cause})", next_step=self._then("check the storage")
            )

    def probe(self) -> KeyPermissions:
        """Find out what the droplet's key may do, and save the result for `status`. Touch no object of restic.

        Raises FailedError if the key cannot even add an object.
        """
        now = self._stack.machine.now().isoformat()
        first, second = f"{now} 1\n".encode(), f"{now} 2\n".encode()
        self.ask("PUT", PROBE, first)
        put, there = self.ask("PUT", PROBE, second), self.ask("GET", PROBE)
        if there.status == 404:
            raise FailedError(
                f"{self.config.repository}: the droplet's key cannot add objects ({put.cause})",
                next_step=self._then("let the key write there (docs/how-to/offsite-backups.md)"),
            )
        overwrites = there.body == second
        self.ask("DELETE", PROBE)
        found = KeyPermissions(now, deletes=self.ask("GET", PROBE).status == 404, overwrites=overwrites)
        with suppress(OSError):  # check-offsite must work even if the disk is full
            durable.write(self._stack.paths.offsite_permissions, records.dumps(found))
        return found

    def snapshots(self, *options: str) -> list[Snapshot]:
        """List the snapshots in the order in which restic lists them."""
        return stored.snapshots(self.restic("snapshots", "--json", "--host", self._stack.paths.app, *options).stdout)

    def stored_at(self, snapshot: Snapshot) -> datetime:
        """Ask the storage for the date at which the snapshot arrived, because restic's own date may be forged."""
        config, machine = self.config, self._stack.machine
        url = s3.url_of(config.repository, f"snapshots/{snapshot.id}")
        headers = s3.signed("HEAD", url, b"", config.key, machine.now())
        try:
            return s3.date_of(*machine.head(url, headers))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FailedError(
                f"{config.repository}: cannot read the date of snapshot {snapshot.id[:8]} ({error})",
                next_step=self._then(),
            ) from None

    def text(self, snapshot: Snapshot) -> str:
        """Return the text of the snapshot's manifest, or "" if the snapshot has no manifest."""
        try:
            return self.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}").stdout
        except FailedError as error:
            if NO_SUCH_FILE.search(str(error)):
                return ""
            raise FailedError(f"cannot read {snapshot.backup} (snapshot {snapshot.id[:8]}): {error}") from None

    def restore(self, snapshot: Snapshot, told: Manifest, directory: Path) -> Manifest:
        """Fetch a backup from the storage, without a cache. Raise FailedError unless the backup matches its manifest.

        `restic restore` would write everything in the snapshot, even if an intruder made the snapshot. Therefore this
        method writes only the files that the manifest names, and never more bytes than the manifest says.
        """
        needs = {"a download": told.bytes + disk.SPARE}
        disk.check(directory, self._stack.machine.free(directory), needs, FailedError)
        self._fetch(snapshot, directory / manifest.NAME, manifest.LONGEST, TIMEOUT_S)
        found = manifest.load(directory)
        if replace(found, offsite=None) != replace(told, offsite=None):
            raise FailedError(
                f"the {manifest.NAME} in the storage differs from the manifest that was sent", next_step=self._then()
            )
        for name, file in told.files.items():
            self._fetch(snapshot, directory / name, file.bytes, timeout_for(told))
        if faults := manifest.differing(directory, found):
            raise FailedError(f"{told.id} is damaged in the storage: {', '.join(faults)}", next_step=self._then())
        return found

    def _fetch(self, snapshot: Snapshot, file: Path, most: int, timeout: float) -> None:
        source = f"{snapshot.path}/{file.name}"
        self.restic("dump", snapshot.id, source, "--no-cache", timeout=timeout, stdout=file, most=most)

    def restic(
        self, *arguments: object, timeout: float = TIMEOUT_S, stdout: Path | None = None, most: int = sys.maxsize
    ) -> Result:
        """Run restic, and wait while the repository is locked.

        `stdout` and `most` mean the same as in `Machine.run`.
        """
        machine = self._stack.machine

        def run() -> Result:
            return self._run(*arguments, timeout=timeout, stdout=stdout, most=most)

        deadline = machine.monotonic() + LOCKED_S
        while (ran := run()).code == LOCKED and machine.monotonic() < deadline:
            # `unlock` removes only locks whose holder is known to be gone, or that were not renewed for half an hour.
            self._run("unlock", timeout=TIMEOUT_S)
            machine.sleep(ASK_AGAIN_S)
        if ran.code:
            raise self._failure(str(arguments[0]), ran)
        return ran

    def ask(self, method: str, name: str, body: bytes = b"") -> s3.Answer:
        """Send a request to the storage without restic. Raise FailedError if the storage does not answer."""
        machine, config = self._stack.machine, self.config
        url = s3.url_of(config.repository, name)
        headers = s3.signed(method, url, body, config.key, machine.now())
        try:
            return s3.Answer.of(*machine.request(method, url, body, headers))
        except (OSError, http.client.HTTPException) as error:
            cause = error or type(error).__name__
            raise FailedError(
                f"{config.repository}: the storage cannot be reached ({cause})",
                next_step=self._then("wait until the storage answers"),
            ) from None

    def _run(self, *arguments: object, timeout: float, stdout: Path | None = None, most: int = sys.maxsize) -> Result:
        config = self.config
        cache = self._stack.paths.offsite_cache
        cache.mkdir(mode=0o700, exist_ok=True)
        env = {
            **ENVIRONMENT,
            "TMPDIR": str(cache),  # restic writes large temporary files, and /tmp is in memory
            **restic.environment(config.repository, config.password, config.key),
            "RESTIC_CACHE_DIR": str(cache),
        }
        # An isolated droplet writes nothing to the storage, not even a lock.
        argv = ["restic", *(["--no-lock"] if config.read_only else []), *map(str, arguments)]
        return self._stack.machine.run(argv, env, timeout, stdout=stdout, most=most)

    def _then(self, step: str = "") -> str:
        """Return the next step, followed by `stackctl backup`. In a restore, return the step alone."""
        again = "" if self._stack.log.op == "restore" else AGAIN
        return ", then ".join(filter(None, (step, again)))

    def _failure(self, verb: str, ran: Result) -> FailedError:
        """Return an error with the cause of restic's failure and the next step."""
        where, said = self.config.repository, redact.mask(restic.reason(ran), self.config.secrets)
        once_it_answers = self._then("wait until sudo stackctl check-offsite succeeds")
        known = {
            127: ("restic is not installed", "make site"),
            NO_REPOSITORY: (f"{where}: there is no such repository", "make offsite"),
            WRONG_PASSWORD: (
                f"{where} does not open with the droplet's password",
                "make offsite, which adds the password",
            ),
            LOCKED: (
                f"{where} is locked ({said})",
                self._then("wait until make prune has ended, or for half an hour if make prune was killed"),
            ),
            TOO_LONG: (f"{where}: the data in the storage is damaged or forged: {ran.reason}", self._then()),
            TIMED_OUT: (f"{where}: restic {verb} timed out ({said})", once_it_answers),
        }
        message, next_step = known.get(ran.code, (f"{where}: restic {verb} failed: {said}", once_it_answers))
        return FailedError(message, next_step=next_step)


def look(stack: Stack) -> KeyPermissions | None:
    """Open the repository, probe the droplet's key and return the result.

    An isolated droplet does not probe the key.
    """
    repository = Repository(stack)
    repository.find()
    repository.restic("cat", "config")
    return None if repository.config.read_only else repository.probe()


def timeout_for(told: Manifest) -> float:
    """Return the time that a transfer of the whole backup may take."""
    return TIMEOUT_S + told.bytes / SLOWEST
