"""Converges a droplet: applies each component of the site, in order, if the droplet is in one of its groups.

pyinfra inventories/prod.py deploys/site.py      # or: make site ENV=prod
"""

from pyinfra import host, state

from deploys.components.app import app
from deploys.components.backups import backups
from deploys.components.base import base
from deploys.components.ca_certificates import ca_certificates
from deploys.components.ci import ci
from deploys.components.data_services import data_services, retire_old_redis_passwords
from deploys.components.docker import docker
from deploys.components.fail2ban import fail2ban
from deploys.components.firewall import firewall
from deploys.components.foreign import declared, foreign
from deploys.components.hardening import hardening
from deploys.components.nginx import nginx
from deploys.components.offsite import offsite
from deploys.components.operator import operator
from deploys.components.secrets import secrets
from deploys.components.ssh import ssh
from deploys.components.stackctl import stackctl
from deploys.components.tls import certificate, tls
from deploys.components.upkeep import upkeep
from deploys.config.settings import load_settings
from deploys.converge import session
from deploys.converge.instance import check_copy, with_instance_of
from deploys.converge.isolation import with_isolation_of
from deploys.converge.preflight import check_droplet, check_name

EVERYWHERE = frozenset({"edge", "app", "data", "monitor"})

SITE = [
    (base, EVERYWHERE),
    (operator, EVERYWHERE),
    (ca_certificates, EVERYWHERE),
    (stackctl, EVERYWHERE),
    (foreign, EVERYWHERE),
    (hardening, EVERYWHERE),
    (upkeep, EVERYWHERE),
    (ssh, EVERYWHERE),
    (firewall, EVERYWHERE),
    (docker, {"app", "data"}),
    (data_services, {"data"}),
    (nginx, {"edge"}),
    (fail2ban, EVERYWHERE),  # must come after nginx, which creates the log that fail2ban reads
    (app, {"app"}),
    (retire_old_redis_passwords, {"data"}),
    (offsite, {"data"}),
    (backups, {"data"}),
    (ci, {"app"}),
    (secrets, EVERYWHERE),
    (tls, {"edge"}),
    (declared, EVERYWHERE),  # must come after all components that write files
    # The component `certificate` comes last, because it can fail for reasons outside of the droplet. After such a
    # failure, everything else is done, and nginx serves the placeholder certificate.
    (certificate, {"edge"}),
]

settings = with_instance_of(host, with_isolation_of(host, load_settings(host.data.dict())))
check_copy(host, settings)
check_droplet(host, settings)
check_name(host, settings)
session.begin(state, host)
for component, groups in host.loop(SITE):
    if groups & set(host.groups):
        component(settings=settings)
