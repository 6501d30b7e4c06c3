"""The client with which the operator's machine uses the off-site restic repository, with the operator's keys.

restic gets secrets in its environment, and a new password over a pipe. No argument of restic and no file contains a
secret.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import certifi
from pyinfra.api.exceptions import PyinfraError

from deploys.config.settings import Settings
from deploys.secrets.rules import OPERATOR_RULES
from stackctl.backup.manifest import File
from stackctl.core import http_client, program
from stackctl.core.http_client import MOST_BYTES
from stackctl.core.openat import BLOCK
from stackctl.core.program import Result
from stackctl.services import restic, s3

DROPLET, OPERATOR = "OFFSITE", "OFFSITE_OPERATOR"
"""The two owners of secrets. Each value is the prefix of the owner's secrets in the env file."""
QUICK_S = 120


class RepositoryError(PyinfraError):
    """The repository can't be used. The message is one line with the cause and the next step."""


@dataclass(frozen=True)
class Repository:
    """The restic repository of an environment's off-site backups."""

    url: str
    app: str
    secrets: Mapping[str, str] = field(repr=False)
    """The secrets of droplet and operator, by their names in the env file."""
    authorities: tuple[str, ...]
    """Certificate files of authorities that are trusted in addition to the public authorities."""

    @classmethod
    def of(cls, settings: Settings) -> Repository:
        """Return the repository of an environment.

        Raises RepositoryError if no repository is set, or if keys are missing.
        """
        values, secrets = settings.values, settings.credentials.offsite
        if not values.offsite_repository:
            raise RepositoryError(
                "There are no off-site backups: offsite_repository is None. "
                "Next: set offsite_repository in group_data (docs/how-to/offsite-backups.md)"
            )
        if missing := [name for name in OPERATOR_RULES if name not in secrets]:
            raise RepositoryError(
                f"{values.env_file} lacks {', '.join(missing)}. Next: add them, as .env.production.template describes"
            )
        authorities = tuple(str(Path(path).resolve()) for path in values.extra_ca_certificates)
        return cls(values.offsite_repository, values.app, secrets, authorities)

    def exists(self, whose: str) -> bool:
        """Tell whether the repository exists. Raises RepositoryError if the storage gives no clear answer.

        The request is signed with the key of `whose`, and sent without restic, because restic would retry for minutes.
        """
        url = s3.url_of(self.url, "config")
        try:
            found = http_client.request("GET", url, b"", self._signed("GET", url, whose), self._trust)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        answer = s3.Answer.of(*found)
        if answer.status == 403:
            names = f"{whose}_KEY_ID and {whose}_KEY_SECRET"
            raise RepositoryError(
                f"{self.url}: the storage refuses {names} of the env file ({answer.cause}). Next: correct both values"
            )
        if answer.status not in {200, 404}:
            raise RepositoryError(f"{self.url}: the storage returned an error ({answer.cause}). Next: try again later")
        return answer.status == 200

    def stored_at(self, snapshot: str) -> datetime:
        """Return the date that the storage has for a snapshot. Raises RepositoryError if there is no date."""
        url = s3.url_of(self.url, f"snapshots/{snapshot}")
        try:
            return s3.date_of(*http_client.head(url, self._signed("HEAD", url, OPERATOR), self._trust))
        except ValueError as error:
            raise RepositoryError(f"{self.url}: the storage has no date for snapshot {snapshot}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def opens(self, whose: str) -> bool:
        """Tell whether the password of `whose` opens the repository."""
        ran = self._run("cat", "config", "--no-lock", opened_by=whose)
        # Before version 0.17, restic had no exit code for a wrong password.
        if ran.code == restic.WRONG_PASSWORD or "wrong password or no key found" in ran.stderr:
            return False
        self._check("cat", ran)
        return True

    def current_key(self, whose: str) -> str:
        """Return the ID of restic's key for the password of `whose`."""
        return next(str(key["id"]) for key in self.json("key", "list", opened_by=whose) if key["current"])

    def add_key(self, whose: str, opened_by: str) -> None:
        """Add the password of `whose` to the passwords that open the repository."""
        reading, writing = os.pipe()
        try:
            os.write(writing, self.secrets[f"{whose}_PASSWORD"].encode())  # a password fits into the buffer of a pipe
            os.close(writing)
            names = ("--user", whose.lower(), "--host", self.app, "--new-password-file", "/dev/stdin")
            self._check("key", self._run("key", "add", *names, opened_by=opened_by, stdin=reading))
        finally:
            os.close(reading)

    def restic(self, *arguments: str, opened_by: str = OPERATOR, timeout: float = QUICK_S) -> str:
        """Run restic and return its output. Raises RepositoryError."""
        ran = self._run(*arguments, opened_by=opened_by, timeout=timeout)
        self._check(arguments[0], ran)
        return ran.stdout

    def json(self, *arguments: str, opened_by: str = OPERATOR) -> Any:
        """Run restic and return its output, decoded from JSON. Raises RepositoryError."""
        return json.loads(self.restic(*arguments, "--json", opened_by=opened_by))

    def describe(self, snapshot: str, path: str, most: int) -> File:
        """Return the size and hash of a file in a snapshot. Read at most `most` bytes. Raises RepositoryError."""
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
                said = restic.reason(Result(code, stderr=errors.read(MOST_BYTES).decode(errors="replace")))
                raise RepositoryError(f"{self.url}: {path} of snapshot {snapshot} can't be read: {said}")
        return File(size, found.hexdigest())

    def _run(
        self, *arguments: str, opened_by: str, timeout: float = QUICK_S, stdin: int = subprocess.DEVNULL
    ) -> Result:
        return program.run(self._command(*arguments), self._environment(opened_by), timeout, stdin)

    def _check(self, verb: str, ran: Result) -> None:
        if ran.code == 127:
            raise RepositoryError(
                "restic is not installed on this machine. Next: apt-get install restic, or brew install restic"
            )
        if ran.code:
            said = restic.reason(ran)
            wait = (
                ". Next: wait until the other restic run ends, or for half an hour if that run was killed"
                if "already locked" in said
                else ""
            )
            raise RepositoryError(f"{self.url}: restic {verb}: {said}{wait}")

    def _command(self, *arguments: str) -> list[str]:
        # Name all files with authorities, because with --cacert restic trusts no other authorities.
        trusted = (certifi.where(), *self.authorities) if self.authorities else ()
        return ["restic", *(f"--cacert={path}" for path in trusted), *arguments]

    def _environment(self, opened_by: str) -> dict[str, str]:
        return os.environ | restic.environment(self.url, self.secrets[f"{opened_by}_PASSWORD"], self._key(OPERATOR))

    def _key(self, whose: str) -> s3.Key:
        return s3.Key(self.secrets[f"{whose}_KEY_ID"], self.secrets[f"{whose}_KEY_SECRET"])

    def _signed(self, method: str, url: str, whose: str) -> dict[str, str]:
        return s3.signed(method, url, b"", self._key(whose), datetime.now(UTC))

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        trust = ssl.create_default_context(cafile=certifi.where())
        for authority in self.authorities:
            trust.load_verify_locations(authority)
        return trust

    def _unreachable(self, error: Exception) -> RepositoryError:
        cause = str(error) or type(error).__name__
        return RepositoryError(f"{self.url}: the storage can't be reached ({cause}). Next: try again later")
