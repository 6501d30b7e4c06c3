"""Defaults for every environment. group_data/ENV.py can override each default. This file contains no secrets.

`deploys/config/values.py` checks every value and refuses a name that it does not know. `make docs` turns these comments
into docs/reference/configuration.md: `# == Title ==` begins a section, and the comment above or beside a value
describes it.
"""

# == General ==
app = "toogoodtogo"  # Name of the app. Names of paths, units and accounts on the droplet contain this name.
# True isolates the droplet (docs/reference/restore.md), and False ends the isolation. None does not change whether the
# droplet is isolated. Keep None, because `make isolate` and `make promote` set the value for one converge, and the
# droplet remembers its state.
isolated: bool | None = None
operator = "deploy"  # Account with which the operator logs in.
timezone = "Etc/UTC"  # Time zone of the droplet. `reboot_at` and `backup_at` are in this time zone.
journal_max_mib = 512  # Maximum size of the systemd journal, in MiB.
swap_mib = 1024  # Size of the swap file, in MiB. With 0, there is no swap file.
# Time of day at which the droplet reboots if an upgrade requires a reboot. With None, the droplet never reboots by
# itself.
reboot_at = "04:30"
# Certificate files of additional authorities that the droplet trusts, such as the authority of a private registry.
extra_ca_certificates: list[str] = []
system_memory_mib = 448  # Memory that is reserved for Debian, Docker, nginx and sshd, in MiB.

# == Access ==
# IPv4 or IPv6 networks or addresses that may connect to SSH. With an empty list, every address may connect. If CI runs
# on GitHub's runners, the list must be empty.
sshd_allowed_from: list[str] = []
# IPv4 or IPv6 networks or addresses that fail2ban and sshd never block, such as the operators' fixed addresses.
# fail2ban and sshd never block addresses in `sshd_allowed_from` either.
trusted_addresses: list[str] = []
# File with CI's public SSH keys. With such a key, CI may only release, roll back and read the status
# (docs/how-to/ci.md). With None, CI cannot log in.
ci_authorized_keys = None
# Foreign findings that `make plan` and `make status` do not report: the name of each finding, with the reason. If a
# file is accepted, any later content of that file is accepted too (docs/how-to/security.md).
foreign_accepted: dict[str, str] = {}
# Names of foreign findings that every converge removes. To remove findings only once, use
# `make site REMOVE="NAME NAME"`.
foreign_removed: list[str] = []

# == Networks ==
# The following address ranges must not overlap. If Docker uses the address of a host in the VPC, the droplet cannot
# reach that host.
vpc_network = "10.0.0.0/8"  # DigitalOcean's private network (VPC).
docker_bridge = "172.30.0.1/24"  # Address and network of Docker's default bridge.
docker_pool = "172.30.128.0/17"  # Address range of Docker networks that have no declared subnet.
app_subnet = "172.30.1.0/24"  # Subnet of the app's Docker network.
app_ip_range = "172.30.1.128/25"  # Part of `app_subnet` from which Docker chooses addresses.
colours = {"blue": "172.30.1.11", "green": "172.30.1.12"}  # Address of `web` in each colour, not in `app_ip_range`.
# Subnet of the Docker network of PostgreSQL and Redis. This network has no route to the internet.
data_subnet = "172.30.2.0/24"
data_ip_range = "172.30.2.128/25"  # Part of `data_subnet` from which Docker chooses addresses.
# Addresses of PostgreSQL and Redis. The addresses are fixed, because Docker's name server does not answer while
# the Docker daemon is down.
data_addresses = {"postgres": "172.30.2.11", "redis": "172.30.2.12"}

# == Data services ==
# Memory limits are in MiB, and CPU limits are in cores. A converge is refused if the memory limits add up to more than
# the droplet can use, or if a CPU limit is above the droplet's number of CPUs.
data_root = "/var/lib/toogoodtogo/data"  # Directory of the data, and the place to mount a volume.
database = "telegram_marketplace"  # Name of the app's database.
database_user = "toogoodtogo"  # Owner role of the app's tables. The app logs in as a member of this role.
# Image of PostgreSQL. The tag must contain a version and the base image, and a digest may follow the tag.
postgres_image = "postgres:17.11-trixie"
postgres_memory_mib = 384  # Memory limit of PostgreSQL.
postgres_cpus = 1.0  # CPU limit of PostgreSQL.
# Image of Redis. The tag must contain a version and the base image, and a digest may follow the tag.
redis_image = "redis:8.10.1-trixie"
# Memory limit of Redis. The data can fill half of this memory, because a save may need the other half.
redis_memory_mib = 160
redis_cpus = 0.5  # CPU limit of Redis.
# Whether Redis writes an append-only file. If Redis is killed, the changes of the last second can be lost. Without an
# append-only file, the changes of the last five minutes can be lost, or of the last minute under heavy load.
redis_append_only = False

# Seconds between two health checks of a container. A check may take half as long. Each check starts a program in the
# container, so frequent checks cost much on a slow machine.
health_interval_s = 10

# == Backups ==
backup_at = "02:30"  # The nightly backup starts within half an hour after this time of day.
backup_memory_mib = 128  # Memory of the throwaway container that verifies a backup, in MiB.
# S3-compatible off-site storage, as "s3:https://HOST/BUCKET/PREFIX" (docs/how-to/offsite-backups.md). With None, there
# are no off-site backups.
offsite_repository = None
# Whether the droplet's storage key can only add objects. With such a key, an intruder on the droplet cannot delete
# off-site backups. stackctl tests the key during every upload. DigitalOcean Spaces has no such keys.
offsite_append_only = False

# == The app ==
# The following values describe what the app's image needs and offers (docs/reference/app-contract.md). The image tag is
# not set in this file, because the operator or CI names the tag of each release.
app_memory_mib = 256  # Memory limit of one `web` container. During a release, two `web` containers run.
app_cpus = 1.0  # CPU limit of `web`.
app_command = ["web"]  # Arguments with which the image serves requests. With [], the image's CMD is used.
# Whether the file system of the app's containers is read-only. `/tmp` is always writable, and its files are lost with
# the container.
app_read_only = True
app_migrates = True  # Whether the image has the commands `migrate` and `schema`.
app_worker = True  # Whether the image has the command `worker`.
worker_memory_mib = 160  # Memory limit of the worker.
worker_cpus = 1.0  # CPU limit of the worker.
worker_grace_s = 60  # Seconds that a worker may still work on its job after SIGTERM.
app_connections = 12  # Maximum number of PostgreSQL connections of one release, including its worker.
# Environment variables of the app that are not secret.
app_environment = {"LOG_LEVEL": "INFO", "TELEGRAM_API_URL": "https://api.telegram.org"}
app_secrets = ["STRIPE_API_KEY"]  # Names of the app's own secrets. The env file has the values.
ready_path = "/ready"  # Path at which the app answers 200 when it can serve requests.
version_path = "/health"  # Path at which the app answers with its version. None if there is no such path.

# == Releases ==
# Seconds that a new release may take to become healthy, and that the image's command `schema` may take.
healthy_timeout_s = 120
migrate_timeout_s = 300  # Seconds that all migrations of a release may take together.
# Seconds for which stackctl watches a new release after the flip. The old release keeps running during the watch.
watch_s = 30

# == Web ==
# Paths that nginx passes to the app. If a path ends in `/`, nginx also passes all paths below that path, unless the
# path is the webhook's. Do not list the internal paths for health, readiness and metrics.
public_paths = ["/webhook/telegram"]
webhook_path = "/webhook/telegram"  # Path of Telegram's webhook. None if the app does not use Telegram.
# Networks that may call the webhook. The default is the list of Telegram's networks (core.telegram.org/bots/webhooks).
# With an empty list, everyone who knows the webhook's secret may call the webhook.
webhook_allowed_from = ["149.154.160.0/20", "91.108.4.0/22"]
# Requests per second that nginx accepts from one client. A client is an IPv4 address or an IPv6 /64.
client_rate = 10
# Number of requests that one client may send in a burst before nginx applies `client_rate`. Bursts are normal, because
# a browser requests all files of a page at the same time, and many users of a mobile network can share one address.
client_burst = 200
acme_server = "https://acme-v02.api.letsencrypt.org/directory"  # Directory URL of the ACME server.
