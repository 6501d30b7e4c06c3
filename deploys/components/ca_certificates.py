"""Certificate authorities that the droplet trusts in addition to Debian's authorities."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.config.settings import Settings
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler, run_handler

# Docker reads the list of authorities only when Docker starts. On a droplet without Docker this command succeeds,
# because systemctl accepts a pattern that matches no unit.
UPDATE = Handler("ca-certificates", ["update-ca-certificates", "systemctl try-restart 'docker.servic[e]'"])


@deploy("ca_certificates")
def ca_certificates(settings: Settings) -> None:
    placed = [
        atomic_file(
            name=f"Install the authority {certificate.name}",
            dest=f"/usr/local/share/ca-certificates/{settings.values.app}-{certificate.name}",
            content=certificate.pem,
            notify=UPDATE,
            validate="openssl x509 -noout -in %s",
        )
        for certificate in host.loop(settings.extra_ca_certificates)
    ]
    run_handler(
        name="Update the list of trusted authorities",
        handler=UPDATE,
        after=placed,
    )
