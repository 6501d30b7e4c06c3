"""prod. The example.com names are placeholders, and refused: put your own here (docs/getting-started.md)."""

env_file = ".env.production"
secrets_ledger = "inventories/prod.secrets.json"
backups_ledger = "inventories/prod.backups.json"
authorized_keys = "inventories/prod.authorized_keys"
ssh_config_file = "inventories/prod.ssh_config"
ssh_known_hosts_file = "inventories/prod.known_hosts"
ssh_strict_host_key_checking = "yes"

environment = "production"
domain = "bot.example.com"
acme_email = "operator@example.com"

droplet_memory_mib = 2048
app_repository = "ghcr.io/example/toogoodtogo-bot"
registry_user = "example"
# Your Spaces bucket, in another region than the droplet's. None: no backup leaves the droplet, and status says so.
offsite_repository = "s3:https://ams3.digitaloceanspaces.com/example/bot"
