"""Defines names for Docker and systemd that derive from the app's name, and patterns for names from outside."""

TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""Pattern of an image tag, as registries define it. Every tag is checked against this pattern before use."""
REQUEST_ID = r"[0-9a-f]{32}"
"""The ID that a caller, such as CI, chooses for a request. With this ID, the caller can follow the run."""


class DockerNames:
    """Names of the projects, networks, containers, labels and images in Docker."""

    def __init__(self, app: str) -> None:
        self._app = app
        self.data_project = self.data_network = f"{app}-data"
        self.worker_project = f"{app}-worker"
        self.app_network = f"{app}-app"
        self.sha256_label = f"{app}.sha256"
        self.release_label = f"{app}.release"
        # The tag APP/release:ID, which stackctl adds to an image, protects the image from `docker image prune`.
        self.release_repository = f"{app}/release"

    def project(self, colour: str) -> str:
        """Return the Compose project of a colour."""
        return f"{self._app}-{colour}"

    def data_container(self, service: str) -> str:
        """Return the name that Compose gives to the container of PostgreSQL or Redis."""
        return f"{self.data_project}-{service}-1"

    def verification(self, backup_id: str) -> str:
        """Return the name of the throwaway container into which a backup is restored."""
        return f"{self._app}-verify-{backup_id}"


class UnitNames:
    """Names of the units in systemd."""

    def __init__(self, app: str) -> None:
        self._app = app
        self.app = f"{app}.service"
        self.release = f"{app}-release.service"  # a transient unit, which exists while a release or a rollback runs
        self.certificate_service, self.certificate_timer = f"{app}-certificate.service", f"{app}-certificate.timer"
        self.trial_boot, self.mounts_service = f"{app}-trial.service", f"{app}-mounts.service"
        self.integrity_service, self.integrity_timer = f"{app}-integrity.service", f"{app}-integrity.timer"
        self.reboot_service, self.reboot_timer = f"{app}-reboot.service", f"{app}-reboot.timer"
        self.backup_service, self.backup_timer = f"{app}-backup.service", f"{app}-backup.timer"
        self.amcheck_service, self.amcheck_timer = f"{app}-amcheck.service", f"{app}-amcheck.timer"

    def trial_timer(self, name: str) -> str:
        return f"{self._app}-trial@{name}.timer"

    def trial_service(self, name: str) -> str:
        return f"{self._app}-trial@{name}.service"

    def socket(self, colour: str) -> str:
        return f"{self._app}-{colour}.socket"

    def proxy(self, colour: str) -> str:
        return f"{self._app}-{colour}.service"
