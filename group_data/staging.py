"""Values of staging. A converge refuses the example.com placeholders: put in your names (docs/getting-started.md)."""

env_file = ".env.staging"
secrets_ledger = "inventories/staging.secrets.json"
backups_ledger = "inventories/staging.backups.json"
authorized_keys = "inventories/staging.authorized_keys"
ssh_config_file = "inventories/staging.ssh_config"
ssh_known_hosts_file = "inventories/staging.known_hosts"
ssh_strict_host_key_checking = "yes"

environment = "staging"
domain = "staging.example.com"
acme_email = "operator@example.com"

droplet_memory_mib = 2048
app_repository = "ghcr.io/example/toogoodtogo-bot"
registry_user = "example"
