"""stackctl obtains the declared certificate, keeps the old one after a failure, and checks what nginx serves."""

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import ENVIRONMENT as ENV
from stackctl.core.program import Result
from stackctl.host import certificate
from tests.support.certificates import self_signed
from tests.support.fakes.droplet import Droplet, installed, stackctl

DOMAIN, SERVER = "bot.lab.test", "https://acme.lab.test:14000/dir"
DECLARED = {"domain": DOMAIN, "server": SERVER, "email": "ops@lab.test"}
REFUSED = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for bot.lab.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: bot.lab.test
  Type:   unauthorized
  Detail: 10.77.0.11: Invalid response from http://bot.lab.test/.well-known/acme-challenge/x: 404

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

"""
ADVICE = "Some challenges have failed.\nAsk for help or search for solutions at https://community.letsencrypt.org."
UNREACHABLE = "An unexpected error occurred:\nrequests.exceptions.ConnectionError: refused\nAsk for help or search …"
STAGING = "Saving debug log to x\nYou've asked to replace it with a test certificate.\nSee the logfile y"


@dataclass
class Edge(Droplet):
    """A droplet with a real openssl, a fake certbot and a fake nginx.

    The fake nginx reads `current` at each handshake.
    """

    nginx: bool = True
    """True if nginx runs with the declared configuration."""
    obtains: Result = field(default_factory=lambda: Result(0))

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENV,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        if argv[0] == "openssl":
            return Machine().run(argv)
        if argv[0] == "certbot":
            self.calls.append(list(argv))
            if not self.obtains.code:
                lineage(self.paths, argv[argv.index("--server") + 1], argv[argv.index("--domain") + 1])
            return self.obtains
        return super().run(argv, env, timeout, stdin=stdin, stdout=stdout)

    @property
    def served(self) -> bytes | None:
        return der(self.paths.tls_current)

    def peer_certificate(self, address: tuple[str, int], name: str) -> bytes | None:
        return self.served if self.nginx and (address, name) == (("127.0.0.1", 443), DOMAIN) else None


def der(directory: Path) -> bytes | None:
    return certificate._first_of(directory / "fullchain.pem")


def lineage(paths: Paths, server: str = SERVER, domain: str = DOMAIN) -> None:
    """Write a certificate's files as certbot does."""
    self_signed(paths.tls_live(DOMAIN), domain)
    paths.renewal(DOMAIN).parent.mkdir(exist_ok=True)
    conf = ["version = 4.0.0", "archive_dir = /etc/letsencrypt/archive/x", "[renewalparams]", "account = a%b"]
    webroot = ["webroot_path = /var/www/acme,", "[[webroot_map]]", f"{domain} = /var/www/acme"]
    paths.renewal(DOMAIN).write_text("\n".join([*conf, f"server = {server}", *webroot]))


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    """Make a droplet with the placeholder certificate of a first converge."""
    edge = Edge(installed(tmp_path, certificate=DECLARED).paths)
    self_signed(edge.paths.tls_placeholder, DOMAIN)
    edge.paths.tls_current.symlink_to(edge.paths.tls_placeholder)
    return edge


@pytest.fixture
def certified(edge: Edge) -> Edge:
    assert stackctl(edge, "certificate")[0] == 0
    edge.calls.clear()
    edge.paths.history.unlink()
    return edge


def test_the_declared_certificate_replaces_the_placeholder(edge: Edge) -> None:
    edge.paths.certificate_failure.write_text('{"cause": "x"}')
    code, shown = stackctl(edge, "certificate")
    assert code == 0, shown
    assert edge.served == der(edge.paths.tls_live(DOMAIN))
    assert not edge.paths.certificate_failure.exists()
    assert edge.ran("certbot") == [
        [
            *("certbot", "certonly", "--non-interactive", "--agree-tos", "--no-directory-hooks"),
            *("--email", "ops@lab.test", "--webroot", "--webroot-path", str(edge.paths.acme_webroot)),
            *("--server", SERVER, "--cert-name", DOMAIN, "--domain", DOMAIN, "--reuse-key"),
        ]
    ]


def test_nginx_reads_a_copy_that_is_its_groups(edge: Edge) -> None:
    """nginx's workers read the certificate at each handshake.

    nginx gets a copy, because only root can read certbot's files.
    """
    assert stackctl(edge, "certificate")[0] == 0
    copy = edge.paths.tls_current.resolve()
    assert copy.parent == edge.paths.tls
    assert edge.paths.tls_current.readlink() == Path(copy.name)
    assert sorted(path.name for path in copy.iterdir()) == ["fullchain.pem", "privkey.pem"]
    for path in copy.iterdir():
        assert path.read_bytes() == (edge.paths.tls_live(DOMAIN) / path.name).read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(copy.stat().st_mode) == 0o750
    given = [["chgrp", "www-data", name] for name in (copy.name, "fullchain.pem", "privkey.pem")]
    assert edge.ran("chgrp") == given


@pytest.mark.parametrize("name", ["fullchain.pem", "privkey.pem"])
def test_a_copy_is_nginxs_before_it_is_served(edge: Edge, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def give(path: Path, group: str) -> None:
        if path.name == name:
            raise PermissionError("not yet")

    with monkeypatch.context() as patched:
        patched.setattr(edge, "chgrp", give)
        assert stackctl(edge, "certificate")[0] == 1
    assert edge.paths.tls_current.resolve() == edge.paths.tls_placeholder
    assert stackctl(edge, "certificate")[0] == 0
    assert edge.served == der(edge.paths.tls_live(DOMAIN))


def test_one_copy_is_kept_beside_the_placeholder(certified: Edge) -> None:
    for _ in range(3):
        former = certified.paths.tls_current.readlink()
        lineage(certified.paths)
        assert stackctl(certified, "certificate", "--renewed")[0] == 0
        copy = certified.paths.tls_current.readlink()
        assert copy != former
        assert {path.name for path in certified.paths.tls.iterdir()} == {"current", "placeholder", copy.name}


def test_the_next_copy_removes_leftovers_of_a_killed_call(certified: Edge) -> None:
    left = certified.paths.tls / "0123456789abcdef"
    left.mkdir()
    (left / "privkey.pem").write_text("a key")
    lineage(certified.paths)
    assert stackctl(certified, "certificate", "--renewed")[0] == 0
    assert not left.exists()
    assert certified.served == der(certified.paths.tls_live(DOMAIN))


@pytest.mark.parametrize("umask", [0, 0o77])
def test_a_copy_is_its_groups_whatever_the_callers_umask(edge: Edge, umask: int) -> None:
    former = os.umask(umask)
    try:
        assert stackctl(edge, "certificate")[0] == 0
    finally:
        os.umask(former)
    copy = edge.paths.tls_current.resolve()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (copy, *copy.iterdir())] == [0o750, 0o640, 0o640]


def test_nothing_is_reloaded_or_restarted(edge: Edge) -> None:
    """A new certificate needs no reload or restart, which would reset keep-alive clients."""
    assert stackctl(edge, "certificate")[0] == 0
    lineage(edge.paths)
    assert stackctl(edge, "certificate", "--renewed")[0] == 0
    assert not edge.ran("systemctl")
    assert not edge.ran("nginx")


def test_a_certificate_as_declared_causes_no_action_and_no_message(certified: Edge) -> None:
    assert stackctl(certified, "certificate") == (0, "")
    assert not certified.calls
    assert not certified.paths.history.exists()
    report = json.loads(stackctl(certified, "status", "--json")[1])
    assert report["certificate"]["as_declared"] is True


@pytest.mark.parametrize("said", [REFUSED + ADVICE, UNREACHABLE, STAGING])
def test_a_failure_leaves_what_serves_and_says_why(edge: Edge, said: str) -> None:
    edge.obtains = Result(1, said)
    before = edge.paths.tls_current.readlink(), edge.served
    assert edge.served
    code, shown = stackctl(edge, "certificate")
    assert code == 1
    assert (edge.paths.tls_current.readlink(), edge.served) == before
    cause = certificate.failure(edge.paths)
    assert cause
    assert cause in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            Result(1, REFUSED, ADVICE),
            "unauthorized: 10.77.0.11: Invalid response from http://bot.lab.test/.well-known/acme-challenge/x: 404",
        ),
        (Result(1, "", UNREACHABLE), "requests.exceptions.ConnectionError: refused"),
        (Result(1, STAGING), "You've asked to replace it with a test certificate."),
        (Result(127, stderr="certbot is not installed"), "certbot is not installed"),
        (Result(1), "exit 1"),
    ],
)
def test_the_cause_in_one_line(said: Result, cause: str) -> None:
    assert certificate.cause(said) == cause


@pytest.mark.parametrize("change", [{"server": "https://other/dir"}, {"domain": "www.lab.test"}])
def test_a_lineage_of_another_kind_is_replaced(edge: Edge, change: dict[str, str]) -> None:
    lineage(edge.paths, **change)
    assert stackctl(edge, "certificate")[0] == 0
    assert edge.ran("certbot")[0][-1] == "--force-renewal"
    assert edge.served == der(edge.paths.tls_live(DOMAIN))


def test_an_old_certificate_serves_on_while_another_server_refuses(certified: Edge) -> None:
    served, copy = certified.served, certified.paths.tls_current.resolve()
    lineage(certified.paths, server="https://other/dir")
    certified.obtains = Result(1, REFUSED)
    assert stackctl(certified, "certificate")[0] == 1
    assert certified.served == served
    assert certified.served != der(certified.paths.tls_live(DOMAIN))
    assert stackctl(certified, "certificate", "--renewed")[0] == 0
    assert certified.paths.tls_current.resolve() == copy


@pytest.mark.parametrize("hook", [["--renewed"], []])
def test_a_renewed_one_is_served_be_it_by_the_hook_or_an_hour_later(certified: Edge, hook: list[str]) -> None:
    lineage(certified.paths)
    assert certified.served != der(certified.paths.tls_live(DOMAIN))
    assert stackctl(certified, "certificate", *hook)[0] == 0
    assert certified.served == der(certified.paths.tls_live(DOMAIN))
    assert not certified.ran("certbot")


def test_the_hook_obtains_nothing(edge: Edge) -> None:
    assert stackctl(edge, "certificate", "--renewed")[0] == 0
    assert not edge.calls


@pytest.mark.parametrize("hook", [["--renewed"], []])
def test_the_check_fails_while_nginx_serves_another_certificate(certified: Edge, hook: list[str]) -> None:
    certified.nginx = False
    code, shown = stackctl(certified, "certificate", *hook)
    assert code == 1
    told = shown.splitlines()[-1]
    assert "nginx does not serve the certificate in /" in told
    assert "/etc/bot/tls/current. Next: nginx -t" in told
    certified.nginx = True
    assert stackctl(certified, "certificate", *hook) == (0, "")


def test_without_a_declared_certificate_there_is_nothing_to_do(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "certificate") == (0, "")
    assert not droplet.calls


def status(edge: Edge) -> tuple[int, dict[str, Any], str]:
    code, shown = stackctl(edge, "status", "--json")
    report = json.loads(shown)
    return code, report["certificate"], "; ".join(report["problems"])


def test_status_of_the_declared_one(certified: Edge) -> None:
    _, served, problems = status(certified)
    assert (served["placeholder"], served["as_declared"], served["cause"]) == (False, True, None)
    assert (served["subject_names"], served["issuer"]) == ([DOMAIN], "CN=Test CA")
    assert "certificate" not in problems


def test_a_placeholder_needs_a_person_and_says_why(edge: Edge) -> None:
    assert "not requested yet" in status(edge)[2]
    edge.obtains = Result(1, REFUSED)
    stackctl(edge, "certificate")
    code, served, problems = status(edge)
    assert (code, served["placeholder"], served["as_declared"]) == (4, True, False)
    assert served["cause"] == certificate.failure(edge.paths)
    assert "nginx serves a placeholder certificate: unauthorized" in problems


def test_an_older_one_needs_a_person(certified: Edge) -> None:
    lineage(certified.paths, server="https://other/dir")
    code, served, problems = status(certified)
    assert (code, served["placeholder"], served["as_declared"]) == (4, False, False)
    assert "nginx serves an older certificate" in problems


def test_an_expired_certificate_needs_a_person(certified: Edge) -> None:
    certified.seconds = 2e9
    assert "sudo certbot renew" in status(certified)[2]


def test_a_dangling_link_is_reported(certified: Edge) -> None:
    (certified.paths.tls_current / "fullchain.pem").unlink()
    code, served, problems = status(certified)
    assert code == 4
    assert not served
    assert "points to no certificate" in problems


def test_a_name_without_dns_is_reported_before_the_authority_is_asked(edge: Edge) -> None:
    """stackctl looks up the name itself.

    The authority would need most of a minute to answer, and allows few failures per hour.
    """
    edge.programs["getent"] = lambda words: Result(2) if words == ["ahosts", DOMAIN] else Result(0)
    code, shown = stackctl(edge, "certificate")
    assert code == 1
    assert f"DNS has no address for {DOMAIN}. Next: create an A record that points to this droplet" in shown
    assert "nginx serves a placeholder certificate. A timer tries again each hour" in shown
    assert shown.count("DNS has no address") == 1, "the message appears twice"
    assert edge.ran("certbot") == []
    assert "DNS has no address" in (certificate.failure(edge.paths) or "")


def test_an_older_certificate_is_what_is_served_meanwhile(certified: Edge) -> None:
    certified.paths.renewal(DOMAIN).write_text("server = https://another.test/\n")
    certified.programs["getent"] = lambda _: Result(2)
    assert "nginx serves the former certificate. A timer tries again each hour" in stackctl(certified, "certificate")[1]


def test_the_authority_is_asked_even_if_the_resolver_is_down(edge: Edge) -> None:
    edge.programs["getent"] = lambda _: Result(1)
    assert stackctl(edge, "certificate")[0] == 0
