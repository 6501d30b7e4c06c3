"""Every path and name that stackctl, the deploys and nginx agree on; all derive from the app's name."""

from dataclasses import dataclass
from pathlib import Path

COLOURS = ("blue", "green")


def other(colour: str) -> str:
    """The colour that isn't this one."""
    return COLOURS[1 - COLOURS.index(colour)]


@dataclass(frozen=True)
class Paths:
    """Paths on the droplet. `root` differs from / only in tests."""

    app: str = "toogoodtogo"
    root: Path = Path("/")

    # /opt/APP: Compose files, nothing secret

    @property
    def opt(self) -> Path:
        return self.root / "opt" / self.app

    @property
    def data_yaml(self) -> Path:
        return self.opt / "data.yaml"

    @property
    def app_yaml(self) -> Path:
        return self.opt / "app.yaml"

    # /etc/APP: what is declared

    @property
    def etc(self) -> Path:
        return self.root / "etc" / self.app

    @property
    def config(self) -> Path:
        return self.etc / "stackctl.json"

    @property
    def secrets(self) -> Path:
        return self.etc / "secrets"

    @property
    def next_environment(self) -> Path:
        """The environment the next release starts with."""
        return self.secrets / "next.json"

    def snapshot(self, release_id: str) -> Path:
        """The environment a kept release started with."""
        return self.secrets / f"{release_id}.json"

    # /var/lib/APP: what is

    @property
    def var(self) -> Path:
        return self.root / "var/lib" / self.app

    def socket(self, colour: str) -> Path:
        return self.var / f"{colour}.sock"

    @property
    def active(self) -> Path:
        """Symbolic link to the socket of the colour that serves; nginx connects to it."""
        return self.var / "active"

    @property
    def state(self) -> Path:
        return self.var / "state.json"

    @property
    def history(self) -> Path:
        return self.var / "history.jsonl"

    @property
    def lock(self) -> Path:
        """Held by an operator's whole errand: a converge, or a release started by hand."""
        return self.var / "lock"

    @property
    def work(self) -> Path:
        """Held by stackctl alone, while it moves containers. See lock.py."""
        return self.var / "work"

    @property
    def owed(self) -> Path:
        return self.var / "owed"

    @property
    def certificate_failure(self) -> Path:
        """Why the declared certificate couldn't be had; absent when it could."""
        return self.var / "certificate.json"

    # the certificate nginx serves: `current` is a symbolic link to one of the two others

    @property
    def tls(self) -> Path:
        return self.etc / "tls"

    @property
    def tls_current(self) -> Path:
        return self.tls / "current"

    @property
    def tls_placeholder(self) -> Path:
        return self.tls / "placeholder"

    def tls_live(self, domain: str) -> Path:
        return self.root / "etc/letsencrypt/live" / domain

    def renewal(self, domain: str) -> Path:
        return self.root / "etc/letsencrypt/renewal" / f"{domain}.conf"

    @property
    def acme_webroot(self) -> Path:
        return self.root / "var/www/acme"

    # Docker's names

    @property
    def data_project(self) -> str:
        return f"{self.app}-data"

    def project(self, colour: str) -> str:
        return f"{self.app}-{colour}"

    @property
    def data_network(self) -> str:
        return f"{self.app}-data"

    @property
    def app_network(self) -> str:
        return f"{self.app}-app"

    @property
    def sha256_label(self) -> str:
        return f"{self.app}.sha256"

    @property
    def release_label(self) -> str:
        return f"{self.app}.release"

    @property
    def release_repository(self) -> str:
        """Our own tag on an image, so that no prune takes it: `APP/release:<release id>`."""
        return f"{self.app}/release"

    # systemd's names

    @property
    def unit(self) -> str:
        return f"{self.app}.service"

    def socket_unit(self, colour: str) -> str:
        return f"{self.app}-{colour}.socket"

    def proxy_unit(self, colour: str) -> str:
        return f"{self.app}-{colour}.service"

    @property
    def certificate_service(self) -> str:
        return f"{self.app}-certificate.service"

    @property
    def certificate_timer(self) -> str:
        return f"{self.app}-certificate.timer"
