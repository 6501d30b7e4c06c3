"""Hardening of the host: kernel, logins, mounts and services.

The component `hardening` comes before any component whose service is reachable from outside. nginx, fail2ban and
certbot get their sandboxes before their packages are installed, so these programs never run without a sandbox.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.accounts import sudoers
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.machine import permissions
from deploys.operations.packages import packages
from deploys.operations.units import service, systemd_units

UNWANTED = ["telnet", "rsh-client", "rsh-server", "talk", "nis", "tftpd-hpa", "inetutils-inetd", "xinetd", "rpcbind"]
"""Packages to remove (dev-sec package-01 to package-06, CIS Debian 2.1 and 2.2)."""

WATCHING = ["apt-listchanges", "debsums", "libpam-pwquality", "needrestart"]
"""Packages that check packages, passwords and services (lynis DEB-0811, PKGS-7370, AUTH-9262, DEB-0831)."""

ROOT_ONLY = {
    "/boot": "700",
    "/etc/cron.d": "700",
    "/etc/cron.hourly": "700",
    "/etc/cron.daily": "700",
    "/etc/cron.weekly": "700",
    "/etc/cron.monthly": "700",
    "/etc/crontab": "600",
    "/etc/sudoers.d": "750",
    "/etc/ssh/sshd_config": "600",
}
"""The mode of each path that only root may use (CIS Debian 1.4.1, 2.4.1, 5.1.1; dev-sec os-13)."""

LOGIN = {
    "UMASK": "027",
    # YESCRYPT_COST_FACTOR and the numbers of rounds set the cost of hashing a console password. Debian uses yescrypt.
    # The rounds (SHA_CRYPT_…) apply only to SHA-512.
    "YESCRYPT_COST_FACTOR": "8",
    "SHA_CRYPT_MIN_ROUNDS": "65536",
    "SHA_CRYPT_MAX_ROUNDS": "65536",
}
"""Values in login.defs. Passwords do not expire, because expiry would also lock out an account that has only a key."""


APPLY_SYSCTL = Handler("sysctl", ["systemctl restart systemd-sysctl.service"])


@deploy("hardening")
def hardening(settings: Settings) -> None:
    packages(name="Remove legacy clear-text services and clients", packages=UNWANTED, present=False)
    atomic_file(
        name="Configure needrestart to restart nothing by itself",
        dest=f"/etc/needrestart/conf.d/{settings.values.app}.conf",
        content=build.file("hardening/needrestart.conf"),
        validate="perl -c %s",
    )
    packages(name="Install tools that check packages and passwords", packages=WATCHING)
    _kernel(settings)
    _logins(settings)
    permissions(name="Restrict files and directories to root", wanted=ROOT_ONLY)
    _sandboxes(settings)


def _kernel(settings: Settings) -> None:
    app = settings.values.app
    placed = [
        atomic_file(
            name=name,
            dest=dest,
            content=build.file(f"hardening/{source}"),
            notify=APPLY_SYSCTL,
            # Search the output for errors, because sysctl exits with 0 even if a line is invalid.
            validate="! sysctl --dry-run --load=%s 2>&1 | grep 'invalid syntax'",
        )
        for name, dest, source in host.loop(
            [
                ("Write the kernel parameters", f"/etc/sysctl.d/60-{app}.conf", "sysctl.conf"),
                ("Empty ufw's own kernel parameters", "/etc/ufw/sysctl.conf", "ufw-sysctl.conf"),
            ]
        )
    ]
    run_handler(
        name="Apply the kernel parameters",
        handler=APPLY_SYSCTL,
        after=placed,
    )
    atomic_file(
        name="Block unneeded kernel modules",
        dest=f"/etc/modprobe.d/{app}.conf",
        content=build.file("hardening/modprobe.conf"),
    )
    for dest, source in host.loop(
        {
            f"/etc/security/limits.d/{app}.conf": "limits.conf",
            f"/etc/systemd/coredump.conf.d/{app}.conf": "coredump.conf",
        }.items()
    ):
        atomic_file(name=f"Disable core dumps in {source}", dest=dest, content=build.file(f"hardening/{source}"))


def _logins(settings: Settings) -> None:
    app = settings.values.app
    for name, value in host.loop(LOGIN.items()):
        files.line(
            name=f"Set {name} to {value} in login.defs",
            path="/etc/login.defs",
            line=rf"^{name}\s.*$",
            replace=f"{name} {value}",
        )
    atomic_file(
        name="Set a strict umask and a timeout for shells",
        dest=f"/etc/profile.d/{app}.sh",
        content=build.file("hardening/profile.sh"),
        validate="bash -n %s",
    )
    atomic_file(
        name="Warn about weak passwords",
        dest=f"/etc/security/pwquality.conf.d/{app}.conf",
        content=build.file("hardening/pwquality.conf"),
    )
    sudoers(
        name="Make sudo run each command in a terminal of its own",
        login=f"00-{app}",
        content=build.file("hardening/sudoers"),
    )
    for path in host.loop(("/etc/issue", "/etc/issue.net")):
        atomic_file(name=f"Write the login banner {path}", dest=path, content=build.file("hardening/issue"))
    for path in host.loop(("/etc/cron.allow", "/etc/at.allow")):
        atomic_file(name=f"Allow only root to schedule jobs in {path}", dest=path, content=b"root\n", mode="600")


def _sandboxes(settings: Settings) -> None:
    mounts = settings.paths.units.mounts_service
    systemd_units(
        name="Sandbox the services that timers start",
        units=units(settings),
        handler="units-of-the-host",
        restart=[mounts],
    )
    for kept, content in host.loop(sandboxes(settings).items()):
        systemd_units(
            name=f"Sandbox {kept}",
            units={f"{kept}.service.d/{settings.values.app}.conf": content},
            handler=f"{kept}-sandbox",
            # Use a pattern instead of the name, because the service may not be installed yet, and systemctl accepts a
            # pattern that matches no unit.
            restart=[f"{kept[:-1]}[{kept[-1]}].service"],
        )
    service(name="Mount world-writable file systems noexec", unit=mounts, running=True, enabled=True)


def sandboxes(settings: Settings) -> dict[str, bytes]:
    """Render drop-ins with a sandbox. When a drop-in changes, its service is restarted."""
    return {
        service: build.template(f"{service}/sandbox.conf.j2", paths=settings.paths, data_root=settings.values.data_root)
        for service in ("nginx", "fail2ban")
    }


def units(settings: Settings) -> dict[str, bytes]:
    """Render the host's units, drop-ins for services that timers start, and limits for all services."""
    paths, values = settings.paths, settings.values
    drop_in = f"{values.app}.conf"
    return {
        f"certbot.service.d/{drop_in}": build.template("tls/renewal.conf.j2", paths=paths, data_root=values.data_root),
        f"logrotate.timer.d/{drop_in}": build.file("hardening/logrotate.timer.conf"),
        f"/etc/systemd/system.conf.d/{drop_in}": build.file("hardening/system.conf"),
        paths.units.mounts_service: build.file("hardening/mounts.service"),
    }
