"""nginx on the host: the one thing that listens to the world besides sshd."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import files, systemd

from deploys import artifacts
from deploys.operations import packages
from deploys.operations.certificate import placeholder
from deploys.operations.files import place
from deploys.operations.owed import settle
from deploys.settings import Settings

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""What browsers are told of an answer, unless the app tells them itself."""


@deploy("nginx")
def nginx(settings: Settings) -> None:
    values, paths, debt = settings.values, settings.paths, settings.owed("nginx")

    # A flood of requests writes an access log: looked at often (hardening.py), and cut by size.
    place(name="Bound nginx's logs", dest="/etc/logrotate.d/nginx", content=artifacts.file("nginx/logrotate"))
    packages.installed(name="Install nginx", packages=["nginx", "openssl", "logrotate"])
    files.directory(name="Have the directory of ACME's answers", path=str(paths.acme_webroot), mode="755")
    placeholder(name="Have a certificate to start with", tls=str(paths.tls), domain=values.domain)
    config = place(
        name="Configure nginx",
        dest="/etc/nginx/nginx.conf",
        content=configuration(settings),
        mode="640",
        owes=debt,
    )
    settle(
        name="Reload nginx, when its configuration is sound",
        debt=debt,
        commands=["nginx -t", "systemctl reload-or-restart nginx.service"],
        after=[config],
    )
    systemd.service(name="Run nginx", service="nginx.service", running=True, enabled=True)


def configuration(settings: Settings) -> bytes:
    """nginx.conf, whole."""
    values = settings.values
    return artifacts.template(
        "nginx/nginx.conf.j2",
        paths=settings.paths,
        headers=[(name, name.lower().replace("-", "_"), value) for name, value in HEADERS.items()],
        domain=values.domain,
        # The webhook's is one path and has limits of its own, also where it ends in a slash.
        public_paths=[path for path in values.public_paths if path != values.webhook_path],
        webhook_path=values.webhook_path,
        webhook_allowed_from=values.webhook_allowed_from,
        isolated=settings.isolated,
    )
