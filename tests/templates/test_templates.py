"""Debian 13's own programs on a droplet accept every template, rendered for the lab and for production."""

from __future__ import annotations

import shlex
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO

import pytest
from testinfra.host import Host

from deploys import build
from deploys.components import (
    app,
    backups,
    data_services,
    docker,
    fail2ban,
    firewall,
    hardening,
    nginx,
    ssh,
    tls,
    upkeep,
)
from deploys.config.settings import Settings
from tests.support.environment import Environment
from tests.support.settings import settings_of

pytestmark = pytest.mark.group("everywhere")

COMPOSE = "STACK_IMAGE=i STACK_SHA256=s STACK_RELEASE=r STACK_ADDRESS=172.30.1.11 docker compose"


@pytest.fixture(scope="session", params=["lab", "prod"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return settings_of(request.param)


def accepts(droplet: Host, lab: Environment, files: dict[str, bytes], command: str) -> tuple[bool, str]:
    """Run a command in a directory with `files`. Return whether the command succeeded, and its output."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    ask = f"cd $(mktemp -d) && trap 'rm -r $PWD' EXIT && tar --extract && {command} || exit 1"  # 255 means ssh failed
    ssh = ["ssh", "-F", lab.data["ssh_config_file"], droplet.backend.get_hostname(), f"sudo sh -c {shlex.quote(ask)}"]
    ran = subprocess.run(ssh, input=packed.getvalue(), capture_output=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr.decode()
    return ran.returncode == 0, (ran.stdout + ran.stderr).decode()


def described(settings: Settings) -> dict[str, bytes]:
    return {path.name: content for path, content in app.compose_files(settings).items()}


def _units_of_the_host(settings: Settings) -> dict[str, bytes]:
    """Return the host's units without drop-ins, because a drop-in belongs to another unit."""
    found = hardening.units(settings) | upkeep.units(settings, data=True)
    return {name: content for name, content in found.items() if "/" not in name}


CASES: dict[str, tuple[Callable[[Settings], dict[str, bytes]], str]] = {
    "nginx": (lambda settings: {"nginx.conf": nginx.configuration(settings)}, "nginx -t -c $PWD/nginx.conf"),
    "fail2ban": (
        lambda settings: {"jail.local": fail2ban.configuration(settings, edge=True)["jail.local"]},
        "cp --recursive --no-clobber /etc/fail2ban/. . && fail2ban-client -c $PWD --test",
    ),
    "data.yaml": (
        lambda settings: {"data.yaml": data_services.compose_file(settings, sha256="0")},
        "docker compose -f data.yaml config --quiet",
    ),
    "app.yaml": (described, f"{COMPOSE} -f app.yaml --profile migrate config --quiet"),
    "worker.yaml": (described, f"{COMPOSE} -f worker.yaml config --quiet"),
    "daemon.json": (
        lambda settings: {"daemon.json": docker.daemon_configuration(settings)},
        "dockerd --validate --config-file daemon.json",
    ),
    "sshd": (lambda settings: {"sshd.conf": ssh.configuration(settings)}, "sshd -t -f sshd.conf"),
    "units": (
        lambda settings: {
            **app.units(settings),
            **backups.units(settings),
            **ssh.units(settings),
            **tls.units(settings),
            **_units_of_the_host(settings),
        },
        "systemd-analyze verify ./*.*",
    ),
    "logrotate": (
        lambda _: {"nginx": build.file("nginx/logrotate")},
        "chown root nginx && logrotate --debug nginx",
    ),
    "sudoers": (
        lambda settings: {"sudoers": build.template("operator/sudoers.j2", operator=settings.values.operator)},
        "visudo --check --strict --file=sudoers",
    ),
    "after.rules": (
        lambda settings: {"after.rules": firewall.after_rules(settings)},
        "iptables-restore --noflush --test after.rules",
    ),
    "apt": (lambda _: {"apt.conf": build.file("base/apt.conf")}, "apt-config --config-file=apt.conf dump"),
}


@pytest.mark.parametrize("case", CASES)
def test_accepted(droplet: Host, lab: Environment, settings: Settings, case: str) -> None:
    render, command = CASES[case]
    accepted, said = accepts(droplet, lab, render(settings), command)
    assert accepted, said


@pytest.mark.parametrize("length", [46, 47, 60, 253])
def test_nginx_takes_any_legal_domain(droplet: Host, lab: Environment, length: int) -> None:
    """The control shows that a domain of 47 characters does not fit into nginx's default bucket of 64 bytes."""
    domain = ".".join([*["x" * 49] * ((length - 4) // 50), "y" * ((length - 4) % 50), "dev"])
    assert len(domain) == length
    content = nginx.configuration(settings_of("prod", {"domain": domain}))
    accepted, said = accepts(droplet, lab, {"nginx.conf": content}, CASES["nginx"][1])
    assert accepted, said
    usual = content.replace(b"server_names_hash_bucket_size 512;", b"")
    accepted, said = accepts(droplet, lab, {"nginx.conf": usual}, CASES["nginx"][1])
    assert accepted == (length < 47), said


BROKEN = {
    "nginx": (b"  listen 80;", b"  lissten 80;"),
    "fail2ban": (b"filter = toogoodtogo-refusals", b"filter = toogoodtogo-refusal"),
    "data.yaml": (b"    image:", b"    imago:"),
    "app.yaml": (b"networks:\n  app:", b"networks:\n  another:"),
    "worker.yaml": (b"networks:\n  app:", b"networks:\n  another:"),
    "daemon.json": (b'"live-restore"', b'"life-restore"'),
    "sshd": (b"MaxAuthTries 3", b"MaxAuthTries three"),
    "units": (b"ExecStart=", b"ExecStrat="),
    "sudoers": (b"NOPASSWD:", b"NOPASSWORT:"),
    "after.rules": (b"-m conntrack", b"-m contrack"),
    "apt": (b'"300";', b'"300'),
    "logrotate": (b"maxsize 64M", b"maxsize 64Mi"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_slip_is_not_accepted(droplet: Host, lab: Environment, settings: Settings, case: str) -> None:
    """Control: the same programs reject the same files with one mistake."""
    render, command = CASES[case]
    right, wrong = BROKEN[case]
    files = {name: content.replace(right, wrong) for name, content in render(settings).items()}
    assert files != render(settings)
    accepted, _ = accepts(droplet, lab, files, command)
    assert not accepted
