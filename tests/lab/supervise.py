"""The keeper of one running machine. tests.lab.machine starts it as `python -m tests.lab.supervise NAME`.

When a machine reboots, its nspawn or QEMU exits with a status that asks for a restart. So the keeper outlives them.
"""

import subprocess
import sys
import time

from tests.lab import network, processes, qemu
from tests.lab.layout import Machine, by_name

START_ME_AGAIN = 133  # with --keep-unit, nspawn exits with this status if the machine asked for a reboot


def main() -> None:
    """Boot the machine, and boot it again after each reboot, until it is powered off or killed.

    QEMU exits with the same status after a reboot and after a power-off. So a virtual machine that is powered off boots
    again.
    """
    machine = by_name(sys.argv[1])
    processes.enter(machine.name, "keeper")
    start_me_again = 0 if machine.is_virtual else START_ME_AGAIN
    while boot(machine) == start_me_again:
        print(f"{machine.name} reboots", flush=True)


def boot(machine: Machine) -> int:
    """Run the machine until it ends, and return the exit status of nspawn or QEMU."""
    processes.remove_groups(machine.name, "machine")
    processes.enter(machine.name, "machine")  # the program inherits this process's control group
    network.unplug(machine.interface)  # the bridge must not get an interface that a crash has left
    command = qemu.command(machine) if machine.is_virtual else nspawn(machine)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    processes.enter(machine.name, "keeper")
    while program.poll() is None and not network.attach(machine.interface):
        time.sleep(0.01)
    return program.wait()


def nspawn(machine: Machine) -> list[str]:
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
