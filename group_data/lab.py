"""Values of the lab (tests/lab). The machine `world` serves the zone lab.test."""

env_file = ".env.lab"
secrets_ledger = ".lab/secrets.json"
backups_ledger = ".lab/backups.json"
authorized_keys = ".lab/id_ed25519.pub"
ci_authorized_keys = ".lab/ci_ed25519.pub"
ssh_config_file = ".lab/ssh_config"
ssh_known_hosts_file = ".lab/known_hosts"
ssh_strict_host_key_checking = "yes"

environment = "lab"
domain = "bot.lab.test"
acme_server = "https://acme.lab.test:14000/dir"
acme_email = "operator@lab.test"
extra_ca_certificates = [".lab/ca.crt"]

offsite_repository = "s3:https://10.77.0.2:9000/backups/bot"
offsite_append_only = True

droplet_memory_mib = 2048
watch_s = 3
vpc_network = "10.77.0.0/24"

# The lab's stand-ins have the official images' interface (docs/how-to/lab.md).
postgres_image = "registry.lab.test/postgres:17-trixie"
redis_image = "registry.lab.test/redis:8-trixie"
app_repository = "registry.lab.test/toogoodtogo-bot"
registry_user = "deploy"
app_environment = {"LOG_LEVEL": "INFO", "TELEGRAM_API_URL": "http://telegram.lab.test:8081"}

# The webhook's callers are this computer, which sends the load, and the lab's Telegram.
webhook_allowed_from = ["10.77.0.1/32", "10.77.0.2/32", "fd00:77::1/128", "fd00:77::2/128"]
trusted_addresses = webhook_allowed_from

client_burst = 20
# The timeouts are shorter than elsewhere, so that tests of failing releases end soon.
healthy_timeout_s = 45
migrate_timeout_s = 15

# These files of the lab's machines differ from the files of DigitalOcean's droplets.
foreign_accepted = {
    "/etc/apt/sources.list": "it may name this computer's mirror",
    "/etc/systemd/system/lab-cgroups.service": "a droplet of the lab is a container",
}
