"""If no client uses the app, a release itself sends requests to the app."""

import json
from pathlib import Path
from typing import Any

import pytest

from stackctl.app.app_env import canonical
from stackctl.core import config
from stackctl.core.errors import RefusedError
from stackctl.release import watch
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, installed, stackctl
from tests.support.watched import NOBODY, Watched, flip, stack, watched


@pytest.fixture
def live(tmp_path: Path) -> Watched:
    return watched(tmp_path)


def site(droplet: Droplet, *public: str, **config: Any) -> None:
    """Declare the public paths, in addition to Telegram's."""
    declared = json.loads(droplet.paths.config.read_text())
    droplet.paths.config.write_text(json.dumps(declared | {"public_paths": public} | config))


def released(droplet: Droplet, tag: str) -> tuple[int, str]:
    code, shown = stackctl(droplet, "release", tag)
    return code, shown.splitlines()[-1] if code else shown


def test_a_release_that_nobody_asked_for_anything_says_so(live: Watched) -> None:
    assert f"watch      done {NOBODY}" in released(live, "1.2.0")[1]


def test_a_bot_that_fails_its_own_look_after_the_flip_is_undone(live: Watched) -> None:
    live.later = {"update": 500}
    code, said = released(live, "1.2.0")
    assert (code, "stackctl's own request failed: /webhook answers 500. 1.1.0 is still live" in said) == (1, True), said


def test_a_page_that_fails_after_the_flip_is_a_reason_as_well(live: Watched) -> None:
    site(live, "/", "/offers/")
    live.app |= {"pages": {"/": 200, "/offers/": 200}}
    live.later = {"pages": {"/": 200, "/offers/": 502}}
    code, said = released(live, "1.2.0")
    assert (code, "stackctl's own request failed: /offers/ answers 502" in said) == (1, True), said


def test_a_page_that_only_the_new_release_fails_is_found_before_the_flip(
    live: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(live, "/")
    ask = Droplet.request_over_socket

    def pages(droplet: Droplet, unix_socket: Path, target: str, *rest: Any) -> tuple[int, bytes]:
        if target == "/":
            return (500 if unix_socket.stem == "green" else 404), b""
        return ask(droplet, unix_socket, target, *rest)

    monkeypatch.setattr(Droplet, "request_over_socket", pages)
    code, said = released(live, "1.2.0")
    assert (code, "/ answers 500. 1.1.0 is still live" in said) == (1, True), said
    assert not live.ran("bot-worker --file")


def test_a_page_that_the_live_release_fails_as_well_is_no_reason(live: Watched) -> None:
    site(live, "/")
    live.app |= {"pages": {"/": 500}}
    assert released(live, "1.2.0")[0] == 0


def test_a_page_of_a_first_release_has_to_be_answered(tmp_path: Path) -> None:
    fresh = installed(tmp_path, public_paths=["/"])
    fresh.app |= {"pages": {"/": 500}}
    assert "/ answers 500. Everything is undone" in released(fresh, "1.0.0")[1]
    fresh.app |= {"pages": {"/": 404}}
    assert released(fresh, "1.0.0")[0] == 0


def test_an_app_gets_its_first_webhook_while_it_serves(tmp_path: Path) -> None:
    """A release can give an app its first webhook, although the live release has no webhook secret for a probe."""
    fresh = installed(tmp_path, webhook_path=None)
    without = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("TELEGRAM_")}
    fresh.paths.next_environment.write_bytes(canonical(without))
    assert released(fresh, "1.0.0")[0] == 0
    site(fresh, webhook_path="/webhook")
    fresh.paths.next_environment.write_bytes(canonical(ENVIRONMENT))
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert (code, "webhook    done the webhook is set" in shown) == (0, True), shown


def test_a_look_that_fails_once_or_twice_is_a_mishap(live: Watched) -> None:
    found = [{"/": "/ answers 500"}, {"/": "/ answers 500"}, {}, {"/": "/ answers 500"}]
    watch.watch(stack(live), "blue", None, flip(live), lambda: found.pop(0) if found else {})


def test_a_rollback_looks_at_no_page(live: Watched) -> None:
    """A rollback requests no page, because a page that fails must not prevent a rollback."""
    assert released(live, "1.2.0")[0] == 0
    site(live, "/")
    live.app |= {"pages": {"/": 500}}
    assert stackctl(live, "rollback")[0] == 0


def test_an_older_declaration_without_public_paths_is_taken(live: Watched) -> None:
    assert "public_paths" not in json.loads(live.paths.config.read_text())
    assert config.load(live.paths).public_paths == ()
    site(live, "no path")
    with pytest.raises(RefusedError, match=r"public_paths\[0\] must be a path that begins with /"):
        config.load(live.paths)
