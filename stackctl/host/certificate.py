"""
The verb `certificate` requests the declared certificate if necessary, and makes nginx serve the certificate.

A timer calls this verb hourly, so the verb does little if the certificate is as declared. When certbot's own timer has
renewed the certificate, certbot's deploy hook calls this verb with --renewed. To see which certificate nginx serves,
the verb connects to nginx.
"""

import hashlib
import json
import re
import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.core import durable
from stackctl.core.config import Certificate
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import Result

CERTBOT_TIMEOUT = 300
RESOLVER_TIMEOUT = 30
NO_SUCH_NAME = 2  # getent(1), "Exit status"
CHAIN, KEY = "fullchain.pem", "privkey.pem"
NGINX = ("127.0.0.1", 443)
NGINX_GROUP = "www-data"
READ = ("openssl", "x509", "-noout", "-issuer", "-enddate", "-ext", "subjectAltName", "-nameopt", "RFC2253", "-in")


@dataclass(frozen=True)
class Facts:
    """The content of a certificate."""

    issuer: str
    names: frozenset[str]
    not_after: datetime


def ensure(stack: Stack, declared: Certificate) -> None:
    """Request the declared certificate if necessary, and make nginx serve the certificate."""
    fault = difference(stack.paths, declared, stack.machine)
    if fault:
        stack.log.step("issue", partial(_obtain, stack, declared), f"from {declared.server}, because {fault}")
    stack.paths.certificate_failure.unlink(missing_ok=True)
    serve(stack, declared)


def serve(stack: Stack, declared: Certificate) -> None:
    """Point the link `current` at a copy of certbot's certificate, if that certificate is as declared.

    nginx reads the files at each handshake. A reload of nginx is not needed, and would reset the connections of
    keep-alive clients.
    """
    current, live = stack.paths.tls_current, stack.paths.tls_live(declared.domain)
    if difference(stack.paths, declared, stack.machine) is None and not same(current, live):
        stack.log.step("serve", partial(_take_over, stack, live), "the certificate that certbot has")
    if stack.machine.peer_certificate(NGINX, declared.domain) != _first_of(current / CHAIN):
        raise FailedError(
            f"nginx does not serve the certificate in {current}", next_step="nginx -t, then systemctl reload nginx"
        )


def same(one: Path, other: Path) -> bool:
    """Return whether the certificates in two directories are the same."""
    return _first_of(one / CHAIN) == _first_of(other / CHAIN)


def _take_over(stack: Stack, live: Path) -> str:
    """Copy the certificate for nginx. nginx's workers run as www-data, but only root can read certbot's directory."""
    paths, machine = stack.paths, stack.machine
    contents = {name: (live / name).read_bytes() for name in (CHAIN, KEY)}
    copy = paths.tls / hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
    copy.mkdir(exist_ok=True)
    copy.chmod(0o750)
    machine.chgrp(copy, NGINX_GROUP)
    for name, content in contents.items():
        durable.write(copy / name, content, 0o640)
        machine.chgrp(copy / name, NGINX_GROUP)
    durable.link(paths.tls_current, copy.name)
    for former in paths.tls.iterdir():
        if former.is_dir() and not former.is_symlink() and former not in {copy, paths.tls_placeholder}:
            shutil.rmtree(former)
    return copy.name


def _obtain(stack: Stack, declared: Certificate) -> str:
    paths, machine = stack.paths, stack.machine
    why = _unknown_name(declared.domain, machine)
    if not why:
        argv = issue(paths, declared, force=paths.renewal(declared.domain).exists())
        result = machine.run(argv, timeout=CERTBOT_TIMEOUT)
        why = cause(result) if result.code else difference(paths, declared, machine)
    if why:
        document = {"at": machine.now().isoformat(timespec="seconds"), "cause": why}
        durable.write(paths.certificate_failure, json.dumps(document).encode() + b"\n")
        has = (
            "a placeholder certificate"
            if paths.tls_current.resolve() == paths.tls_placeholder.resolve()
            else "the former certificate"
        )
        raise FailedError(
            f"no certificate for {declared.domain}: {why}. nginx serves {has}. A timer tries again each hour"
        )
    return declared.domain


def _unknown_name(domain: str, machine: Machine) -> str | None:
    """Return why DNS rejects the name, or None.

    Without this check, the ACME server would need most of a minute to reject the name, and would count the request as
    our failure.
    """
    if machine.run(["getent", "ahosts", domain], timeout=RESOLVER_TIMEOUT).code != NO_SUCH_NAME:
        return None
    return f"DNS has no address for {domain}. Next: create an A record that points to this droplet"


def issue(paths: Paths, declared: Certificate, *, force: bool) -> list[str]:
    """Return certbot's arguments. `force` replaces an existing lineage."""
    account = ["--email", declared.email]
    where = ["--webroot", "--webroot-path", str(paths.acme_webroot), "--server", declared.server]
    what = ["--cert-name", declared.domain, "--domain", declared.domain]
    # Without --no-directory-hooks, certbot would call this program again through the deploy hook.
    quiet = ["--non-interactive", "--agree-tos", "--no-directory-hooks"]
    # Keep the private key, because nginx reads the certificate and the key one after the other, and the two must match.
    return [
        "certbot",
        "certonly",
        *quiet,
        *account,
        *where,
        *what,
        "--reuse-key",
        *(["--force-renewal"] if force else []),
    ]


def difference(paths: Paths, declared: Certificate, machine: Machine) -> str | None:
    """Return how certbot's lineage differs from the declared certificate, or None if the lineage is as declared."""
    facts = read(paths.tls_live(declared.domain) / CHAIN, machine)
    if facts is None:
        return "there is no certificate yet"
    server = _server(paths.renewal(declared.domain))
    if server != declared.server:
        return f"the present certificate comes from {server or 'an unknown server'}"
    if facts.names != {declared.domain}:
        return f"the present certificate is for {', '.join(sorted(facts.names))}"
    return None


def read(chain: Path, machine: Machine) -> Facts | None:
    """Read the first certificate of a file, if there is one."""
    result = machine.run([*READ, str(chain)])
    fields = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    if result.code or "notAfter" not in fields:
        return None
    not_after = datetime.fromtimestamp(ssl.cert_time_to_seconds(fields["notAfter"]), UTC)
    return Facts(fields.get("issuer", ""), frozenset(re.findall(r"DNS:([^\s,]+)", result.stdout)), not_after)


def failure(paths: Paths) -> str | None:
    """Return why the last request for a certificate failed, or None if it succeeded."""
    try:
        return str(json.loads(paths.certificate_failure.read_text())["cause"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cause(result: Result) -> str:
    """Return the cause of a failure from certbot's output, in one line: the ACME server's detail or certbot's error."""
    said = f"{result.stdout}\n{result.stderr}"
    detail = re.search(r"Type:\s*(\S+)\s+Detail:\s*(.+)", said)
    if detail:
        return f"{detail[1]}: {detail[2].strip()}"
    unexpected = re.search(r"An unexpected error occurred:\n(.+)", said)
    if unexpected:
        return unexpected[1].strip()
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Saving debug log", "Ask for help", "See the logfile"))]
    return told[-1] if told else result.reason


def _server(renewal: Path) -> str | None:
    """Return the ACME server of a lineage, from certbot's renewal file."""
    try:
        found = re.search(r"^server = (\S+)$", renewal.read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def _first_of(chain: Path) -> bytes | None:
    try:
        first = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", chain.read_text(), re.DOTALL)
    except OSError:
        return None
    return ssl.PEM_cert_to_DER_cert(first[0]) if first else None
