"""Tests of nginx.conf in a second nginx on the droplet.

They cover passed and refused requests, certificates and logs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from testinfra.host import Host

from deploys.components import nginx
from stackctl.core.paths import Paths
from tests.support.environment import Environment
from tests.support.settings import settings_of

pytestmark = pytest.mark.group("edge")

PATHS = [
    *("/webhook/telegram", "/webhook/telegram/", "/webhook/telegram/x"),
    *("/app/x", "/app/page", "/app/busy", "/app/missing", "/other"),
]
PROGRAM = Path(__file__).parent / "ask_nginx.py"
FORGED = [
    *("X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Port"),
    *("X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Original-URL", "X-Rewrite-URL", "X-Host"),
    *("X-Original-Host", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Client-IP", "Via", "Proxy"),
    *("X-Cluster-Client-IP", "X-Request-ID", "Remote-User"),
]
"""Headers that a client may send, although only nginx may set them."""
HERE, ELSEWHERE = "127.0.0.1/32", "149.154.160.0/20"
LIMITS = (b"limit_req zone=request_rate burst=20 nodelay;", b"limit_conn under_way 20;")


def answers(
    lab: Environment,
    droplet: Host,
    public_paths: list[str],
    *,
    crowd: int = 0,
    files: int = 0,
    changes: Mapping[bytes, bytes] = MappingProxyType({}),
    isolated: bool = False,
    **values: Any,
) -> Any:
    settings = settings_of("lab", {"webhook_allowed_from": [HERE], "public_paths": public_paths, **values})
    settings = replace(settings, paths=Paths(settings.values.app, Path("/ROOT")), isolated=isolated)
    arguments = (settings.values.app, settings.values.domain, str(crowd), str(files), ",".join(FORGED), *PATHS)
    configuration = nginx.configuration(settings)
    for before, after in changes.items():
        assert before in configuration
        configuration = configuration.replace(before, after)
    ran = lab.run_python(droplet, PROGRAM, *arguments, stdin=configuration)
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def said(lab: Environment, droplet: Host) -> Any:
    return answers(lab, droplet, ["/webhook/telegram", "/app/"])


def statuses(of_paths: dict[str, Any]) -> dict[str, int]:
    return {path: answer["status"] for path, answer in of_paths.items()}


def test_a_path_is_passed_on_exactly_and_one_that_ends_in_a_slash_as_a_prefix(said: Any) -> None:
    served = {path for path, status in statuses(said["served"]).items() if status == 200}
    assert served == {"/webhook/telegram", "/app/x", "/app/page"}
    assert statuses(said["served"])["/webhook/telegram/"] == 404
    assert said["served"]["/app/x"]["body"] == "/app/x", "nginx has cut off a part of the path"


def test_the_prefix_of_all_passes_everything_on(lab: Environment, droplet: Host) -> None:
    found = answers(lab, droplet, ["/"])
    assert statuses(found["served"]) == {**dict.fromkeys(PATHS, 200), "/app/busy": 503, "/app/missing": 404}
    assert statuses(found["maintenance"]) == dict.fromkeys(PATHS, 503)


def test_in_maintenance_every_path_answers_retry_later(said: Any) -> None:
    for path, answer in said["maintenance"].items():
        assert (answer["status"], answer["headers"]["retry-after"]) == (503, "30"), path
        assert "maintenance" in answer["body"]


def test_an_isolated_droplet_answers_503_to_everybody(lab: Environment, droplet: Host) -> None:
    copy = answers(lab, droplet, ["/"], isolated=True)
    assert statuses(copy["served"]) == dict.fromkeys(PATHS, 503)
    assert {answer["headers"]["retry-after"] for answer in copy["served"].values()} == {"30"}


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
    """The app's own policy for a page replaces nginx's policy.

    If nginx sent both policies, a browser would apply the stricter one.
    """
    for path, answer in said[state].items():
        stated = {"Content-Security-Policy": "default-src 'self'"} if (state, path) == ("served", "/app/page") else {}
        assert_secure(answer, **stated)


def assert_secure(answer: dict[str, Any], **stated: str) -> None:
    headers = answer["headers"]
    assert headers["strict-transport-security"] == "max-age=63072000"
    assert headers["x-content-type-options"] == "nosniff"
    assert {name: headers[name.lower()] for name in nginx.HEADERS} == nginx.HEADERS | stated


def test_the_webhook_admits_only_the_declared_addresses(lab: Environment, droplet: Host) -> None:
    """Only declared addresses reach the webhook, even below a public prefix. Other clients get nginx's error page."""
    for public_paths in (["/webhook/telegram", "/app/"], ["/"]):
        found = answers(lab, droplet, public_paths, webhook_allowed_from=[ELSEWHERE])["served"]
        assert (found["/webhook/telegram"]["status"], found["/app/x"]["status"]) == (403, 200), public_paths
        assert found["/webhook/telegram"]["body"] == "Not from here.\n"
        assert_secure(found["/webhook/telegram"])


def test_the_webhook_admits_everybody_if_no_address_is_declared(lab: Environment, droplet: Host) -> None:
    found = statuses(answers(lab, droplet, ["/webhook/telegram"], webhook_allowed_from=[])["served"])
    assert {path for path, status in found.items() if status == 200} == {"/webhook/telegram"}


def test_the_webhook_is_one_path_also_with_a_slash_at_its_end(lab: Environment, droplet: Host) -> None:
    """Paths below the webhook's path would bypass its limits."""
    path = "/webhook/telegram/"
    found = statuses(answers(lab, droplet, [path], webhook_path=path)["served"])
    assert {path for path, status in found.items() if status == 200} == {path}


def test_an_address_has_twenty_requests_under_way_at_most(lab: Environment, droplet: Host) -> None:
    """nginx limits an address to twenty simultaneous requests on both ports (dev-sec nginx-07).

    The test removes the limit of requests per second, because that limit would apply first.
    """
    paths = ["/app/", "/webhook/telegram"]
    there = answers(lab, droplet, paths, crowd=25, changes={LIMITS[0]: b""})
    assert there["crowd"] == {"8080": {"301": 20, "429": 5}, "8443": {"": 20, "429": 5}}
    out = answers(lab, droplet, paths, crowd=25, changes=dict.fromkeys(LIMITS, b""))
    assert out["crowd"] == {"8080": {"301": 25}, "8443": {"": 25}}


def test_what_nginx_itself_refuses_is_counted_for_bans_and_not_what_an_app_has_not(said: Any) -> None:
    refused = Counter(line.split()[-1] for line in said["refused_log"].splitlines())
    asked = [
        (state, path) for state in ("served", "gone") for path in PATHS if path.startswith(("/webhook/", "/other"))
    ]
    assert refused["404"] == sum(said[state][path]["status"] == 404 for state, path in asked) > 0
    assert said["served"]["/app/missing"]["status"] == 404


def test_no_header_that_only_a_proxy_may_send_reaches_the_app_from_a_client(said: Any) -> None:
    """dev-sec nginx-13. The test ignores requests that nginx answers itself."""
    own = {name: said["headers"].get(name) for name in ("X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "Host")}
    domain = settings_of("lab").values.domain
    assert own == {
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "Host": domain,
    }
    assert "198.51.100.66" not in json.dumps(said["headers"])
    assert set(said["headers"]) == {*own, "X-Request-ID", "Accept-Encoding"}, "nginx sends an empty header"


def test_a_client_s_own_words_would_reach_it(lab: Environment, droplet: Host) -> None:
    """Control: without our lines, nginx passes on `Forwarded` and `X-Forwarded-For` from the client."""
    changes = {
        b"X-Forwarded-For $remote_addr": b"X-Forwarded-For $proxy_add_x_forwarded_for",
        b'proxy_set_header Forwarded "";': b"",
    }
    found = answers(lab, droplet, ["/app/", "/webhook/telegram"], changes=changes)["headers"]
    assert found["Forwarded"] == "198.51.100.66"
    assert found["X-Forwarded-For"] == "198.51.100.66, 127.0.0.1"


def test_a_path_that_an_app_may_read_otherwise_than_nginx_is_refused(said: Any) -> None:
    answered = statuses(said["raw"])
    by_status = {code: {path for path, status in answered.items() if status == code} for code in (200, 400)}
    assert by_status[200] == {"/app//x", "/app/a%2fb", "/app/x?next=/../y", "/app/a.b..c"}
    assert by_status[400] == set(answered) - by_status[200]
    assert {said["raw"][path]["body"] for path in by_status[400]} == {"Refused.\n"}, "the answer is not our error page"


def test_such_a_path_would_be_passed_on_as_it_was_sent(lab: Environment, droplet: Host) -> None:
    """Control: without our rule, nginx passes on the ambiguous path."""
    changes = {b"        if ($path_is_ambiguous) {\n            return 418;\n        }\n": b""}
    raw = statuses(answers(lab, droplet, ["/app/", "/webhook/telegram"], changes=changes)["raw"])
    assert (raw["/other/../app/x"], raw["/app/..;/other"], raw["//app/x"]) == (200, 200, 200)


def test_a_visitor_of_a_page_with_sixty_files_gets_all_of_them_and_counts_for_no_ban(
    lab: Environment, droplet: Host
) -> None:
    """A browser loads the page three times in a row, with the limits that all environments share."""
    values = settings_of("prod").values
    rate, burst = values.client_rate, values.client_burst
    found = answers(lab, droplet, ["/"], files=60, webhook_path=None, client_rate=rate, client_burst=burst)
    assert found["page"] == [{"2 200": 60, "connections": 1}] * 3
    assert " 429" not in found["refused_log"]


def test_sixty_files_are_too_many_with_a_small_burst(lab: Environment, droplet: Host) -> None:
    """Control: with a small burst, nginx refuses some of the sixty files."""
    found = answers(lab, droplet, ["/"], files=60, client_rate=10, client_burst=20)["page"]
    assert sum(visit.get("2 429", 0) for visit in found) > 60


def test_a_large_header_of_an_answer_is_passed_on(lab: Environment, droplet: Host, said: Any) -> None:
    """An app may send large cookies and policies.

    The control shows that nginx's default limit of 4 KiB causes an error.
    """
    assert said["large"] == 200
    changes = {b"proxy_buffer_size 16k;": b"", b"proxy_busy_buffers_size 32k;": b""}
    assert answers(lab, droplet, ["/app/", "/webhook/telegram"], changes=changes)["large"] == 503


def test_a_renewed_certificate_is_served_without_a_reload_and_ends_no_connection(said: Any) -> None:
    assert said["serials"] == ["serial=01", "serial=02"]
    assert said["kept"] == [200, 200]


def test_nothing_is_complained_about(said: Any) -> None:
    assert [line for line in said["complaints"] if "[warn]" in line] == []


def test_no_query_gets_into_a_log(said: Any) -> None:
    """No query is logged, even if nginx logs a message about the request, for example while no release serves."""
    assert '"method":"GET","path":"/app/x"' in said["access_log"]
    assert "in-the-query" not in "\n".join([said["access_log"], *said["complaints"]])


def test_the_usual_log_of_errors_would_hold_it(lab: Environment, droplet: Host) -> None:
    """Control: at the level crit, nginx's error log contains the query."""
    usual = answers(
        lab, droplet, ["/app/", "/webhook/telegram"], changes={b"error_log stderr emerg": b"error_log stderr crit"}
    )
    assert "in-the-query" in "\n".join(usual["complaints"])
