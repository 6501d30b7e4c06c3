"""The certificate, by certbot over HTTP-01, and its renewal."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import systemd

from deploys import artifacts
from deploys.operations import packages
from deploys.operations.certificate import trusted
from deploys.operations.files import place
from deploys.operations.owed import settle
from deploys.settings import Settings


@deploy("tls")
def tls(settings: Settings) -> None:
    values, paths = settings.values, settings.paths

    packages.installed(name="Install certbot", packages=["certbot"])
    place(
        name="Have nginx take up a renewed certificate",
        dest=f"/etc/letsencrypt/renewal-hooks/deploy/{values.app}",
        content=artifacts.file("tls/deploy-hook"),
        mode="755",
    )
    debt = settings.owed("certificate-units")
    placed = [
        place(name=f"Install {unit}", dest=f"/etc/systemd/system/{unit}", content=content, owes=debt)
        for unit, content in host.loop(units(settings).items())
    ]
    settle(name="Have systemd read the units", debt=debt, commands=["systemctl daemon-reload"], after=placed)
    systemd.service(
        name="Try each hour for a certificate that is missing",
        service=paths.certificate_timer,
        running=True,
        enabled=True,
    )
    systemd.service(name="Renew in time", service="certbot.timer", running=True, enabled=True)
    trusted(name="Obtain the certificate", domain=values.domain, server=values.acme_server)


def units(settings: Settings) -> dict[str, bytes]:
    """systemd's units by name."""
    paths = settings.paths
    return {
        paths.certificate_service: artifacts.template(
            "tls/certificate.service.j2",
            domain=settings.values.domain,
            paths=paths,
            data_root=settings.values.data_root,
        ),
        paths.certificate_timer: artifacts.file("tls/certificate.timer"),
    }
