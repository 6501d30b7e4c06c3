"""Defaults for every environment. group_data/ENV.py overrides them for one environment. Nothing here is secret.

`deploys/config/values.py` checks every value and refuses a name that it does not know. `make docs` turns these comments
into docs/reference/configuration.md: `# == Title ==` begins a section, and the comment above or beside a value
describes it.
"""

# == General ==
app = "toogoodtogo"  # Name of the app. Paths, units, accounts and Docker names on the droplet derive from it.
# Whether the droplet is isolated (docs/reference/restore.md). None leaves the droplet's state as it is. Don't set this
# value here: `make isolate` sets it for one converge, and the droplet remembers the state.
isolated: bool | None = None
operator = "deploy"  # The account that the operator logs in with.
timezone = "Etc/UTC"  # Time zone of the droplet, also of `reboot_at` and `backup_at`.
journal_max_mib = 512  # Disk space for the systemd journal, in MiB.
swap_mib = 1024  # Size of the swap file in MiB. 0: no swap file.
reboot_at = "04:30"  # Time of day for a reboot that an upgrade requires. None: never reboot automatically.
# Certificate files of additional authorities to trust, such as the authority of a private registry or ACME server.
extra_ca_certificates: list[str] = []
system_memory_mib = 448  # Memory reserved for Debian, Docker, nginx, sshd and their page cache, in MiB.

# == Access ==
# Networks or addresses, IPv4 or IPv6, that may reach SSH. An empty list lets everyone reach SSH. CI on
# GitHub's runners needs an empty list.
sshd_allowed_from: list[str] = []
# Networks or addresses, IPv4 or IPv6, that fail2ban and sshd never block, such as the operators' fixed addresses.
# Addresses in `sshd_allowed_from` are trusted as well. fail2ban also never blocks addresses in `webhook_allowed_from`.
trusted_addresses: list[str] = []
# File with the public keys that CI logs in with. CI may only release, roll back and read the status
# (docs/how-to/ci.md). None: CI has no access.
ci_authorized_keys = None
# Foreign findings that `make plan` and `make status` should not report: each finding's name, with the reason. An
# accepted file may have any content (docs/how-to/security.md).
foreign_accepted: dict[str, str] = {}
# Names of foreign findings that each converge removes. `make site REMOVE="NAME NAME"` removes findings only once.
foreign_removed: list[str] = []

# == Networks ==
# The ranges must not overlap. The droplet cannot reach a host of the VPC if Docker uses that host's address.
vpc_network = "10.0.0.0/8"  # DigitalOcean's private network (VPC).
docker_bridge = "172.30.0.1/24"  # Address and network of Docker's default bridge.
docker_pool = "172.30.128.0/17"  # Range from which Docker takes a subnet for each network without its own.
app_subnet = "172.30.1.0/24"  # Network of the app.
app_ip_range = "172.30.1.128/25"  # Part of `app_subnet` in which Docker chooses addresses itself.
colours = {"blue": "172.30.1.11", "green": "172.30.1.12"}  # Address of each `web` container, outside `app_ip_range`.
data_subnet = "172.30.2.0/24"  # Network of PostgreSQL and Redis, with no route to the outside.
data_ip_range = "172.30.2.128/25"  # Part of `data_subnet` in which Docker chooses addresses itself.
# Addresses of PostgreSQL and Redis. The addresses are fixed, because Docker's name server does not answer while the
# Docker daemon is down.
data_addresses = {"postgres": "172.30.2.11", "redis": "172.30.2.12"}

# == Data services ==
# Memory is in MiB, CPUs are in cores. A converge refuses limits that add up to more than the droplet has.
data_root = "/var/lib/toogoodtogo/data"  # Directory of the data. A volume may be mounted there.
database = "telegram_marketplace"  # Name of the app's database.
database_user = "toogoodtogo"  # Role that owns the app's tables. The app logs in with a member of this role.
postgres_image = "postgres:17.11-trixie"  # PostgreSQL's image. The tag must name version and base. A digest may follow.
postgres_memory_mib = 384  # Memory limit of PostgreSQL.
postgres_cpus = 1.0  # CPU limit of PostgreSQL.
redis_image = "redis:8.10.1-trixie"  # Redis's image. The tag must name version and base. A digest may follow.
redis_memory_mib = 160  # Memory limit of Redis. Half of the limit is for data. A save may need the other half.
redis_cpus = 0.5  # CPU limit of Redis.
# Write an append-only file. With the file, a killed Redis loses at most one second of changes. Without the file, Redis
# loses up to five minutes, or one minute under load.
redis_append_only = False

# == Backups ==
backup_at = "02:30"  # Time of day of the nightly backup, which starts up to half an hour later.
backup_memory_mib = 128  # Memory for the throwaway PostgreSQL or Redis that verifies a backup.
# Off-site storage, S3-compatible: "s3:https://HOST/BUCKET/PREFIX" (docs/how-to/offsite-backups.md). None: no off-site
# backups.
offsite_repository = None
# Whether the storage lets the droplet's key only add objects, so that an intruder on the droplet cannot delete backups.
# Every upload tests whether this is so. DigitalOcean Spaces has no such keys.
offsite_append_only = False

# == The app ==
# These values tell what your image needs and offers (docs/reference/app-contract.md). The image tag is not among them,
# because each release names a tag.
app_memory_mib = 256  # Memory limit of `web`. The limit counts twice, because both colours run during a release.
app_cpus = 1.0  # CPU limit of `web`.
app_command = ["web"]  # Arguments that make the image serve requests. Empty: the image's own CMD.
app_read_only = True  # The container's file system is read-only except for /tmp, which is lost with the container.
app_migrates = True  # The image has the commands `migrate` and `schema`.
app_worker = True  # The image has the command `worker`.
worker_memory_mib = 160  # Memory limit of the worker.
worker_cpus = 1.0  # CPU limit of the worker.
worker_grace_s = 60  # Seconds that a job has to finish after its worker was told to stop.
app_connections = 12  # Maximum number of PostgreSQL connections of one release, with its worker.
# Environment variables of the app that are not secret.
app_environment = {"LOG_LEVEL": "INFO", "TELEGRAM_API_URL": "https://api.telegram.org"}
app_secrets = ["STRIPE_API_KEY"]  # Names of the app's own secrets. Their values are in the env file.
ready_path = "/ready"  # Path that answers 200 when the app can serve.
version_path = "/health"  # Path that answers with the running version. None: the app has no such path.

# == Releases ==
healthy_timeout_s = 120  # Seconds that a new release may take to become healthy.
migrate_timeout_s = 300  # Seconds that migrations may take.
watch_s = 30  # Seconds that a release is watched after the flip. The old release stays ready until then.

# == Web ==
# Paths that nginx passes to the app. A path that ends in / is a prefix, except for the webhook's path. Leave out the
# paths for health, readiness and metrics, because these paths are internal.
public_paths = ["/webhook/telegram"]
webhook_path = "/webhook/telegram"  # Path of Telegram's webhook. None: the app does not use Telegram.
# Networks that may call the webhook, here Telegram's (core.telegram.org/bots/webhooks). An empty list admits everyone
# who knows the webhook's secret.
webhook_allowed_from = ["149.154.160.0/20", "91.108.4.0/22"]
# Requests per second that nginx accepts from one client, which is an IPv4 address or an IPv6 /64.
client_rate = 10
# Requests that one client may send at once before `client_rate` applies. A page requests all its files at once, and the
# users of an office or a mobile network share one address.
client_burst = 200
acme_server = "https://acme-v02.api.letsencrypt.org/directory"  # Directory URL of the ACME server.
