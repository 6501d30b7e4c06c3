"""What every place shares. A value here is a default; group_data/<place>.py overrides it. Nothing here is secret.

`deploys/settings.py` gives each name its type and its rules, and refuses a run with a name that it does not know.
"""

app = "toogoodtogo"
# An isolated droplet (docs/reference/restore.md): True, False, or None for what the droplet is already. For
# `make isolate` and `make live` rather than for here.
isolated: bool | None = None
operator = "deploy"
timezone = "Etc/UTC"
journal_max_mib = 512
swap_mib = 1024
reboot_at = "04:30"  # when an upgrade asks for it, in the time zone above; None: never by itself

# Certificates of authorities that the droplet trusts besides Debian's own: a registry or an ACME server of one's own.
extra_ca_certificates: list[str] = []

# Who may reach SSH: networks or single addresses, IPv4 or IPv6. Empty: anybody, which CI at GitHub needs.
sshd_allowed_from: list[str] = []

# Docker's networks. They must not overlap the VPC, whose hosts the droplet could no longer reach.
vpc_network = "10.0.0.0/8"
docker_bridge = "172.30.0.1/24"
docker_pool = "172.30.128.0/17"
app_subnet = "172.30.1.0/24"
app_ip_range = "172.30.1.128/25"  # what Docker hands out itself; the colours' addresses stay outside of it
colours = {"blue": "172.30.1.11", "green": "172.30.1.12"}
# Fixed, so that the app finds its data by address: Docker's name server is silent while the daemon is down.
data_subnet = "172.30.2.0/24"
data_ip_range = "172.30.2.128/25"
data_addresses = {"postgres": "172.30.2.11", "redis": "172.30.2.12"}

# Data services. Memory in MiB, CPUs in cores; Settings adds the memory up and refuses what the droplet cannot hold.
data_root = "/var/lib/toogoodtogo/data"
database = "telegram_marketplace"
database_user = "toogoodtogo"
postgres_image = "postgres:17.11-trixie"
postgres_memory_mib = 384
postgres_cpus = 1.0
redis_image = "redis:8.10.1-trixie"
redis_memory_mib = 160
redis_cpus = 0.5
# What a killed Redis loses: up to five minutes (one under load) by its snapshots alone, a second with this.
redis_append_only = False
backup_at = "02:30"  # of each day, in the time zone above, or up to half an hour later
backup_memory_mib = 128  # what proving one may use besides: a throwaway PostgreSQL, then a throwaway Redis

# The app. The tag comes only from a release (stackctl release TAG).
app_memory_mib = 256
app_cpus = 1.0
app_command = ["web"]  # how the image is told to serve; empty: by its own CMD
app_read_only = True  # the image writes to /tmp alone, which is lost with the container
app_migrates = True  # the image has the commands `migrate` and `schema`
app_worker = True  # and `worker`
worker_memory_mib = 160
worker_cpus = 1.0
worker_grace_s = 60  # how long a job may take to end
app_connections = 12  # what one release, web and worker, opens of PostgreSQL's at most
healthy_timeout_s = 120
migrate_timeout_s = 300
watch_s = 30  # how long a release is watched after the switch, with the old one warm beside it
# What 443 passes on; a path that ends in / is a prefix (the webhook's is not). Health, readiness, metrics stay inside.
public_paths = ["/webhook/telegram"]
ready_path = "/ready"
version_path = "/health"  # None: the image tells no version
webhook_path = "/webhook/telegram"  # None: the app has nothing to do with Telegram
# What one client (an IPv4 address, or a /64 of IPv6) may ask of 80 and 443: so many requests a second, and so many at
# once before that counts. A page asks for all of its files at once; an office or a mobile network shares one address.
client_rate = 10
client_burst = 200
# Whom the webhook is for: Telegram's senders (core.telegram.org/bots/webhooks). []: anybody, who then needs its secret.
webhook_allowed_from = ["149.154.160.0/20", "91.108.4.0/22"]
# Whom fail2ban and sshd spare, besides webhook_allowed_from and sshd_allowed_from: the operators' fixed addresses.
never_banned: list[str] = []
app_environment = {"LOG_LEVEL": "INFO", "TELEGRAM_API_URL": "https://api.telegram.org"}
app_secrets = ["STRIPE_API_KEY"]

# Debian, Docker, nginx, sshd and their page cache.
system_memory_mib = 448

# Off-site backups (docs/how-to/offsite-backups.md): "s3:https://HOST/BUCKET/PREFIX", S3-compatible. None: nowhere.
offsite_repository = None
# What the storage is to let the droplet's key do: add alone, so that a broken-in droplet can destroy no backup. It is
# tried with each backup. Spaces have no such keys.
offsite_append_only = False

acme_server = "https://acme-v02.api.letsencrypt.org/directory"

# A file of public keys that may release, roll back and ask for status only (docs/how-to/ci.md). None: no CI.
ci_authorized_keys = None

# Foreign is what nobody declared. `make plan` and `make status` report it (docs/explanation/security.md).
# Accepted: by the name that they give it, with the reason. Only the name counts, whatever becomes of the content.
foreign_accepted: dict[str, str] = {}
# Removed at the next converge, by name; `make site REMOVE="NAME NAME"` does so once.
foreign_removed: list[str] = []
