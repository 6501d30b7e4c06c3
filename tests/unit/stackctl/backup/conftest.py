"""Fixtures of a droplet in memory with backups, and of an off-site storage."""

from pathlib import Path

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import access, download, upload
from stackctl.core.errors import FailedError
from tests.support.backups import Sent, small
from tests.support.fakes.droplet import Droplet, installed, stackctl


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    droplet.calls.clear()
    return droplet


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()

    def send(_stack: Stack, one: Manifest, directory: Path) -> str:
        assert manifest.load(directory) == one
        if len(sent) == sent.most:
            raise FailedError("the storage is down")
        sent.append(one.id)
        return f"snapshot-{len(sent)}"

    monkeypatch.setattr(access, "configured", lambda _stack: True)
    monkeypatch.setattr(upload, "upload", send)
    monkeypatch.setattr(upload, "sent", lambda _stack: {*sent})
    monkeypatch.setattr(download, "available", lambda _stack: [small(70)])
    return sent
