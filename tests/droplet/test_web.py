"""What a client meets at the public address, seen from outside: redirect, TLS, the webhook, and nothing else."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("edge")

SECRET = "X-Telegram-Bot-Api-Secret-Token"


def curl(outside: Host, place: Place, url: str, options: str = "") -> str:
    """Status line and headers, the chain verified; an empty string when there was no answer."""
    return str(outside.run(f"curl -sS -o /dev/null -D - --max-time 10 {place.trust} {options} {url}").stdout)


def status_of(answer: str) -> int:
    found = re.match(r"HTTP/\S+ (\d+)", answer)
    return int(found[1]) if found else 0


def site(place: Place, path: str = "/webhook/telegram") -> str:
    return f"https://{place.settings.values.domain}{path}"


def test_http_redirects_to_https(outside: Host, place: Place) -> None:
    answer = curl(outside, place, f"http://{place.settings.values.domain}/any?x=1")
    assert status_of(answer) == 301
    assert f"Location: https://{place.settings.values.domain}/any?x=1" in answer


def test_the_webhook_is_reached_over_a_verified_chain(outside: Host, place: Place, family: str) -> None:
    """401: the app itself answers, to a request without Telegram's secret."""
    assert status_of(curl(outside, place, site(place), f"{family} -X POST -d {{}}")) == 401


def test_an_unverified_chain_would_be_noticed(outside: Host, place: Place) -> None:
    """The control: with no authority to trust, the same request fails."""
    distrusting = outside.run(
        f"curl -sS -o /dev/null --max-time 10 --cacert /dev/null --capath /dev/null {site(place)}"
    )
    assert distrusting.rc in (60, 77)


def test_http2(outside: Host, place: Place) -> None:
    assert curl(outside, place, site(place), "--http2 -X POST").startswith("HTTP/2 ")


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/live", "/metrics", "/webhook/telegram/", "/webhook"])
def test_nothing_else_is_passed_on(outside: Host, place: Place, path: str) -> None:
    assert status_of(curl(outside, place, site(place, path))) == 404


@pytest.mark.parametrize("path", ["/webhook/telegram", "/nothing"])
def test_security_headers_are_on_every_answer(outside: Host, place: Place, path: str) -> None:
    answer = curl(outside, place, site(place, path)).lower()
    assert "strict-transport-security: max-age=63072000" in answer
    assert "x-content-type-options: nosniff" in answer
    assert not re.search(r"^server: nginx/", answer, re.MULTILINE)


def test_another_name_is_refused(outside: Host, place: Place) -> None:
    domain = place.settings.values.domain
    other = outside.run(f"curl -sSk --max-time 10 --connect-to another.test:443:{domain}:443 https://another.test/")
    assert other.rc == 35, "the handshake itself is refused"
    plain = outside.run(f"curl -sS --max-time 10 -H 'Host: another.test' http://{domain}/")
    assert plain.rc == 52, "the connection is closed without an answer"


def handshake(outside: Host, place: Place, options: str) -> bool:
    domain = place.settings.values.domain
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
def test_tls_is_mozilla_s_intermediate(outside: Host, place: Place, options: str, accepted: bool) -> None:  # noqa: FBT001
    assert handshake(outside, place, options) is accepted


def test_the_log_has_neither_query_nor_secret(droplet: Host, outside: Host, place: Place) -> None:
    probe = f"{site(place)}?token=should-not-be-logged"
    curl(outside, place, probe, f"-H '{SECRET}: should-not-be-logged' -X POST -d {{}}")
    tail = droplet.check_output("tail -n 50 /var/log/nginx/access.log")
    assert '"path":"/webhook/telegram"' in tail
    assert "should-not-be-logged" not in tail
