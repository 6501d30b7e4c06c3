"""The public address offers a redirect, TLS and the webhook, and nothing else.

The tests send their requests from outside.
"""

from __future__ import annotations

import re
import time

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.support.web import TOO_MUCH, curl, is_public, send_too_much, site, status_of, the_apps_own

pytestmark = pytest.mark.group("edge")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
SECRET = "X-Telegram-Bot-Api-Secret-Token"


def test_http_redirects_to_https(outside: Host, env: Environment) -> None:
    answer = curl(outside, env, f"http://{env.settings.values.domain}/any?x=1")
    assert status_of(answer) == 301
    assert f"Location: https://{env.settings.values.domain}/any?x=1" in answer


def test_the_app_is_reached_over_a_verified_chain(outside: Host, env: Environment, family: str) -> None:
    """Any answer from the app counts. Without the app, nginx answers 5xx."""
    for path in env.settings.values.public_paths:
        answer = curl(outside, env, site(env, path), family)
        assert 200 <= status_of(answer) < 500, path
        assert_hardened(answer)


def test_the_webhook_is_reached_over_a_verified_chain(outside: Host, env: Environment, family: str) -> None:
    """Expect 403 if nginx admits only Telegram's addresses, or else the app's 401, because the secret is missing.

    An app without a webhook accepts no updates at the usual path.
    """
    values = env.settings.values
    if values.webhook_path is None:
        answer = curl(outside, env, site(env, "/webhook/telegram"), f"{family} -X POST -d {{}}")
        assert is_public(env, "/webhook/telegram") or status_of(answer) == 404
        assert_hardened(answer)
        return
    answer = curl(outside, env, site(env), f"{family} -X POST -d {{}}")
    assert status_of(answer) == (403 if values.webhook_allowed_from else 401)
    assert_hardened(answer)


def test_the_app_itself_answers_telegram(env: Environment, family: str) -> None:
    """Expect 401 without the secret. The lab's Telegram sends the request, because tests lack Telegram's addresses."""
    if not env.in_lab or not env.settings.values.webhook_path:
        pytest.skip("only the lab has a Telegram of its own, and the app needs a webhook")
    assert status_of(env.ask_as_telegram(site(env), f"{family} -X POST -d {{}}")) == 401


def test_a_forged_client_address_is_ignored(outside: Host, env: Environment) -> None:
    """nginx ignores a header in which a client states its own address."""
    values = env.settings.values
    if not values.webhook_path or not values.webhook_allowed_from:
        pytest.skip("the webhook is open to all addresses, or there is none")
    forged = "-H 'X-Forwarded-For: 149.154.160.1' -H 'X-Real-IP: 149.154.160.1' -H 'Forwarded: for=149.154.160.1'"
    assert status_of(curl(outside, env, site(env), f"{forged} -X POST -d {{}}")) == 403


def test_an_unverified_chain_is_refused(outside: Host, env: Environment) -> None:
    """Control: without a trusted authority, the same request fails."""
    distrusting = outside.run(f"curl -sS -o /dev/null --max-time 10 --cacert /dev/null --capath /dev/null {site(env)}")
    assert distrusting.rc in (60, 77)


def test_http2(outside: Host, env: Environment) -> None:
    assert curl(outside, env, site(env), "--http2 -X POST").startswith("HTTP/2 ")


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/live", "/metrics", "/webhook/telegram/", "/webhook"])
def test_other_paths_do_not_reach_the_app(outside: Host, env: Environment, path: str) -> None:
    """A path in public_paths reaches the app, which may answer anything below 500."""
    answer = status_of(curl(outside, env, site(env, path)))
    assert 200 <= answer < 500 if is_public(env, path) else answer == 404


@pytest.mark.parametrize("path", ["", "/nothing"], ids=["the app's", "/nothing"])
def test_security_headers_are_on_every_answer(outside: Host, env: Environment, path: str) -> None:
    answer = curl(outside, env, site(env, path)).lower()
    assert "strict-transport-security: max-age=63072000" in answer
    assert_hardened(answer)


def assert_hardened(answer: str) -> None:
    """Require the headers that restrict browsers, and no header with nginx's version (dev-sec nginx-08, nginx-15)."""
    answer = answer.lower()
    assert "x-content-type-options: nosniff" in answer
    assert [f"{name}: {value}".lower() in answer for name, value in HEADERS.items()] == [True] * len(HEADERS)
    assert not re.search(r"^server: nginx/", answer, re.MULTILINE)


@pytest.mark.parametrize("what", TOO_MUCH)
def test_an_oversized_request_is_refused(outside: Host, env: Environment, what: str) -> None:
    answer = send_too_much(outside, env, what)
    assert status_of(answer) == TOO_MUCH[what][0]
    assert_hardened(answer)


def test_port_80_answers_with_the_same_headers_and_without_hsts(outside: Host, env: Environment) -> None:
    """RFC 6797, 7.2: HSTS must not be sent over plain HTTP."""
    domain = env.settings.values.domain
    for path, status in (("any", 301), (".well-known/acme-challenge/none", 404)):
        answer = curl(outside, env, f"http://{domain}/{path}")
        assert status_of(answer) == status
        assert_hardened(answer)
        assert "strict-transport-security" not in answer.lower()


def test_plain_http_on_443_gets_our_error_page(outside: Host, env: Environment) -> None:
    answer = curl(outside, env, f"http://{env.settings.values.domain}:443/")
    assert status_of(answer) == 400
    assert_hardened(answer)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_an_address_that_sends_too_many_requests_is_limited(outside: Host, env: Environment, scheme: str) -> None:
    """nginx serves the permitted burst and answers 429 to all further requests (dev-sec nginx-07).

    The answers of both kinds have all headers.
    """
    served = "301" if scheme == "http" else "404"
    if scheme == "https" and is_public(env, "/nothing/1"):
        served = str(status_of(curl(outside, env, site(env, "/nothing/1"))))  # the status of the app's own answer
    headers = {"X-Content-Type-Options": "nosniff", **HEADERS}
    shown = " ".join(["%{http_code}", *(f"%header{{{name}}}" for name in headers)])
    ask = f"curl -sS --parallel --parallel-immediate -o /dev/null -w '{shown}\\n' --max-time 10 {env.trust}"
    url = f"{scheme}://{env.settings.values.domain}/nothing/[1-{env.settings.values.client_burst + 15}]"
    many = outside.check_output(f"{ask} '{url}'").splitlines()
    time.sleep(3)  # waits until nginx no longer limits this client
    told = {status: " ".join([status, *headers.values()]) for status in (served, "429")}
    assert set(many) == set(told.values())
    assert many.count(told[served]) >= 10, "nginx refused a part of the burst"


def test_another_server_name_is_refused(outside: Host, env: Environment) -> None:
    domain = env.settings.values.domain
    other = outside.run(f"curl -sSk --max-time 10 --connect-to another.test:443:{domain}:443 https://another.test/")
    assert other.rc == 35, "nginx accepted the handshake"
    plain = outside.run(f"curl -sS --max-time 10 -H 'Host: another.test' http://{domain}/")
    assert (plain.rc, plain.stdout) == (56, ""), "nginx answered instead of resetting the connection"
    for version in ("--http1.1", "--http2"):
        assert status_of(curl(outside, env, site(env), f"{version} -H 'Host: another.test'")) == 0


def handshake(outside: Host, env: Environment, options: str) -> bool:
    domain = env.settings.values.domain
    tried = outside.run(f"openssl s_client -connect {domain}:443 -servername {domain} {options} </dev/null")
    return tried.rc == 0 and "Cipher is (NONE)" not in tried.stdout


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ("-tls1_3", True),
        ("-tls1_2", True),
        ("-tls1_1 -cipher DEFAULT@SECLEVEL=0", False),
        ("-tls1 -cipher DEFAULT@SECLEVEL=0", False),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA", False),
        ("-tls1_2 -cipher AES128-GCM-SHA256", False),
    ],
)
def test_tls_is_mozilla_s_intermediate_profile(
    outside: Host, env: Environment, options: str, *, accepted: bool
) -> None:
    assert handshake(outside, env, options) is accepted


def test_the_access_log_has_neither_query_nor_secret(droplet: Host, outside: Host, env: Environment) -> None:
    probe = f"{site(env)}?token=should-not-be-logged"
    curl(outside, env, probe, f"-H '{SECRET}: should-not-be-logged' -X POST -d {{}}")
    tail = droplet.check_output("tail -n 50 /var/log/nginx/access.log")
    assert f'"path":"{the_apps_own(env)}"' in tail
    assert "should-not-be-logged" not in tail
