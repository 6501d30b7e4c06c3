"""What every place shares. A value here is a default; group_data/<place>.py overrides it. Nothing here is secret.

`deploys/settings.py` gives each name its type and its rules, and refuses a run with a name that it does not know.
"""

app = "toogoodtogo"
operator = "deploy"
timezone = "Etc/UTC"
journal_max_mib = 512
swap_mib = 1024

# Certificates of authorities that the droplet trusts besides Debian's own: a registry or an ACME server of one's own.
extra_ca_certificates: list[str] = []

# Docker's networks. They must not overlap the VPC, whose hosts the droplet could no longer reach.
vpc_network = "10.0.0.0/8"
docker_bridge = "172.30.0.1/24"
docker_pool = "172.30.128.0/17"
app_subnet = "172.30.1.0/24"
app_ip_range = "172.30.1.128/25"  # what Docker hands out itself; the colours' addresses stay outside of it
colours = {"blue": "172.30.1.11", "green": "172.30.1.12"}

# Data services. Memory in MiB, CPUs in cores; Settings adds the memory up and refuses what the droplet cannot hold.
data_root = "/var/lib/toogoodtogo/data"
database = "telegram_marketplace"
database_user = "toogoodtogo"
postgres_image = "postgres:17.11-trixie"
postgres_memory_mib = 512
postgres_cpus = 1.0
redis_image = "redis:8.10.1-trixie"
redis_memory_mib = 192
redis_cpus = 0.5

# The app. The tag comes only from a release (stackctl release TAG).
app_memory_mib = 320
app_cpus = 1.0
app_migrates = True
healthy_timeout_s = 120
migrate_timeout_s = 300
public_paths = ["/webhook/telegram"]  # what 443 passes on; health, readiness and metrics stay inside
app_environment = {"LOG_LEVEL": "INFO", "TELEGRAM_API_URL": "https://api.telegram.org"}
app_secrets = ["STRIPE_API_KEY"]

# Debian, Docker, nginx, sshd and their page cache.
system_memory_mib = 448

acme_server = "https://acme-v02.api.letsencrypt.org/directory"
