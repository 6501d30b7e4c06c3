"""The certificate is for the declared name, from the declared authority, and renewed in time."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support.environment import Environment

pytestmark = pytest.mark.group("edge")


def test_nginx_serves_certbot_s_certificate(droplet: Host, env: Environment) -> None:
    paths, domain = env.settings.paths, env.settings.values.domain
    served = f"openssl s_client -connect 127.0.0.1:443 -servername {domain} </dev/null 2>/dev/null"
    fingerprint = "openssl x509 -noout -fingerprint -sha256"
    held = droplet.check_output(f"{fingerprint} -in {paths.tls_live(domain)}/fullchain.pem")
    assert droplet.check_output(f"{served} | {fingerprint}") == held


def test_the_certificate_comes_from_the_declared_server(droplet: Host, env: Environment) -> None:
    renewal = droplet.file(f"/etc/letsencrypt/renewal/{env.settings.values.domain}.conf").content_string
    assert f"server = {env.settings.values.acme_server}" in renewal
    assert "authenticator = webroot" in renewal


def test_timers_renew_or_obtain_the_certificate(droplet: Host, env: Environment) -> None:
    for timer in ("certbot.timer", env.settings.paths.units.certificate_timer):
        assert droplet.service(timer).is_enabled
        assert droplet.service(timer).is_running
    hook = droplet.file(f"/etc/letsencrypt/renewal-hooks/deploy/{env.settings.values.app}")
    assert hook.mode == 0o755


def test_only_root_and_nginx_s_workers_can_read_the_key(droplet: Host, env: Environment) -> None:
    """nginx's workers read the key at each handshake, so a renewal needs no reload.

    The workers cannot read other secrets.
    """
    paths = env.settings.paths
    key = f"{paths.tls_current}/privkey.pem"
    assert droplet.check_output(f"stat -L -c '%a %U %G' {key}") == "640 root www-data"
    assert droplet.run(f"runuser -u www-data -- test -r {key}").rc == 0
    assert droplet.run(f"runuser -u nobody -- test -r {key}").rc == 1
    assert droplet.run(f"runuser -u www-data -- test -r {paths.next_environment}").rc == 1
