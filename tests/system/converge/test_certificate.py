"""nginx serves a renewed certificate, and keeps the old one if no new one is available."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support import converge

pytestmark = pytest.mark.group("edge")


def served_serial(droplet: Host) -> str:
    """Return the serial number of the certificate that the running nginx serves."""
    served = "openssl s_client -connect 127.0.0.1:443 -servername bot.lab.test </dev/null 2>/dev/null"
    return str(droplet.check_output(f"{served} | openssl x509 -noout -serial"))


def test_a_renewed_certificate_is_taken_up_by_nginx(droplet: Host) -> None:
    """certbot's deploy hook is enough and works immediately, because nginx reads the current file at each handshake."""
    before = served_serial(droplet)
    droplet.check_output("certbot renew --force-renewal --no-random-sleep-on-renew")
    assert served_serial(droplet) != before
    assert droplet.run("stackctl status").rc == 0
    assert converge.planned() == set()


def test_a_failed_renewal_keeps_the_old_certificate(droplet: Host) -> None:
    before = served_serial(droplet)
    said = converge.failing_site("--data", "acme_server=https://acme.lab.test:14999/dir")
    assert "no certificate for bot.lab.test" in said
    assert served_serial(droplet) == before
    converge.site()
    assert droplet.run("stackctl status").rc == 0
