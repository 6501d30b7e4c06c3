"""Values of prod. A converge refuses the example.com placeholders: put in your names (docs/getting-started.md)."""

env_file = ".env.production"  # File with the secrets.
secrets_ledger = "inventories/prod.secrets.json"  # Ledger with the age of each secret. Commit this file.
backups_ledger = "inventories/prod.backups.json"  # Ledger of the off-site snapshots. Commit this file.
authorized_keys = "inventories/prod.authorized_keys"  # File with the public keys of all operators.
ssh_config_file = "inventories/prod.ssh_config"  # SSH client configuration with the droplets' addresses.
ssh_known_hosts_file = "inventories/prod.known_hosts"  # File with the droplets' host keys.
ssh_strict_host_key_checking = "yes"  # "yes" makes SSH refuse unknown host keys. Keep "yes".

environment = "production"  # Value of the app's ENVIRONMENT variable: `lab`, `staging` or `production`.
domain = "bot.example.com"  # Domain of the bot and of the certificate.
acme_email = "operator@example.com"  # E-mail address of the account at the ACME server.

droplet_memory_mib = 2048  # Memory of the droplet, in MiB.
app_repository = "ghcr.io/example/toogoodtogo-bot"  # Repository of the app's image, without a tag.
registry_user = "example"  # User name at the image registry. The password is in the env file.
# Off-site storage, such as a bucket of DigitalOcean Spaces in another region than the droplet. With None, no backup
# leaves the droplet, and `status` reports this.
offsite_repository = "s3:https://ams3.digitaloceanspaces.com/example/bot"
