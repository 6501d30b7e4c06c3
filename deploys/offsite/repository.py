"""restic on the operator's machine: the repository that backups go to off a droplet, with the operator's keys.

Secrets travel in restic's environment, and a password to be added through a pipe: no argument list and no file has one.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import certifi
from pyinfra.api.exceptions import PyinfraError

from deploys.config.settings import Settings
from deploys.secrets.rules import OPERATOR_RULES
from stackctl.backup.manifest import LONGEST, File
from stackctl.backup.offsite.repository import WRONG_PASSWORD, reason
from stackctl.core.http_client import MOST_BYTES
from stackctl.core.openat import BLOCK
from stackctl.core.program import TIMED_OUT, Result
from stackctl.services import s3

DROPLET, OPERATOR = "OFFSITE", "OFFSITE_OPERATOR"
"""Whose secrets: what their names in the env file begin with."""
QUICK_S = 120


class RepositoryError(PyinfraError):
    """One line: the cause and the next step."""


@dataclass(frozen=True)
class Repository:
    url: str
    app: str
    secrets: Mapping[str, str] = field(repr=False)
    """By their names in the env file."""
    authorities: tuple[str, ...]
    """Files of those trusted besides the public ones."""

    @classmethod
    def of(cls, settings: Settings) -> Repository:
        """Raises RepositoryError when there is none, or the env file lacks the operator's part."""
        values, secrets = settings.values, settings.credentials.offsite
        if not values.offsite_repository:
            raise RepositoryError(
                "offsite_repository is None: no backup goes off the droplet (docs/how-to/offsite-backups.md)"
            )
        if missing := [name for name in OPERATOR_RULES if name not in secrets]:
            raise RepositoryError(f"{values.env_file} lacks {', '.join(missing)} (.env.production.template says why)")
        authorities = tuple(str(Path(path).resolve()) for path in values.extra_ca_certificates)
        return cls(values.offsite_repository, values.app, secrets, authorities)

    def exists(self, whose: str) -> bool:
        """Whether the storage shows it to their key. Raises RepositoryError when it refuses that, or doesn't answer.

        restic would try for minutes.
        """
        answer, _ = self._ask("GET", "config", whose)
        if answer.status == 200:
            return True
        if answer.status == 403:
            names = f"{whose}_KEY_ID and {whose}_KEY_SECRET"
            raise RepositoryError(f"{self.url}: the storage refuses {names} of the env file ({answer.cause})")
        if answer.status != 404:
            raise RepositoryError(f"{self.url}: the storage is unwell ({answer.cause})")
        return False

    def stored_at(self, snapshot: str) -> datetime:
        """The storage's own date for a snapshot. Raises RepositoryError when it names none."""
        answer, last_modified = self._ask("HEAD", f"snapshots/{snapshot}", OPERATOR)
        try:
            return s3.date_of(answer.status, last_modified)
        except ValueError as error:
            raise RepositoryError(f"{self.url}: the storage has no date for snapshot {snapshot}: {error}") from None

    def _ask(self, method: str, name: str, whose: str) -> tuple[s3.Answer, str]:
        """An object's answer and its date, past restic. Raises RepositoryError when nobody answers."""
        url = s3.url_of(self.url, name)
        key = s3.Key(self.secrets[f"{whose}_KEY_ID"], self.secrets[f"{whose}_KEY_SECRET"])
        headers = s3.signed(method, url, b"", key, datetime.now(UTC))
        trust = ssl.create_default_context(cafile=certifi.where())
        for authority in self.authorities:
            trust.load_verify_locations(authority)
        try:
            with urlopen(Request(url, headers=headers, method=method), timeout=10, context=trust) as said:  # noqa: S310 - it is https
                return s3.Answer.of(said.status, b""), said.headers.get("Last-Modified", "")
        except HTTPError as error:
            with suppress(OSError, HTTPException):  # its name for what is wrong is no loss
                return s3.Answer.of(error.code, error.read(MOST_BYTES)), ""
            return s3.Answer(error.code, "", b""), ""
        except (OSError, HTTPException) as error:
            raise RepositoryError(f"{self.url}: the storage can't be reached: {error}") from None

    def opens(self, whose: str) -> bool:
        """Whether their password opens it."""
        ran = self._run("cat", "config", "--no-lock", opened_by=whose)
        # restic's code for it is as young as 0.17.
        if ran.code == WRONG_PASSWORD or "wrong password or no key found" in ran.stderr:
            return False
        self._check("cat", ran)
        return True

    def current_key(self, whose: str) -> str:
        """The id of restic's key that their password opens it by."""
        return next(str(key["id"]) for key in self.json("key", "list", opened_by=whose) if key["current"])

    def add_key(self, whose: str, opened_by: str) -> None:
        """Have it opened by their password, too."""
        reading, writing = os.pipe()
        try:
            os.write(writing, self.secrets[f"{whose}_PASSWORD"].encode())  # less than a pipe holds
            os.close(writing)
            names = ("--user", whose.lower(), "--host", self.app, "--new-password-file", f"/dev/fd/{reading}")
            self.restic("key", "add", *names, opened_by=opened_by, handed=(reading,))
        finally:
            os.close(reading)

    def restic(
        self, *arguments: str, opened_by: str = OPERATOR, timeout: float = QUICK_S, handed: tuple[int, ...] = ()
    ) -> str:
        """What it says. Raises RepositoryError."""
        ran = self._run(*arguments, opened_by=opened_by, timeout=timeout, handed=handed)
        self._check(arguments[0], ran)
        return ran.stdout

    def json(self, *arguments: str, opened_by: str = OPERATOR) -> Any:
        return json.loads(self.restic(*arguments, "--json", opened_by=opened_by))

    def describe(self, snapshot: str, path: str, most: int) -> File:
        """A file in it, read to its end, or until it has more than `most` bytes. Raises RepositoryError."""
        command, env = self._command("dump", snapshot, path), self._environment(OPERATOR)
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors) as process,
        ):
            assert process.stdout  # noqa: S101 - for mypy
            size, found = 0, hashlib.sha256()
            while part := process.stdout.read(min(BLOCK, most + 1 - size)):
                size += len(part)
                found.update(part)
            if size > most:
                process.kill()
            elif code := process.wait():
                errors.seek(0)
                said = reason(Result(code, stderr=errors.read(MOST_BYTES).decode(errors="replace")))
                raise RepositoryError(f"{self.url}: {path} of snapshot {snapshot} can't be read: {said}")
        return File(size, found.hexdigest())

    def _run(self, *arguments: str, opened_by: str, timeout: float = QUICK_S, handed: tuple[int, ...] = ()) -> Result:
        """Run it to its end, or until it has said too much: an intruder's manifest can be larger than our memory."""
        command, env = self._command(*arguments), self._environment(opened_by)
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, pass_fds=handed)
            except FileNotFoundError:
                raise RepositoryError(
                    "restic is not installed here: apt-get install restic, brew install restic"
                ) from None
            assert process.stdout  # noqa: S101 - for mypy
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                printed = process.stdout.read(LONGEST + 1)
                if len(printed) > LONGEST:
                    raise RepositoryError(f"{self.url}: restic {arguments[0]} says more than {LONGEST >> 20} MiB")
                process.wait()
            finally:
                timer.cancel()
                process.kill()
                process.stdout.close()
                process.wait()
            errors.seek(0)
            said = errors.read(MOST_BYTES).decode(errors="replace")
        # It may be no text either.
        return Result(TIMED_OUT if late.is_set() else process.returncode, printed.decode(errors="replace"), said)

    def _check(self, verb: str, ran: Result) -> None:
        if ran.code:
            wait = ": wait for its end; of one that was killed, half an hour" if "already locked" in reason(ran) else ""
            raise RepositoryError(f"{self.url}: restic {verb}: {reason(ran)}{wait}")

    def _command(self, *arguments: str) -> list[str]:
        # restic trusts those alone that it is told.
        trusted = (certifi.where(), *self.authorities) if self.authorities else ()
        return ["restic", *(f"--cacert={path}" for path in trusted), *arguments]

    def _environment(self, opened_by: str) -> dict[str, str]:
        return {
            **os.environ,
            "RESTIC_REPOSITORY": self.url,
            "RESTIC_PASSWORD": self.secrets[f"{opened_by}_PASSWORD"],
            "AWS_ACCESS_KEY_ID": self.secrets[f"{OPERATOR}_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": self.secrets[f"{OPERATOR}_KEY_SECRET"],
        }
