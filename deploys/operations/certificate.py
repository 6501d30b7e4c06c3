"""nginx's certificate: a placeholder to start with, the real one from ACME."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts.files import Placed
from deploys.facts.stackctl import Status
from deploys.operations import Commands


@operation()
def placeholder(tls: str, *, domain: str) -> Commands:
    """A self-signed certificate in `tls`/placeholder, with `tls`/current leading to it while there is no real one."""
    current = QuoteString(f"{tls}/current")
    if host.get_fact(Placed, path=f"{tls}/current/fullchain.pem"):
        host.noop("nginx has a certificate")
        return
    directory = f"{tls}/placeholder"
    yield StringCommand(
        *("install -d -m 700", QuoteString(directory), "&&"),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650",
        *("-subj", QuoteString(f"/CN={domain}"), "-addext", QuoteString(f"subjectAltName=DNS:{domain}")),
        *("-keyout", QuoteString(f"{directory}/privkey.pem"), "-out", QuoteString(f"{directory}/fullchain.pem")),
    )
    yield StringCommand("ln -sfn", QuoteString(directory), current)


@operation()
def trusted(domain: str, *, server: str) -> Commands:
    """Obtains the certificate when nginx doesn't serve the declared one.

    Fails with ACME's own words: nginx goes on with what it has, and a timer tries again each hour.
    """
    status = host.get_fact(Status)
    if status and (certificate := status.get("certificate")) and certificate.get("as_declared"):
        host.noop(f"{domain} has its certificate from {server}")
        return
    yield StringCommand("stackctl certificate")
