"""The paths that stackctl, the deploys and nginx share. All paths derive from the app's name."""

from pathlib import Path

from stackctl.core.names import DockerNames, UnitNames

COLOURS = ("blue", "green")
DATA_SERVICES = ("postgres", "redis")
APP_SERVICES = ("web",)
TRIALS = ("ssh", "firewall")
"""The operator's ways into the droplet. A change to either way is a trial (trial.py)."""


def other(colour: str) -> str:
    """Return the colour other than the given colour."""
    return COLOURS[1 - COLOURS.index(colour)]


class Paths:
    """Paths on the droplet, and the names that derive from the app's name. `root` differs from / only in tests."""

    def __init__(self, app: str, root: Path = Path("/")) -> None:
        self.app, self.root = app, root
        self.docker, self.units = DockerNames(app), UnitNames(app)
        self.opt = root / "opt" / app
        self.etc = root / "etc" / app
        self.var = root / "var/lib" / app
        self.backups = root / "opt/backups"
        self.home = root / "home"
        self._set_declared()
        self._set_remembered()
        self._set_foreign()

    def _set_declared(self) -> None:
        """Set the paths of the files that a converge writes."""
        # Compose files, which hold no secret
        self.data_yaml, self.app_yaml = self.opt / "data.yaml", self.opt / "app.yaml"
        self.worker_yaml = self.opt / "worker.yaml"  # the file is absent if the app has no worker
        self.config = self.etc / "stackctl.json"
        self.declared = self.etc / "declared.json"  # the paths, units and accounts that belong to the site (foreign.py)
        self.secrets = self.etc / "secrets"
        self.next_environment = self.secrets / "next.json"
        self.redis_administrator = self.secrets / "redis/administrator"  # the password of stackctl's own user in Redis
        self.offsite = self.secrets / "offsite/access.json"  # the file is absent if no off-site storage is declared
        # The certificate that nginx serves: `current` is a symbolic link to `placeholder` or to certbot's copy.
        self.tls = self.etc / "tls"
        self.tls_current, self.tls_placeholder = self.tls / "current", self.tls / "placeholder"

    def _set_remembered(self) -> None:
        """Set the paths of the files that stackctl writes."""
        var = self.var
        self.active = var / "active"  # a symbolic link to the socket of the live colour
        # restoring.json exists from the `close` step of a restore to its end (unfinished_restore.py).
        self.state, self.restoring = var / "state.json", var / "restoring.json"
        # `unwritten` is a file in memory that receives the events while the disk is full.
        self.history, self.unwritten = var / "history.jsonl", self.root / "run" / f"{self.app}-history.jsonl"
        # `lock` is held during a whole converge or verb, and `work` while stackctl moves containers (lock.py).
        self.lock, self.work = var / "lock", var / "work"
        # A backup holds `backup_lock` from start to end. `backup_sequence` has the highest off-site number ever seen.
        self.backup_lock, self.backup_sequence = var / "backup.lock", var / "backup.sequence"
        # `certificate_failure` has the reason why the declared certificate was not issued. The file is absent after
        # success.
        self.certificate_lock, self.certificate_failure = var / "certificate.lock", var / "certificate.json"
        # `integrity_failure` lists the files of Debian's packages that were changed, and `upgrade_failure` has the date
        # since which upgrades have failed.
        self.integrity_failure, self.upgrade_failure = var / "integrity", var / "upgrade"
        # `amcheck_failure` has the damage that pg_amcheck found. `amcheck_looked` has the time at which the last check
        # finished or the first check began.
        self.amcheck_failure, self.amcheck_looked = var / "amcheck", var / "amcheck.looked"
        self.pending_handlers = var / "owed"
        # systemd-timesyncd creates `time_set` once a time server has set the clock. systemd creates `in_container`.
        self.time_set = self.root / "run/systemd/timesync/synchronized"
        self.in_container = self.root / "run/systemd/container"
        # The records of trials, and copies of the files that a trial may change
        self.trials, self.trial_lock = var / "trial", var / "trial.lock"
        self.maintenance = var / "maintenance"  # nginx answers 503 while this file exists
        # docker.service reads its options from this file, which exists only on a copy (stackctl before-docker)
        self.docker_options = self.root / "run" / f"{self.app}-docker"
        # The permissions of the droplet's key in the off-site storage, and restic's cache
        self.offsite_permissions, self.offsite_cache = var / "offsite.json", var / "restic"

    def _set_foreign(self) -> None:
        """Set the paths that belong to other programs."""
        root = self.root
        self.on_trial = {
            "ssh": (root / "etc/ssh/sshd_config", root / "etc/ssh/sshd_config.d"),
            "firewall": (root / "etc/ufw", root / "etc/default/ufw"),
        }
        # cloud-init writes this file early at each boot (instance.py)
        self.instance_id = root / "var/lib/cloud/data/instance-id"
        self.letsencrypt = root / "etc/letsencrypt"
        self.acme_webroot = root / "var/www/acme"
        # nginx's logs of all requests, and of the requests that fail2ban counts
        self.access_log, self.refused_log = root / "var/log/nginx/access.log", root / "var/log/nginx/refused.log"
        # Debian creates `reboot_required` if an upgrade needs a reboot. `reboot_packages` lists the packages.
        self.reboot_required, self.reboot_packages = root / "run/reboot-required", root / "run/reboot-required.pkgs"
        # systemd touches this file when the timer is started, and whenever the timer starts its service.
        self.backup_stamp = root / f"var/lib/systemd/timers/stamp-{self.app}-backup.timer"
        # the file's time is the day of the last successful upgrade
        self.upgrade_stamp = root / "var/lib/apt/periodic/upgrade-stamp"

    def snapshot(self, release_id: str) -> Path:
        """Return the file with the app environment with which a kept release started."""
        return self.secrets / f"{release_id}.json"

    def backup(self, backup_id: str) -> Path:
        """Return the directory of a complete backup."""
        return self.backups / backup_id

    def keys(self, login: str) -> Path:
        """Return the file with the SSH keys of a login."""
        return self.home / login / ".ssh/authorized_keys"

    def trial_record(self, name: str) -> Path:
        return self.trials / f"{name}.json"

    def trial_copies(self, name: str) -> Path:
        return self.trials / name

    def socket(self, colour: str) -> Path:
        return self.var / f"{colour}.sock"

    def tls_live(self, domain: str) -> Path:
        return self.letsencrypt / "live" / domain

    def renewal(self, domain: str) -> Path:
        return self.letsencrypt / "renewal" / f"{domain}.conf"
