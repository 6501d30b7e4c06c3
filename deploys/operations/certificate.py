"""Operations for nginx's certificate: first a self-signed placeholder, then a certificate from an ACME server."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts import stackctl
from deploys.facts.files import FileState
from deploys.operations import Commands
from stackctl.host.certificate import CHAIN, KEY, NGINX_GROUP


@operation()
def self_signed_certificate(tls: str, *, domain: str) -> Commands:
    """If nginx has no certificate, create a self-signed one in `tls`/placeholder and link `tls`/current to it.

    A certificate counts as missing if nginx's workers can't read the private key.
    """
    key = host.get_fact(FileState, path=f"{tls}/current/{KEY}")
    if key and (key["mode"], key["owner"], key["group"]) == ("640", "root", NGINX_GROUP):
        host.noop("nginx has a certificate")
        return
    directory = f"{tls}/placeholder"
    private, public = QuoteString(f"{directory}/{KEY}"), QuoteString(f"{directory}/{CHAIN}")
    # A common name has at most 64 characters (X.520). The cut is harmless, because clients check subjectAltName (RFC
    # 9525, 6.4.4).
    yield StringCommand(
        *(f"install -d -m 750 -g {NGINX_GROUP}", QuoteString(directory), "&&"),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650",
        *("-subj", QuoteString(f"/CN={domain[:64]}"), "-addext", QuoteString(f"subjectAltName=DNS:{domain}")),
        *("-keyout", private, "-out", public),
        *(f"&& chgrp {NGINX_GROUP}", private, public, "&& chmod 640", private, public),
    )
    yield StringCommand("ln -sfn", QuoteString(directory), QuoteString(f"{tls}/current"))


@operation()
def acme_certificate(domain: str, *, server: str) -> Commands:
    """Obtain the declared certificate, unless nginx already serves it.

    If the ACME server refuses the request, the operation shows the server's own message. nginx then keeps the present
    certificate, and a timer tries again each hour.
    """
    status = stackctl.status()
    if status and (certificate := status.get("certificate")) and certificate.get("as_declared"):
        host.noop(f"{domain} has its certificate from {server}")
        return
    rest = "Everything else is done. Next: fix the cause, then make site, or wait for the hourly timer."
    yield StringCommand("stackctl certificate || { code=$?; echo", QuoteString(rest), ">&2; exit $code; }")
