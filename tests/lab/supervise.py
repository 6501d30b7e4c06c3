"""The keeper of one running machine. tests.lab.machine starts it as `python -m tests.lab.supervise NAME`.

When a machine reboots, its nspawn exits with a status that asks for a restart. The keeper therefore outlives nspawn.
"""

import subprocess
import sys
import time

from tests.lab import network, processes
from tests.lab.layout import Machine, by_name

START_ME_AGAIN = 133  # with --keep-unit, nspawn exits with this status if the machine asked for a reboot


def main() -> None:
    """Boot the machine, and boot it again after each reboot, until it is powered off or killed."""
    machine = by_name(sys.argv[1])
    processes.enter(machine.name, "keeper")
    while boot(machine) == START_ME_AGAIN:
        print(f"{machine.name} reboots", flush=True)


def boot(machine: Machine) -> int:
    """Run the machine until it ends, and return nspawn's exit status."""
    processes.remove_groups(machine.name, "machine")
    processes.enter(machine.name, "machine")  # nspawn inherits this process's control group
    network.unplug(machine.interface)  # the bridge must not get an interface that a crash has left
    nspawn = subprocess.Popen(command(machine), stdin=subprocess.DEVNULL)
    processes.enter(machine.name, "keeper")
    while nspawn.poll() is None and not network.attach(machine.interface):
        time.sleep(0.01)
    return nspawn.wait()


def command(machine: Machine) -> list[str]:
    """Return nspawn's command for a machine that may run Docker."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # a machine without its keeper would stay off after a reboot
        *("systemd-nspawn", "--quiet", "--boot", f"--directory={machine.root}", f"--machine={machine.name}"),
        *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
        *("--capability=all", "--system-call-filter=add_key keyctl bpf"),
        f"--network-veth-extra={machine.interface}:eth0",
    ]


if __name__ == "__main__":
    main()
