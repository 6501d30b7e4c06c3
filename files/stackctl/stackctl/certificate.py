"""
certificate: nginx serves the declared certificate, or goes on with the one it has.

Cheap when all is as declared: a timer calls it hourly, certbot's own timer renews, and certbot's deploy hook calls it
with --renewed. What nginx serves is asked of nginx itself, so that a reload that was missed is caught up.
"""

import configparser
import json
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import durable
from .config import Certificate
from .errors import FailedError
from .events import Journal
from .machine import Machine, Result
from .paths import Paths

CERTBOT_TIMEOUT = 300
READ = ("openssl", "x509", "-noout", "-issuer", "-enddate", "-ext", "subjectAltName", "-nameopt", "RFC2253", "-in")


@dataclass(frozen=True)
class Facts:
    """What a certificate says of itself."""

    issuer: str
    names: frozenset[str]
    not_after: datetime


def ensure(paths: Paths, declared: Certificate, machine: Machine, journal: Journal) -> None:
    """Obtain the declared certificate where it is missing, and have it served."""
    fault = difference(paths, declared, machine)
    if fault:
        with journal.step("issue") as step:
            step.message = f"{declared.domain} from {declared.server}: {fault}"
            anew = paths.renewal(declared.domain).exists()
            result = machine.run(issue(paths, declared, anew=anew), timeout=CERTBOT_TIMEOUT)
            if result.code:
                _remember(paths, machine, cause(result))
                raise FailedError(f"no certificate for {declared.domain}: {cause(result)}: it is tried again each hour")
    paths.certificate_failure.unlink(missing_ok=True)
    serve(paths, declared, machine, journal)


def serve(paths: Paths, declared: Certificate, machine: Machine, journal: Journal) -> None:
    """Point `current` at what certbot holds, if that is as declared; reload nginx when it serves anything else."""
    live = paths.tls_live(declared.domain)
    if difference(paths, declared, machine) is None and not _leads_to(paths.tls_current, live):
        durable.link(paths.tls_current, str(live))
    chain = paths.tls_current / "fullchain.pem"
    if machine.served_certificate(declared.domain) == _first_of(chain):
        return
    with journal.step("reload") as step:
        step.message = "nginx"
        for argv in (["nginx", "-t"], ["systemctl", "try-reload-or-restart", "nginx.service"]):
            result = machine.run(argv)
            if result.code:
                raise FailedError(f"{' '.join(argv)}: {result.reason}: converge the site (make site)", result.tail())


def issue(paths: Paths, declared: Certificate, *, anew: bool) -> list[str]:
    """certbot's arguments. `anew`: it has a lineage of this name, from another server or for other names."""
    account = ["--email", declared.email] if declared.email else ["--register-unsafely-without-email"]
    where = ["--webroot", "--webroot-path", str(paths.acme_webroot), "--server", declared.server]
    what = ["--cert-name", declared.domain, "--domain", declared.domain]
    # Its hook would call us again, while we are at it.
    quiet = ["--non-interactive", "--agree-tos", "--no-directory-hooks"]
    return ["certbot", "certonly", *quiet, *account, *where, *what, *(["--force-renewal"] if anew else [])]


def difference(paths: Paths, declared: Certificate, machine: Machine) -> str | None:
    """Why certbot's lineage isn't the declared one, or None."""
    facts = read(paths.tls_live(declared.domain) / "fullchain.pem", machine)
    if facts is None:
        return "there is none yet"
    server = _server(paths.renewal(declared.domain))
    if server != declared.server:
        return f"the one there is comes from {server or 'elsewhere'}"
    if facts.names != {declared.domain}:
        return f"the one there is names {', '.join(sorted(facts.names))}"
    return None


def read(chain: Path, machine: Machine) -> Facts | None:
    """The first certificate of a file; None when there is none."""
    result = machine.run([*READ, str(chain)])
    fields = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    if result.code or "notAfter" not in fields:
        return None
    not_after = datetime.fromtimestamp(ssl.cert_time_to_seconds(fields["notAfter"]), UTC)
    return Facts(fields.get("issuer", ""), frozenset(re.findall(r"DNS:([^\s,]+)", result.stdout)), not_after)


def failure(paths: Paths) -> str | None:
    """Why the last attempt to have one failed, or None."""
    try:
        return str(json.loads(paths.certificate_failure.read_text())["cause"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cause(result: Result) -> str:
    """What went wrong, in one line of certbot's many: the authority's detail, or else its error."""
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


def _remember(paths: Paths, machine: Machine, why: str) -> None:
    document = {"at": machine.now().isoformat(timespec="seconds"), "cause": why}
    durable.write(paths.certificate_failure, json.dumps(document).encode() + b"\n")


def _server(renewal: Path) -> str | None:
    """certbot's file is configobj: like INI, with keys before the first section."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    try:
        parser.read_string("[lineage]\n" + renewal.read_text())
    except (OSError, configparser.Error):
        return None
    return parser.get("renewalparams", "server", fallback=None)


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and link.readlink() == target


def _first_of(chain: Path) -> bytes | None:
    try:
        first = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", chain.read_text(), re.DOTALL)
    except OSError:
        return None
    return ssl.PEM_cert_to_DER_cert(first[0]) if first else None
