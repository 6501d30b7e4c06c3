"""nginx, which runs on the host. Only nginx and sshd are reachable from outside."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import files

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.certificate import self_signed_certificate
from deploys.operations.files import atomic_file, if_installed
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.packages import packages
from deploys.operations.units import service

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Response headers that nginx adds unless the app sets them itself."""

PROXY_ONLY = (
    "Forwarded",
    "X-Forwarded",
    *(
        f"X-Forwarded-{what}"
        for what in ("By", "Host", "Port", "Prefix", "Protocol", "Scheme", "Server", "Ssl", "User")
    ),
    # A proxy that rewrites the path or the host puts the original value into these headers, and a framework may use
    # these headers to route requests.
    *("X-Original-Host", "X-Original-Method", "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X-Host"),
    # Content delivery networks and load balancers use these headers to describe the client.
    *("CF-Connecting-IP", "CF-Connecting-IPv6", "CF-IPCountry", "CF-Visitor", "Fastly-Client-IP", "Fastly-SSL"),
    *("True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Originating-IP", "X-ProxyUser-Ip", "X-Remote-Addr"),
    *("X-Remote-IP", "Front-End-Https", "X-Scheme", "X-Url-Scheme"),
    # An authenticating proxy puts the verified user or client certificate into these headers.
    *("Remote-User", "X-Remote-User", "X-Client-Cert", "X-SSL-Client-Cert", "X-SSL-Client-DN", "X-SSL-Client-Verify"),
    # "Proxy" becomes HTTP_PROXY in CGI's environment (CVE-2016-5385).
    *("Via", "Proxy"),
)
"""Request headers that nginx removes. X-HTTP-Method-Override stays, because no rule in nginx.conf checks the method."""

STREAMS = 128
"""Concurrent requests on one HTTP/2 connection (nginx's http2_max_concurrent_streams)."""

RELOAD = Handler("nginx", ["nginx -t", "systemctl reload-or-restart nginx.service"])


@deploy("nginx")
def nginx(settings: Settings) -> None:
    values, paths = settings.values, settings.paths

    # logrotate runs often (hardening.py) and rotates the access log by size, because a flood of requests fills the log.
    atomic_file(
        name="Limit the size of nginx's logs",
        dest="/etc/logrotate.d/nginx",
        content=build.file("nginx/logrotate"),
        validate=if_installed("logrotate", "logrotate --debug %s"),
    )
    packages(name="Install nginx", packages=["nginx", "openssl", "logrotate"])
    files.directory(name="Create the directory for ACME challenges", path=str(paths.acme_webroot), mode="755")
    self_signed_certificate(name="Create a placeholder certificate", tls=str(paths.tls), domain=values.domain)
    config = atomic_file(
        name="Configure nginx",
        dest="/etc/nginx/nginx.conf",
        content=configuration(settings),
        mode="640",
        notify=RELOAD,
        validate="nginx -t -q -c %s",
    )
    run_handler(
        name="Reload nginx if its configuration is valid",
        handler=RELOAD,
        after=[config],
    )
    service(name="Start nginx", unit="nginx.service", running=True, enabled=True)


def configuration(settings: Settings) -> bytes:
    """Render nginx.conf."""
    values = settings.values
    return build.template(
        "nginx/nginx.conf.j2",
        paths=settings.paths,
        headers=[(name, name.lower().replace("-", "_"), value) for name, value in HEADERS.items()],
        proxy_only=PROXY_ONLY,
        client_rate=values.client_rate,
        client_burst=values.client_burst,
        at_once=min(values.client_burst, STREAMS),
        domain=values.domain,
        # The webhook always has its own location and limits, even if webhook_path ends in a slash like a prefix.
        public_paths=[path for path in values.public_paths if path != values.webhook_path],
        webhook_path=values.webhook_path,
        webhook_allowed_from=values.webhook_allowed_from,
        isolated=settings.isolated,
    )
