"""An S3 storage in memory, with a restic repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stackctl.backup.manifest import NAME
from stackctl.core.paths import Paths
from stackctl.core.program import Result
from stackctl.services.restic import LOCKED, WRONG_PASSWORD

SECRETS = {"key_id": "KEYID1234", "key_secret": "the-key's-secret $x", "password": "the restic password %41"}
REPOSITORY = "s3:https://s3.test/bucket/bot"
ACCESS = {"repository": REPOSITORY, "append_only": True, "read_only": False, **SECRETS}


@dataclass
class Storage:
    """A storage that breaks on demand."""

    objects: dict[str, bytes] = field(default_factory=lambda: {"config": b"of restic"})
    """The objects by their names below the repository's prefix."""
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    """The snapshots as restic lists them, plus `files` and `stored`, the time at which the storage accepted each."""
    now: datetime = datetime(2025, 11, 23, 12, tzinfo=UTC)
    """The time of the storage's own clock."""
    deletes: bool = False
    overwrites: bool = False
    """True if the key may overwrite objects."""
    takes: bool = True
    """True if the key may add objects."""
    answers: tuple[int, str] | None = None
    """The status and code of every answer, if set."""
    down: bool = False
    password: str = SECRETS["password"]
    locks: int = 0
    """How often restic finds the repository locked."""
    damaged: str = ""
    """The name of a file that is damaged during the download."""
    failing: dict[str, Result] = field(default_factory=dict)
    """The results of failing restic commands, by verb."""
    ran: list[list[str]] = field(default_factory=list)
    """The arguments of each call of restic."""
    timeouts: dict[str, float] = field(default_factory=dict)
    """The last timeout of each restic verb."""

    def request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if self.down:
            raise ConnectionRefusedError("Connection refused")
        assert f"Credential={SECRETS['key_id']}/" in headers["authorization"]
        name = urlsplit(url).path.removeprefix("/bucket/bot/")
        status, code = self.answers or self._act(method, name, body)
        found = self.objects.get(name, b"")
        return status, f"<Error><Code>{code}</Code></Error>".encode() if code else found

    def head(self, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
        if self.down:
            raise ConnectionRefusedError("Connection refused")
        assert f"Credential={SECRETS['key_id']}/" in headers["authorization"]
        if self.answers:
            return self.answers[0], ""
        found = [one for one in self.snapshots if url == f"{REPOSITORY[3:]}/snapshots/{one['id']}"]
        return (200, format_datetime(found[0].get("stored", self.now), usegmt=True)) if found else (404, "")

    def _act(self, method: str, name: str, body: bytes) -> tuple[int, str]:
        there = name in self.objects
        if method == "GET":
            return (200, "") if there else (404, "NoSuchKey")
        if method == "PUT" and self.takes and (self.overwrites or not there):
            self.objects[name] = body
            return 200, ""
        if method == "DELETE" and self.deletes:
            self.objects.pop(name, None)
            return 204, ""
        return 403, "AccessDenied"

    def restic(self, arguments: list[str], env: Mapping[str, str]) -> Result:
        self.ran.append(arguments)
        assert env["RESTIC_REPOSITORY"] == REPOSITORY
        assert (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]) == (SECRETS["key_id"], SECRETS["key_secret"])
        assert not any(secret in " ".join(arguments) for secret in SECRETS.values()), "a secret as an argument"
        verb, *rest = [one for one in arguments if one != "--no-lock"]
        if env["RESTIC_PASSWORD"] != self.password:
            return Result(WRONG_PASSWORD, stderr="Fatal: wrong password or no key found")
        if verb in self.failing:
            return self.failing[verb]
        if self.locks and verb not in {"unlock", "cat"}:
            self.locks -= 1
            return Result(LOCKED, stderr="Fatal: unable to create lock: repository is already locked by PID 7 on host")
        return Result(0, self._done(verb, rest))

    def _done(self, verb: str, rest: list[str]) -> str:
        match verb:
            case "backup":
                return self._backup(Path(rest[-1]), rest[rest.index("--tag") + 1], rest[rest.index("--host") + 1])
            case "snapshots":
                wanted = {rest[at + 1] for at, word in enumerate(rest) if word == "--tag"}
                found = [one for one in self.snapshots if not wanted or wanted & {*(one["tags"] or [])}]
                if "--host" in rest:
                    found = [one for one in found if one.get("hostname", "bot") == rest[rest.index("--host") + 1]]
                ours = {"files", "stored", "sent"}
                return json.dumps([{name: one[name] for name in one if name not in ours} for one in found])
            case "dump":
                snapshot, (place, _, name) = self._of(rest[0]), rest[1].rpartition("/")
                assert place == snapshot["paths"][0]
                content: bytes = snapshot["files"][name]
                if name != NAME and "--no-cache" not in rest:
                    # restic's cache still has the content that was sent, so the cache hides a later change at the
                    # storage.
                    content = snapshot.get("sent", snapshot["files"])[name]
                elif name == self.damaged and "--no-cache" in rest:
                    content = content[:-1] + b"?"
                return content.decode()
            case "cat" | "unlock":
                pass
            case _:
                raise AssertionError(f"restic has no verb {verb}")
        return ""

    def _backup(self, directory: Path, tag: str, host: str) -> str:
        number = f"{len(self.snapshots):064x}"
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
        time = f"2025-11-23T12:00:{len(self.snapshots):02}Z"
        snapshot = {"id": number, "time": time, "tags": [tag], "paths": [str(directory)], "hostname": host}
        self.snapshots.append({**snapshot, "files": files, "sent": {**files}, "stored": self.now})
        return '{"message_type":"status"}\n' + json.dumps({"message_type": "summary", "snapshot_id": number}) + "\n"

    def _of(self, snapshot: str) -> dict[str, Any]:
        return next(one for one in self.snapshots if one["id"] == snapshot)

    def __repr__(self) -> str:
        return "Storage()"


def reached(paths: Paths, **access: object) -> None:
    """Write the access file as a converge does."""
    paths.offsite.parent.mkdir(parents=True, exist_ok=True)
    paths.offsite.write_text(json.dumps(ACCESS | access))
