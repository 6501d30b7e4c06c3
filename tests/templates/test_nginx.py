"""nginx.conf at work, on the droplet, in an nginx beside the real one: what is passed on, refused, and read anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stackctl.paths import Paths
from testinfra.host import Host

from deploys.components import nginx
from tests.places import Place
from tests.unit.places import settings_of

pytestmark = pytest.mark.group("edge")

PATHS = ["/webhook/telegram", "/webhook/telegram/", "/app/x", "/app/page", "/app/busy", "/other"]
PROGRAM = Path(__file__).parent / "ask_nginx.py"


HERE = "127.0.0.1/32"


def answers(
    lab: Place,
    droplet: Host,
    public_paths: list[str],
    *,
    webhook_allowed_from: str = HERE,
    change: tuple[bytes, bytes] = (b"", b""),
) -> Any:
    values = {"public_paths": public_paths, "webhook_allowed_from": [webhook_allowed_from]}
    settings = settings_of("lab", values)
    settings = replace(settings, paths=Paths(settings.values.app, Path("/ROOT")))
    arguments = (settings.values.app, settings.values.domain, *PATHS)
    configuration = nginx.configuration(settings).replace(*change)
    ran = lab.run_python(droplet, PROGRAM, *arguments, stdin=configuration)
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def said(lab: Place, droplet: Host) -> Any:
    return answers(lab, droplet, ["/webhook/telegram", "/app/"])


def statuses(of_paths: dict[str, Any]) -> dict[str, int]:
    return {path: answer["status"] for path, answer in of_paths.items()}


def test_a_path_is_passed_on_exactly_and_one_that_ends_in_a_slash_as_a_prefix(said: Any) -> None:
    served = {path for path, status in statuses(said["served"]).items() if status == 200}
    assert served == {"/webhook/telegram", "/app/x", "/app/page"}
    assert statuses(said["served"])["/webhook/telegram/"] == 404
    assert said["served"]["/app/x"]["body"] == "/app/x", "with nothing cut off"


def test_the_prefix_of_all_passes_everything_on(lab: Place, droplet: Host) -> None:
    found = answers(lab, droplet, ["/"])
    assert statuses(found["served"]) == {**dict.fromkeys(PATHS, 200), "/app/busy": 503}
    assert statuses(found["maintenance"]) == dict.fromkeys(PATHS, 503)


def test_in_maintenance_every_path_is_told_to_come_again(said: Any) -> None:
    for path, answer in said["maintenance"].items():
        assert (answer["status"], answer["headers"]["retry-after"]) == (503, "30"), path
        assert "maintenance" in answer["body"]


def test_without_a_release_what_is_public_is_told_to_come_again_soon(said: Any) -> None:
    for path in ("/webhook/telegram", "/app/x"):
        assert (said["gone"][path]["status"], said["gone"][path]["headers"]["retry-after"]) == (503, "5")
    assert said["gone"]["/other"]["status"] == 404


def test_an_app_s_own_503_is_its_own(said: Any) -> None:
    answer = said["served"]["/app/busy"]
    assert answer["body"] == "/app/busy"
    assert "retry-after" not in answer["headers"]


@pytest.mark.parametrize("state", ["served", "maintenance", "gone"])
def test_security_headers_are_on_every_answer(said: Any, state: str) -> None:
    """Where the app states its page's policy, that is the one: with both, the stricter would count."""
    for path, answer in said[state].items():
        headers = answer["headers"]
        assert headers["strict-transport-security"] == "max-age=63072000", path
        assert headers["x-content-type-options"] == "nosniff", path
        stated = {"Content-Security-Policy": "default-src 'self'"} if (state, path) == ("served", "/app/page") else {}
        assert {name: headers[name.lower()] for name in nginx.HEADERS} == nginx.HEADERS | stated, path


def test_the_webhook_is_for_those_whom_it_is_for(lab: Place, droplet: Host) -> None:
    """Also where a prefix would pass it on."""
    for public_paths in (["/webhook/telegram", "/app/"], ["/"]):
        found = statuses(answers(lab, droplet, public_paths, webhook_allowed_from="149.154.160.0/20")["served"])
        assert (found["/webhook/telegram"], found["/app/x"]) == (403, 200), public_paths


def test_a_renewed_certificate_is_served_without_a_reload_and_ends_no_connection(said: Any) -> None:
    assert said["serials"] == ["serial=01", "serial=02"]
    assert said["kept"] == [200, 200]


def test_nothing_is_complained_about(said: Any) -> None:
    assert [line for line in said["complaints"] if "[warn]" in line] == []


def test_no_query_gets_into_a_log(said: Any) -> None:
    """Also where nginx has something to say of the request, as when no release serves."""
    assert '"path":"/app/x"' in said["access_log"]
    assert "in-the-query" not in "\n".join([said["access_log"], *said["complaints"]])


def test_the_usual_log_of_errors_would_hold_it(lab: Place, droplet: Host) -> None:
    """The control."""
    usual = answers(
        lab, droplet, ["/app/", "/webhook/telegram"], change=(b"error_log stderr emerg", b"error_log stderr crit")
    )
    assert "in-the-query" in "\n".join(usual["complaints"])
