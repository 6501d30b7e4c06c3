"""Every path and name that stackctl, the deploys and nginx agree on; all derive from the app's name."""

from pathlib import Path

COLOURS = ("blue", "green")
DATA_SERVICES = ("postgres", "redis")
APP_SERVICES = ("web",)
TRIALS = ("ssh", "firewall")
"""What lets an operator in: changed on trial (trial.py)."""


def other(colour: str) -> str:
    """The colour that isn't this one."""
    return COLOURS[1 - COLOURS.index(colour)]


class Paths:
    """Paths on the droplet. `root` differs from / only in tests."""

    def __init__(self, app: str, root: Path = Path("/")) -> None:  # noqa: PLR0915 - a path has no shorter form
        self.app, self.root = app, root
        # Compose files: nothing secret
        self.opt = root / "opt" / app
        self.data_yaml, self.app_yaml = self.opt / "data.yaml", self.opt / "app.yaml"
        self.worker_yaml = self.opt / "worker.yaml"  # absent when the app has no worker
        # what is declared
        self.etc = root / "etc" / app
        self.config = self.etc / "stackctl.json"
        self.declared = self.etc / "declared.json"  # which paths, units and accounts are the site's (foreign.py)
        self.secrets = self.etc / "secrets"
        self.next_environment = self.secrets / "next.json"
        # the certificate nginx serves: `current` is a symbolic link to `placeholder` or to a copy of certbot's
        self.tls = self.etc / "tls"
        self.tls_current, self.tls_placeholder = self.tls / "current", self.tls / "placeholder"
        self.letsencrypt = root / "etc/letsencrypt"
        self.acme_webroot = root / "var/www/acme"
        # what is
        self.var = root / "var/lib" / app
        self.active = self.var / "active"  # symbolic link to the socket of the colour that serves
        # restoring.json is there from a restore's close to its end (unfinished_restore.py)
        self.state, self.restoring = self.var / "state.json", self.var / "restoring.json"
        # the second one is in memory, for what a full disk takes no more
        self.history, self.unwritten = self.var / "history.jsonl", root / "run" / f"{app}-history.jsonl"
        self.lock = self.var / "lock"  # an operator's whole errand; see lock.py for both
        self.work = self.var / "work"  # stackctl moving containers
        # one backup, from its beginning to its end; the highest number that was seen off the droplet
        self.backup_lock, self.backup_sequence = self.var / "backup.lock", self.var / "backup.sequence"
        self.certificate_lock = self.var / "certificate.lock"
        self.certificate_failure = self.var / "certificate.json"  # absent when the declared one was had
        # upkeep.py: the files of Debian's packages that differ, and since when no upgrade is made, if so
        self.integrity_failure, self.upgrade_failure = self.var / "integrity", self.var / "upgrade"
        # PostgreSQL's: absent when they were found whole; when a look came to its end last, or the first one began
        self.amcheck_failure, self.amcheck_looked = self.var / "amcheck", self.var / "amcheck.looked"
        self.pending_handlers = self.var / "owed"
        self.trials = self.var / "trial"  # a record and copies of what an unconfirmed change replaced
        self.trial_lock = self.var / "trial.lock"
        self.on_trial = {
            "ssh": (root / "etc/ssh/sshd_config", root / "etc/ssh/sshd_config.d"),
            "firewall": (root / "etc/ufw", root / "etc/default/ufw"),
        }
        self.home = root / "home"
        self.maintenance = self.var / "maintenance"  # nginx refuses with 503 while it is there
        # nginx's: all, and what fail2ban counts
        self.access_log, self.refused_log = root / "var/log/nginx/access.log", root / "var/log/nginx/refused.log"
        self.backups = root / "opt/backups"
        # off the droplet: how it is reached (absent where it isn't), what the key was found to do there, restic's cache
        self.offsite = self.secrets / "offsite/access.json"
        self.offsite_powers, self.offsite_cache = self.var / "offsite.json", self.var / "restic"
        # Debian's: there when an upgrade comes into force by a reboot alone, and the packages that ask for it
        self.reboot_required, self.reboot_packages = root / "run/reboot-required", root / "run/reboot-required.pkgs"
        # systemd's: of when the timer started its service last, or was started itself
        self.backup_stamp = root / f"var/lib/systemd/timers/stamp-{app}-backup.timer"
        self.upgrade_stamp = root / "var/lib/apt/periodic/upgrade-stamp"  # of the day of the last good upgrade
        # Docker's names
        self.data_project = self.data_network = f"{app}-data"
        self.worker_project = f"{app}-worker"
        self.app_network = f"{app}-app"
        self.sha256_label = f"{app}.sha256"
        self.release_label = f"{app}.release"
        self.release_repository = f"{app}/release"  # our own tag on an image, APP/release:ID, so that no prune takes it
        # systemd's names
        self.unit = f"{app}.service"
        self.release_unit = f"{app}-release.service"  # transient: there while a release or a rollback is under way
        self.certificate_service, self.certificate_timer = f"{app}-certificate.service", f"{app}-certificate.timer"
        self.trial_boot, self.mounts_service = f"{app}-trial.service", f"{app}-mounts.service"
        self.integrity_service, self.integrity_timer = f"{app}-integrity.service", f"{app}-integrity.timer"
        self.reboot_service, self.reboot_timer = f"{app}-reboot.service", f"{app}-reboot.timer"
        self.backup_service, self.backup_timer = f"{app}-backup.service", f"{app}-backup.timer"
        self.amcheck_service, self.amcheck_timer = f"{app}-amcheck.service", f"{app}-amcheck.timer"

    @property
    def redis_administrator(self) -> Path:
        """The password of stackctl's own user of Redis."""
        return self.secrets / "redis/administrator"

    def snapshot(self, release_id: str) -> Path:
        """The environment a kept release started with."""
        return self.secrets / f"{release_id}.json"

    def backup(self, backup_id: str) -> Path:
        """A whole one."""
        return self.backups / backup_id

    def verification(self, backup_id: str) -> str:
        """The throwaway container that a backup is restored into."""
        return f"{self.app}-verify-{backup_id}"

    def data_container(self, service: str) -> str:
        """PostgreSQL's or Redis's, as Compose names it."""
        return f"{self.data_project}-{service}-1"

    def keys(self, login: str) -> Path:
        """Which keys let somebody in."""
        return self.home / login / ".ssh/authorized_keys"

    def trial_record(self, name: str) -> Path:
        return self.trials / f"{name}.json"

    def trial_copies(self, name: str) -> Path:
        return self.trials / name

    def trial_timer(self, name: str) -> str:
        return f"{self.app}-trial@{name}.timer"

    def trial_service(self, name: str) -> str:
        return f"{self.app}-trial@{name}.service"

    def socket(self, colour: str) -> Path:
        return self.var / f"{colour}.sock"

    def tls_live(self, domain: str) -> Path:
        return self.letsencrypt / "live" / domain

    def renewal(self, domain: str) -> Path:
        return self.letsencrypt / "renewal" / f"{domain}.conf"

    def project(self, colour: str) -> str:
        return f"{self.app}-{colour}"

    def socket_unit(self, colour: str) -> str:
        return f"{self.app}-{colour}.socket"

    def proxy_unit(self, colour: str) -> str:
        return f"{self.app}-{colour}.service"
