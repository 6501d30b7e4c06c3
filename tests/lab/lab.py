"""The lab as a whole: brought up, taken down, looked at. One checkout owns it at a time."""

import json
from pathlib import Path

from tests.lab import keys, machine, network, processes, rootfs
from tests.lab.host import LabError, run, say
from tests.lab.layout import CHECKOUT, DROPLETS, MACHINES, RUN, STATE, Machine


def up(droplets: int) -> None:
    STATE.mkdir(mode=0o700, exist_ok=True)
    RUN.mkdir(exist_ok=True)
    (RUN / "ip_forward").exists() or (RUN / "ip_forward").write_text(network.IP_FORWARD.read_text())
    nspawn_tmp()
    network.up()
    keys.make(MACHINES)
    base = rootfs.build(rootfs.BASE)
    for droplet in DROPLETS[:droplets]:
        if not droplet.root.exists():
            say(f"Making {droplet.name}")
            machine.create(droplet, base)
        if not processes.has_keeper(droplet.name):
            say(f"Booting {droplet.name}")
            machine.stop(droplet)
            machine.start(droplet)
    say("up")


def nspawn_tmp() -> None:
    p = Path("/run/systemd/nspawn")
    p.mkdir(parents=True, exist_ok=True)
    if run("findmnt", "--noheadings", "--output", "FSTYPE", "--target", p).strip() != "tmpfs":
        run("mount", "-t", "tmpfs", "marketplace-lab", p)


def act(verb: str, which: Machine) -> None:
    if verb in {"destroy", "recreate"}:
        machine.destroy(which)
    if verb == "recreate":
        machine.create(which, rootfs.build(rootfs.BASE))
        machine.start(which)
    if verb == "reboot":
        machine.reboot(which)
    if verb == "crash":
        machine.crash(which)
    say(f"{which.name}: {verb} done")


def status() -> str:
    return "\n".join(f"{m.name} {processes.leader(m.name)}" for m in MACHINES)


def down() -> None:
    for m in MACHINES:
        machine.destroy(m)
