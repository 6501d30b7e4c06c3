"""Values of the lab's virtual machine, which uses the servers and secrets of the lab. The rest is as in lab.py."""

from group_data.lab import *  # noqa: F403

backups_ledger = ".lab/vm.backups.json"

domain = "vm.lab.test"
offsite_repository = "s3:https://10.77.0.2:9000/backups/vm"

# Without KVM, QEMU emulates the processor, and programs take about fifteen times as long as on a droplet.
health_interval_s = 60
healthy_timeout_s = 300
migrate_timeout_s = 300

foreign_accepted = {"/etc/apt/sources.list": "it may name this computer's mirror"}
