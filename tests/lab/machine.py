"""Functions that make the lab's machines from blueprints, and boot, reboot, crash and remove them."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from tests.lab import keys, processes, qemu, rootfs
from tests.lab.blueprint import Blueprint
from tests.lab.host import LabError, run
from tests.lab.layout import CHECKOUT, NSPAWN_RUN, RUN, Machine

BOOT_TIMEOUT_S = 120.0  # a container's boot takes four seconds
EMULATED_BOOT_TIMEOUT_S = 900.0  # an emulated machine's boot takes minutes
KEEPER_TIMEOUT_S = 20.0  # the keeper starts within a second
FINGERPRINT = "etc/lab-fingerprint"


def create(machine: Machine, blueprint: Blueprint) -> None:
    """Make the machine's root file system atomically."""
    base = rootfs.build(blueprint.recipe)
    draft = machine.root.with_name(f".{machine.name}.new")
    rootfs.copy(base, draft)
    for path, file in {**blueprint.files, **blueprint.identity}.items():
        target = draft / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # the file, such as resolv.conf, may be a link
        target.write_bytes(file.content)
        target.chmod(file.mode)
    for command in blueprint.commands:
        run("chroot", draft, "sh", "-c", command)
    if not machine.is_droplet:  # a droplet gets no file that only the lab needs
        (draft / FINGERPRINT).write_text(blueprint.fingerprint())
    if machine.is_virtual:
        draft = _on_a_disk(machine, draft)
    draft.rename(machine.root)


def _on_a_disk(machine: Machine, root: Path) -> Path:
    """Replace a root file system by a directory with a disk of the same content. Return the directory."""
    directory = root.with_name(f".{machine.name}.disk")
    rootfs.remove(directory)
    directory.mkdir()
    qemu.make_disk(root, directory / qemu.DISK)
    rootfs.remove(root)
    return directory


def is_outdated(machine: Machine, blueprint: Blueprint) -> bool:
    """Return whether world or neighbour was made from another blueprint."""
    file = machine.root / FINGERPRINT
    return file.exists() and file.read_text() != blueprint.fingerprint()


def start(machine: Machine) -> None:
    """Boot the machine, and return when ssh can log in."""
    stop(machine)  # a machine may still run without its keeper
    log = RUN / f"{machine.name}.log"
    command = [sys.executable, "-m", "tests.lab.supervise", machine.name]
    if processes.HAS_SYSTEMD:
        unit = (f"--unit={processes.unit(machine.name)}", f"--working-directory={CHECKOUT}")
        settings = ("--property=Delegate=yes", f"--property=StandardOutput=truncate:{log}")
        run("systemd-run", "--quiet", "--collect", *unit, *settings, *command)
    else:
        with log.open("w") as output:
            subprocess.Popen(
                command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    deadline = time.monotonic() + KEEPER_TIMEOUT_S
    while not processes.has_keeper(machine.name) and time.monotonic() < deadline:
        time.sleep(0.02)
    wait_for_login(machine)


def wait_for_login(machine: Machine) -> None:
    """Return when ssh can log in. If the machine stops or times out, raise LabError with the end of its console."""
    deadline = time.monotonic() + boot_timeout_s(machine)
    while processes.has_keeper(machine.name) and time.monotonic() < deadline:
        if _ssh_works(machine):
            return
        time.sleep(0.2)
    log = RUN / f"{machine.name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(nothing)"
    raise LabError(f"Cannot log in to {machine.name} by ssh. Its console, {log}, ends with:\n{tail}")


def inside(machine: Machine, *command: str, stdin: str | bytes | None = None) -> str:
    """Run a command as root in a machine without ssh, as from its console."""
    leader = processes.leader(machine.name)
    if leader is None:
        raise LabError(f"{machine.name} is off. Next: `make lab-up`.")
    return run("nsenter", f"--target={leader}", "--all", "--", *command, stdin=stdin)


def reboot(machine: Machine) -> None:
    """Reboot the machine cleanly, and return when ssh can log in again."""
    before = first_process(machine)
    if machine.is_virtual:
        ssh(machine, "sudo systemctl reboot")
    else:
        inside(machine, "systemctl", "reboot")
    wait_for_reboot(machine, before)


def wait_for_reboot(machine: Machine, before: int | None) -> None:
    """Return when ssh can log in after a reboot. `before` was the machine's first process before the reboot."""
    deadline = time.monotonic() + 2 * boot_timeout_s(machine)  # services may stop slowly
    while first_process(machine) in {before, None}:
        if not processes.has_keeper(machine.name) or time.monotonic() > deadline:
            raise LabError(f"{machine.name} did not boot again after its reboot. Next: see {RUN / machine.name}.log")
        time.sleep(0.1)
    wait_for_login(machine)


def crash(machine: Machine) -> None:
    """Kill all processes of the machine at the same time, and boot the machine again."""
    if first_process(machine) is None:
        raise LabError(f"{machine.name} is off: nothing to crash. Next: `make lab-up`.")
    start(machine)


def stop(machine: Machine) -> None:
    """Switch the machine off as a power failure would. A machine that is off stays off."""
    processes.kill(machine.name)
    for left in ("propagate", "unix-export"):  # a new nspawn refuses to start if a killed nspawn left these files
        rootfs.remove(NSPAWN_RUN / left / machine.name)


def destroy(machine: Machine) -> None:
    """Switch the machine off and remove all its files."""
    stop(machine)
    rootfs.remove(machine.root)
    (RUN / f"{machine.name}.log").unlink(missing_ok=True)


def first_process(machine: Machine) -> int | None:
    """Return the ID of the machine's PID 1, or of its QEMU, on the host. Return None if the machine is off."""
    return processes.named(machine.name, "qemu-system") if machine.is_virtual else processes.leader(machine.name)


def boot_timeout_s(machine: Machine) -> float:
    return EMULATED_BOOT_TIMEOUT_S if machine.is_virtual else BOOT_TIMEOUT_S


def ssh(machine: Machine, command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine as its user."""
    argv = ["ssh", "-F", str(keys.SSH_CONFIG), "-o", "BatchMode=yes", machine.name, command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout)


def _ssh_works(machine: Machine) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return ssh(machine, "true", timeout=60 if machine.is_virtual else 5).returncode == 0
    return False
