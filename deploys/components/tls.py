"""The certificate of the site, which certbot obtains and renews over HTTP-01."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.certificate import acme_certificate
from deploys.operations.files import atomic_file
from deploys.operations.packages import packages
from deploys.operations.units import service, systemd_units


@deploy("tls")
def tls(settings: Settings) -> None:
    values, paths = settings.values, settings.paths

    packages(name="Install certbot", packages=["certbot"])
    atomic_file(
        name="Install certbot's deploy hook",
        dest=f"/etc/letsencrypt/renewal-hooks/deploy/{values.app}",
        content=build.file("tls/deploy-hook"),
        mode="755",
        validate="sh -n %s",
    )
    systemd_units(name="Install the certificate's units", units=units(settings), handler="certificate-units")
    service(
        name="Start the hourly certificate timer",
        unit=paths.units.certificate_timer,
        running=True,
        enabled=True,
    )
    service(name="Start certbot's renewal timer", unit="certbot.timer", running=True, enabled=True)


@deploy("certificate")
def certificate(settings: Settings) -> None:
    values = settings.values
    acme_certificate(name="Obtain the certificate", domain=values.domain, server=values.acme_server)


def units(settings: Settings) -> dict[str, bytes]:
    """Return the content of each systemd unit, by the unit's name."""
    paths = settings.paths
    return {
        paths.units.certificate_service: build.template(
            "tls/certificate.service.j2",
            domain=settings.values.domain,
            paths=paths,
            data_root=settings.values.data_root,
        ),
        paths.units.certificate_timer: build.file("tls/certificate.timer"),
    }
