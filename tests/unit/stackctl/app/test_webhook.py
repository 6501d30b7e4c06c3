"""If a bot or a person deletes Telegram's webhook, stackctl sets it again or reports a problem."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state, webhook
from stackctl.app.telegram import Info, RejectedError, Telegram
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, change, installed, stackctl
from tests.support.fakes.kills import killed_at_its_watch

OURS = "https://bot.lab.test/webhook"


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    """Make 1.0.0 live. The bots 1.0.0, 1.1.0 and 1.2.0 delete the webhook when they stop."""
    droplet = installed(tmp_path)
    droplet.telegram.takes_webhook_back = {"1.0.0", "1.1.0", "1.2.0"}
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    droplet.calls.clear()
    return droplet


def report(droplet: Droplet) -> tuple[int, dict[str, Any]]:
    code, shown = stackctl(droplet, "status", "--json")
    return code, json.loads(shown)


def test_a_release_ends_with_it(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert live.telegram.webhook["url"] == OURS


@pytest.mark.parametrize(
    "broken",
    [
        {"app": {"ready": 200, "update": 500}},
        {"later": {"ready": 503}},
        {"docker.new_containers": {"web": {"health": "starting"}}},
        {"docker.new_containers": {"worker": {"health": "starting"}}},
        {"failing": {"systemctl start": Result(1, stderr="unit failed")}},
    ],
    ids=["probe", "watch", "health", "worker", "socket"],
)
@pytest.mark.parametrize("verb", [["release", "1.1.0"], ["rollback", "1.1.0"]], ids=["release", "rollback"])
def test_an_undone_release_restores_the_webhook(live: Droplet, verb: list[str], broken: dict[str, Any]) -> None:
    if verb[0] == "rollback":
        for tag in ("1.1.0", "1.0.0"):
            assert stackctl(live, "release", tag)[0] == 0
        for container in live.docker.of("bot-green"):  # the rollback then creates broken containers
            live.docker.containers.remove(container)
    if verb[0] == "rollback" and "later" in broken:
        return  # no rollback is watched
    change(live, broken)
    code, shown = stackctl(live, *verb)
    assert code == 1, shown
    assert live.telegram.webhook["url"] == OURS
    assert live.telegram.webhook["secret_token"] == ENVIRONMENT["TELEGRAM_WEBHOOK_SECRET"]
    assert "drop_pending_updates" not in live.telegram.webhook
    assert "webhook    progress the webhook is set" in shown


def test_boot_after_a_stop_ends_with_it(live: Droplet) -> None:
    """The webhook is set again at boot. `systemctl restart` and a reboot both stop the stack and then boot it."""
    assert stackctl(live, "halt")[0] == 0
    assert live.telegram.webhook["url"] == ""
    assert stackctl(live, "boot")[0] == 0
    assert live.telegram.webhook["url"] == OURS


def test_rollback_ends_with_it(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert stackctl(live, "rollback")[0] == 0
    assert live.telegram.webhook["url"] == OURS


def test_the_recovery_after_a_killed_release_restores_the_webhook(live: Droplet) -> None:
    left = killed_at_its_watch(live, "1.1.0")
    left.docker.registry.clear()
    code, shown = stackctl(left, "release", "1.2.0")
    assert code == 1, shown  # the release is refused after the recovery
    assert left.telegram.webhook["url"] == OURS


def test_a_restore_ends_with_it(live: Droplet) -> None:
    assert stackctl(live, "backup")[0] == 0
    made = next(live.paths.backups.iterdir()).name
    code, shown = stackctl(live, "restore", made, "--yes", made)
    assert code == 0, shown
    assert live.telegram.webhook["url"] == OURS


@pytest.mark.parametrize("verb", [["release", "1.1.0"], ["halt", "boot"]], ids=["release", "boot"])
def test_silence_keeps_nothing_from_its_end(live: Droplet, verb: list[str]) -> None:
    live.failing = {"telegram": Result(1)}
    if verb[0] == "release":
        live.app = {"ready": 200, "update": 500}
        code, shown = stackctl(live, *verb)
        assert (code, "1.0.0 is still live" in shown) == (1, True)
    else:
        stackctl(live, "halt")
        code, shown = stackctl(live, "boot")
        assert code == 0
    assert "can't be asked (Telegram's getWebhookInfo failed: Connection refused)" in shown
    assert live.docker.running() == ["blue"]
    code, seen = report(live)
    assert (code, seen["telegram"]["silence"]) == (0, "Telegram's getWebhookInfo failed: Connection refused")
    assert "could not ask Telegram" in stackctl(live, "status")[1]


def test_no_droplet_that_is_isolated_speaks_to_telegram(tmp_path: Path) -> None:
    droplet = installed(tmp_path, isolated=True)
    droplet.telegram.takes_webhook_back = {"1.0.0", "1.1.0"}
    for verb in (["release", "1.0.0"], ["release", "1.1.0"], ["rollback"], ["halt"], ["boot"], ["status"]):
        assert stackctl(droplet, *verb)[0] == 0
    droplet.app = {"ready": 503}
    assert stackctl(droplet, "release", "1.1.0")[0] == 1
    assert not droplet.ran("telegram ")


# status


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "somebody called deleteWebhook, so Telegram has no webhook and the bot receives nothing"),
        ("https://me:pw@evil.test/s3cret?a", f"Telegram sends updates to https://evil.test/… instead of {OURS}"),
        ("https://bot.lab.test/webhook2", f"Telegram sends updates to https://bot.lab.test/… instead of {OURS}"),
        ("\x1b[2Jhttps://x\x07/a", f"Telegram sends updates to \\x1b[2Jhttps://x\\x07/… instead of {OURS}"),
        ("nonsense", f"Telegram sends updates to  instead of {OURS}"),
    ],
)
def test_status_says_where_updates_go_and_a_release_of_the_same_mends_it(live: Droplet, url: str, said: str) -> None:
    live.telegram.webhook["url"] = url
    code, seen = report(live)
    assert (code, seen["drift"]) == (4, [said])
    assert seen["problems"] == [f"{said}. Next: make site, or sudo stackctl release 1.0.0"]
    assert "s3cret" not in json.dumps(seen)
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert live.telegram.webhook["url"] == OURS
    assert report(live)[0] == 0


def test_a_wrong_webhook_secret_is_found_by_the_app_s_refusals(live: Droplet) -> None:
    """Telegram never returns the webhook's secret, so stackctl infers a wrong secret from the app's refusals."""
    live.telegram.webhook |= {
        "secret_token": "another",
        "info": {"pending_update_count": 2, "last_error_message": "401"},
    }
    assert report(live)[1]["drift"] == ["the app rejects the secret that Telegram sends: 401"]
    assert stackctl(live, "boot")[0] == 0
    assert live.telegram.webhook["secret_token"] == ENVIRONMENT["TELEGRAM_WEBHOOK_SECRET"]


@pytest.mark.parametrize(
    ("pending", "ago", "said"),
    [
        (3, 60, "3 updates wait at Telegram, which can't deliver them: 503 Service Unavailable. Next: stackctl logs"),
        (3, 3600, ""),
        (0, 60, ""),
        (99, 3600, ""),
        (100, 3600, "100 updates wait at Telegram, because the bot doesn't keep up. Next: stackctl logs"),
    ],
)
def test_status_says_what_telegram_can_not_deliver(live: Droplet, pending: int, ago: int, said: str) -> None:
    at = int(live.now().timestamp()) - ago
    complaint = {"last_error_date": at, "last_error_message": "503 Service Unavailable"}
    live.telegram.webhook["info"] = {"pending_update_count": pending, **complaint}
    code, seen = report(live)
    assert (code, seen["problems"]) == ((4, [said]) if said else (0, []))
    assert (seen["telegram"]["pending"], seen["telegram"]["error_at"]) == (pending, at)
    live.paths.maintenance.touch()  # during maintenance, nginx itself rejects Telegram's requests
    assert report(live)[1]["problems"] == []


def test_status_says_that_telegram_does_not_know_the_token(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object) -> tuple[int, bytes]:
        return 401, b'{"ok": false, "error_code": 401, "description": "Unauthorized"}'

    monkeypatch.setattr(Droplet, "request", request)
    code, seen = report(live)
    assert (code, seen["problems"]) == (
        4,
        [
            "the bot neither receives nor sends: Telegram's getWebhookInfo answers 401: Unauthorized. "
            "Next: set TELEGRAM_BOT_TOKEN, then make site"
        ],
    )


def test_status_waits_for_telegram_no_longer_than_it_said(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object) -> tuple[int, bytes]:
        time.sleep(30)
        raise AssertionError

    monkeypatch.setattr(Droplet, "request", request)
    monkeypatch.setattr(webhook, "LOOK_S", 0.2)
    began = time.monotonic()
    code, seen = report(live)
    assert (code, seen["telegram"]["silence"]) == (0, "no answer within 0 s")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"ok": true}',
        b'{"ok": true, "result": []}',
        b'{"ok": true, "result": {"url": 1}}',
        b'{"ok": true, "result": {"url": "", "pending_update_count": "9"}}',
        b'{"ok": true, "result": {"url": "", "last_error_date": 1.5}}',
        b'{"ok": 1, "result": {"url": ""}}',
        b"<html>",
        b'{"ok": false, "description": {"a": "\\u001b[2J"}}',
    ],
)
def test_an_answer_that_is_not_telegram_s_api_is_an_error(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    def request(*_: object) -> tuple[int, bytes]:
        return 200, body

    monkeypatch.setattr(Droplet, "request", request)
    with pytest.raises(FailedError) as raised:
        Telegram(live, ENVIRONMENT).info()
    assert str(raised.value).isprintable()
    assert not isinstance(raised.value, RejectedError)
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert report(live)[0] == 0


def test_telegram_s_messages_are_shown_short_and_printable() -> None:
    said = Info.read({"url": OURS, "last_error_message": "\x1b]0;x\x07\u202e" + "a" * 500}).error
    assert said == "\\x1b]0;x\\x07\\u202e" + "a" * 193


def test_the_record_of_the_webhook_is_compared_with_telegram(live: Droplet) -> None:
    assert state.load(live.paths).webhook
    live.telegram.webhook.clear()
    assert stackctl(live, "boot")[0] == 0
    assert live.telegram.webhook["url"] == OURS
