"""Machines of the lab: made from a root file system, switched on, rebooted, crashed, removed."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.lab import keys, network, processes, rootfs
from tests.lab.host import LabError, run, say
from tests.lab.layout import CHECKOUT, NETWORK4, NETWORK6, RUN, WORLD, Machine

OVERLAY = Path(__file__).with_name("base")
CLOUD_INIT = CHECKOUT / "files/base/cloud-init.yaml"
PATIENCE = 60.0  # seconds for a boot; it takes four


def create(machine: Machine, root: Path) -> None:
    """Make the machine's root file system, as DigitalOcean would hand it over: a fresh copy of `root` with its identity."""
    draft = machine.root.with_name(f".{machine.name}.new")
    rootfs.copy(root, draft)
    run("cp", "--recursive", f"{OVERLAY}/.", draft)
    _write(draft, "etc/systemd/network/10-eth0.network", _network_file(machine))
    _write(draft, "etc/resolv.conf", _resolv_conf())
    _install_host_key(draft, keys.host_key(machine))
    _seed(draft, machine) if machine.is_droplet else _plain(draft, machine)
    run("systemctl", f"--root={draft}", "enable", "--quiet", "lab-cgroups.service")
    draft.rename(machine.root)


def start(machine: Machine) -> None:
    """Switch the machine on, and return when it can be logged in to."""
    RUN.mkdir(exist_ok=True)
    log = RUN / f"{machine.name}.log"
    command = [sys.executable, "-m", "tests.lab.supervise", machine.name]
    if processes.HAS_SYSTEMD:
        place = (f"--unit={processes.unit(machine.name)}", f"--working-directory={CHECKOUT}")
        settings = ("--property=Delegate=yes", f"--property=StandardOutput=truncate:{log}")
        run("systemd-run", "--quiet", "--collect", *place, *settings, *command)
    else:
        with log.open("w") as output:
            subprocess.Popen(
                command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    wait_for_login(machine)


def wait_for_login(machine: Machine) -> None:
    """Return when ssh lets us in; LabError with the end of the console's log when it doesn't in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if ssh(machine, "true", timeout=5) == 0:
            return
        time.sleep(0.2)
    log = RUN / f"{machine.name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log)"
    raise LabError(
        f"{machine.name} can't be logged in to after {PATIENCE:.0f} s. Its console, {log}, ends with:\n{tail}"
    )


def ssh(machine: Machine, *command: str, timeout: float) -> int:
    """Run a command in the machine by ssh, silently; its exit status, 255 when there is no connection."""
    try:
        return subprocess.run(
            ["ssh", "-F", keys.SSH_CONFIG, "-o", "BatchMode=yes", machine.name, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
        ).returncode
    except subprocess.TimeoutExpired:
        return 255


def inside(machine: Machine, *command: str, stdin: str | bytes | None = None) -> str:
    """Run a command as root in a machine that is on, without ssh: as from a console."""
    leader = processes.leader(machine.name)
    if leader is None:
        raise LabError(f"{machine.name} is off. Next: `make lab-up`.")
    return run("nsenter", f"--target={leader}", "--all", "--", *command, stdin=stdin)


def reboot(machine: Machine) -> None:
    """Reboot in order, and return when the machine can be logged in to again."""
    before = processes.leader(machine.name)
    inside(machine, "systemctl", "reboot")
    deadline = time.monotonic() + PATIENCE
    while processes.leader(machine.name) in {before, None}:
        if not processes.has_keeper(machine.name) or time.monotonic() > deadline:
            raise LabError(f"{machine.name} did not come back. Next: see {RUN / machine.name}.log")
        time.sleep(0.1)
    wait_for_login(machine)


def crash(machine: Machine) -> None:
    """Kill the machine at once, and switch it on again."""
    if not processes.has_keeper(machine.name):
        raise LabError(f"{machine.name} is off: nothing to crash. Next: `make lab-up`.")
    stop(machine)
    start(machine)


def stop(machine: Machine) -> None:
    """Switch the machine off as a lost power supply would. Nothing to do when it is off."""
    processes.kill(machine.name)


def destroy(machine: Machine) -> None:
    """Switch the machine off, and remove all of it."""
    stop(machine)
    rootfs.remove(machine.root)
    (RUN / f"{machine.name}.log").unlink(missing_ok=True)


def _network_file(machine: Machine) -> str:
    """A static address, as DigitalOcean gives. No default route by v6: the lab has no way out there."""
    return (
        "[Match]\nName=eth0\n\n"
        "[Network]\n"
        f"Address={machine.ipv4}/{NETWORK4.prefixlen}\n"
        f"Gateway={network.GATEWAY.ipv4}\n"
        f"Address={machine.ipv6}/{NETWORK6.prefixlen}\n"
        "IPv6AcceptRA=no\n"
    )


def _resolv_conf() -> str:
    """World knows the lab's names; the host's own name servers stand in while world is off."""
    servers = [str(WORLD.ipv4), *network.resolvers()][:3]  # the resolver library reads three
    return "".join(f"nameserver {server}\n" for server in servers) + "options timeout:1 attempts:2\n"


def _install_host_key(root: Path, key: Path) -> None:
    for source, mode in ((key, 0o600), (key.with_name(f"{key.name}.pub"), 0o644)):
        target = root / "etc/ssh" / source.name.replace(key.name, "ssh_host_ed25519_key")
        shutil.copyfile(source, target)
        target.chmod(mode)


def _seed(root: Path, machine: Machine) -> None:
    """What cloud-init reads at DigitalOcean from the metadata service: the operator's user data, and the provider's own."""
    seed = "var/lib/cloud/seed/nocloud"
    user_data = CLOUD_INIT.read_text().replace("OPERATOR_PUBLIC_KEY", keys.public(keys.IDENTITY))
    _write(root, f"{seed}/user-data", user_data)
    _write(root, f"{seed}/meta-data", f"instance-id: {uuid.uuid4()}\nlocal-hostname: {machine.name}\n")
    _write(root, f"{seed}/vendor-data", "#cloud-config\nmanage_etc_hosts: true\n")


def _plain(root: Path, machine: Machine) -> None:
    """A machine around the droplets: no cloud-init, root logs in."""
    _write(root, "etc/cloud/cloud-init.disabled", "")
    _write(root, "etc/hostname", f"{machine.name}\n")
    _write(root, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n::1 localhost\n")
    _write(root, "root/.ssh/authorized_keys", f"{keys.public(keys.IDENTITY)}\n")


def _write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # resolv.conf may be a link to the host's
    target.write_text(text)
