"""What every droplet needs before anything else: packages, time, limits, the operator, stackctl."""

from __future__ import annotations

from collections.abc import Collection

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files, server

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import STOP_GRACE_S
from deploys.operations import packages
from deploys.operations.accounts import account, sudoers
from deploys.operations.files import place, private_directory
from deploys.operations.machine import cloud_init_done, swapfile
from deploys.operations.owed import settle
from deploys.operations.units import service
from stackctl.cli.background import PROGRAM
from stackctl.core import records
from stackctl.core.config import VERSION, Certificate, Config, Data


@deploy("base")
def base(settings: Settings) -> None:
    values = settings.values

    cloud_init_done(name="Wait for cloud-init, which holds apt on a first boot")
    place(
        name="Let apt wait for its lock, and upgrade what is urgent by itself",
        dest=f"/etc/apt/apt.conf.d/90{values.app}",
        content=build.file("base/apt.conf"),
        validate="apt-config --config-file=%s dump",
    )
    packages.whole(name="Finish what an interrupted apt left half installed")
    packages.installed(
        name="Install what the rest stands on",
        packages=["ca-certificates", "curl", "unattended-upgrades", "systemd-timesyncd"],
    )

    server.hostname(name="Set the hostname", hostname=host.name)
    place(
        name="Keep cloud-init from resetting hostname and hosts",
        dest=f"/etc/cloud/cloud.cfg.d/99-{values.app}.cfg",
        content=build.file("base/keep-hostname.cfg"),
    )
    # In the words of cloud-init, which writes it at each boot of a droplet that was made without our user data.
    files.line(
        name="Let the hostname resolve, which sudo asks for",
        path="/etc/hosts",
        line=r"^127\.0\.1\.1\s.*$",
        replace=f"127.0.1.1 {host.name} {host.name}",
    )
    server.timezone(name="Set the time zone", timezone=values.timezone)

    journal = place(
        name="Limit the journal",
        dest=f"/etc/systemd/journald.conf.d/{values.app}.conf",
        content=build.template("base/journald.conf.j2", max_mib=values.journal_max_mib),
        owes=settings.owed("journald"),
    )
    settle(
        name="Restart journald with its limits",
        debt=settings.owed("journald"),
        commands=["systemctl restart systemd-journald.service"],
        after=[journal],
    )
    swapfile(name="Make room to swap, where the machine allows", mib=values.swap_mib)

    _operator(settings)
    _trust(settings)
    _stackctl(settings)
    service(name="Upgrade by itself each day", unit="apt-daily-upgrade.timer", running=True, enabled=True)


def _operator(settings: Settings) -> None:
    """The operator's keys come with sshd (ssh.py): both are on trial."""
    operator = settings.values.operator
    account(name="Have the operator's account", login=operator)
    sudoers(
        name="Let the operator become root",
        login=operator,
        content=build.template("base/sudoers.j2", operator=operator),
    )


def _trust(settings: Settings) -> None:
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


def _stackctl(settings: Settings) -> None:
    paths = settings.paths
    private_directory(name="Keep secrets where root alone looks", path=str(paths.secrets))
    place(
        name="Install stackctl",
        dest=PROGRAM,
        content=build.stackctl(settings.values.app),
        mode="755",
        validate="python3 %s --help",
    )
    place(name="Tell stackctl what to run", dest=str(paths.config), content=stackctl_config(settings, host.groups))


def stackctl_config(settings: Settings, groups: Collection[str]) -> bytes:
    """Write stackctl.json for a host in these groups."""
    values = settings.values
    certificate = Certificate(domain=values.domain, server=values.acme_server, email=values.acme_email)
    data = Data(
        database=values.database,
        owner=values.database_user,
        major=values.postgres_major,
        backup_memory_mib=values.backup_memory_mib,
        root=values.data_root,
    )
    config = Config(
        app=values.app,
        environment=values.environment,
        operator=values.operator,
        repository=values.app_repository,
        colours={colour: str(address) for colour, address in values.colours.items()},
        healthy_timeout=values.healthy_timeout_s,
        migrate_timeout=values.migrate_timeout_s,
        stop_grace=STOP_GRACE_S,
        worker_grace=values.worker_grace_s,
        watch=values.watch_s,
        connections=values.app_connections,
        migrate=values.app_migrates,
        worker=values.app_worker,
        ready_path=values.ready_path,
        version_path=values.version_path,
        webhook_path=values.webhook_path,
        public_paths=tuple(path for path in values.public_paths if path != values.webhook_path),
        certificate=certificate if "edge" in groups else None,
        data=data if "data" in groups else None,
        isolated=settings.isolated,
    )
    return records.dumps(config, version=VERSION, indent=2)
