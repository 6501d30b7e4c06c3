"""A release probes its colour before the flip."""

import json
from pathlib import Path
from typing import Any

import pytest

from stackctl.core.errors import FailedError
from stackctl.release import probe
from tests.support.fakes.droplet import ENVIRONMENT
from tests.support.watched import TAG, Watched, stack, watched


@pytest.fixture
def live(tmp_path: Path) -> Watched:
    return watched(tmp_path)


def probed(live: Watched, tag: str = TAG, values: dict[str, str] = ENVIRONMENT) -> str:
    return probe.probe(stack(live), "blue", tag, values)


def test_a_colour_that_is_what_was_asked_for(live: Watched) -> None:
    assert probed(live) == "ready, version 1.1.0, accepts updates"
    assert [call for call in live.calls if call[0] in {"GET", "POST"}] == [
        ["GET", "blue.sock", "/ready"],
        ["GET", "blue.sock", "/health"],
        ["POST", "blue.sock", "/webhook"],
    ]


def test_the_update_has_nothing_in_it_and_brings_the_secret(live: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    real = live.request_over_socket

    def ask(*arguments: Any) -> tuple[int, bytes]:
        sent.append(arguments[2:])
        return real(*arguments)

    monkeypatch.setattr(live, "request_over_socket", ask)
    probed(live)
    headers = {"X-Telegram-Bot-Api-Secret-Token": "webhook-secret-1", "Content-Type": "application/json"}
    assert sent[-1] == (b'{"update_id": 0}', headers)


def test_the_probe_waits_until_the_app_is_ready(live: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [503, 500, 200]
    real = live.request_over_socket

    def ask(*arguments: Any) -> tuple[int, bytes]:
        return (statuses.pop(0), b"") if statuses else real(*arguments)

    monkeypatch.setattr(live, "request_over_socket", ask)
    assert probed(live).startswith("ready")
    assert not statuses


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ({"ready": 503}, r"/ready answers 503 \(stackctl waited 20 s\)"),
        ({"ready": 302}, r"/ready answers 302 \(stackctl waited 20 s\)"),
        ({"ready": 200, "version": "0.9"}, "/health reports version '0.9', not 1.1.0. Next: build the image again"),
        ({"ready": 200, "version": None}, "/health reports version None"),
        ({"ready": 200, "update": 401}, "/webhook answers 401"),
        ({"ready": 200, "update": 302}, "/webhook answers 302"),
    ],
)
def test_the_probe_reports_each_bad_answer(live: Watched, app: dict[str, Any], said: str) -> None:
    live.app = app
    with pytest.raises(FailedError, match=said):
        probed(live)


@pytest.mark.parametrize("update", [200, 202, 204])
def test_any_2xx_takes_an_update(live: Watched, update: int) -> None:
    live.app = {"ready": 200, "update": update}
    assert probed(live).endswith("accepts updates")


def test_another_secret_is_not_taken(live: Watched) -> None:
    with pytest.raises(FailedError, match="/webhook answers 401") as failed:
        probed(live, values={**ENVIRONMENT, "TELEGRAM_WEBHOOK_SECRET": "another-secret"})
    assert "another-secret" not in str(failed.value)


@pytest.mark.parametrize("said", [b"", b"OK", b"[]", b"{}", b"7", b"\xff"])
def test_a_version_of_another_form_is_no_good_answer(
    live: Watched, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(live, "request_over_socket", lambda *_arguments: (200, said))
    with pytest.raises(FailedError, match="the probe got no valid answer: "):
        probed(live)


def test_a_socket_without_an_app_is_reported(live: Watched) -> None:
    live.systemd.units.clear()
    with pytest.raises(FailedError, match=r"/ready: nobody there \(stackctl waited 20 s\)"):
        probed(live)


def test_the_probe_asks_only_for_what_the_app_has(live: Watched) -> None:
    changed = json.loads(live.paths.config.read_text()) | {"version_path": None, "webhook_path": None}
    live.paths.config.write_text(json.dumps(changed))
    assert probed(live, "of no version") == "ready"
    assert [call[-1] for call in live.calls if call[0] in {"GET", "POST"}] == ["/ready"]
