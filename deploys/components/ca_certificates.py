"""Certificate authorities that the droplet trusts besides Debian's."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.config.settings import Settings
from deploys.operations.files import place
from deploys.operations.owed import settle


@deploy("ca_certificates")
def ca_certificates(settings: Settings) -> None:
    debt = settings.owed("ca-certificates")
    placed = [
        place(
            name=f"Trust the authority {certificate.name}",
            dest=f"/usr/local/share/ca-certificates/{settings.values.app}-{certificate.name}",
            content=certificate.pem,
            owes=debt,
            validate="openssl x509 -noout -in %s",
        )
        for certificate in host.loop(settings.extra_ca_certificates)
    ]
    settle(
        name="Renew the droplet's list of authorities",
        debt=debt,
        # Docker reads the list once, when it starts. A pattern, since a droplet without Docker is no error.
        commands=["update-ca-certificates", "systemctl try-restart 'docker.servic[e]'"],
        after=placed,
    )
