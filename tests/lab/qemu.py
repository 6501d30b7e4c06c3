"""The virtual machine of the lab: a QEMU process with a disk and a kernel of its own.

The machine has no boot loader, and its disk has no partition table. QEMU boots the kernel that the link /vmlinuz on the
disk names. So an upgrade of the kernel takes effect at the next boot, as on a droplet.
"""

import platform
import subprocess
from datetime import datetime
from pathlib import Path

from tests.lab import host
from tests.lab.host import LabError, run
from tests.lab.layout import RUN, Machine
from tests.lab.rootfs import BASE, Recipe

PACKAGES = Path(__file__).with_name("packages-vm.txt")
PROGRAMS = {
    "qemu-system-x86_64": "runs the virtual machine",
    "mke2fs": "makes its disk",
    "debugfs": "reads the kernel from its disk",
    "e2fsck": "replays the journal of its disk",
}
ARCHITECTURE = "x86_64"

DISK = "disk.raw"
DISK_GIB = 10  # the disk of DigitalOcean's smallest droplet; the file is sparse
MEMORY_MIB = 2048
PROCESSORS = 2
TRIAL_BOOT_S = 20  # with KVM, the kernel boots in two seconds
VERDICT = RUN / "accelerator"
KVM = Path("/dev/kvm")

ROOT = Recipe(
    name="vm",
    packages=(*BASE.packages, "linux-image-cloud-amd64", "initramfs-tools", "zstd", "e2fsprogs"),
    commands=BASE.commands,
)
FSTAB = "/dev/vda / ext4 defaults,errors=remount-ro 0 1\n"
# With net.ifnames=0 the interface is called eth0, as on a droplet at DigitalOcean and in the lab's containers. With
# panic=1 the kernel reboots one second after a panic. By default it would halt, and a test would wait in vain.
KERNEL = "root=/dev/vda rw console=ttyS0 panic=1 net.ifnames=0"


def check() -> None:
    """Raise LabError if this computer cannot make or run the virtual machine."""
    if platform.machine() != ARCHITECTURE:
        raise LabError(
            f"The lab's virtual machine needs a computer with the architecture {ARCHITECTURE}, and this one has "
            f"{platform.machine()}. Nothing was changed. Next: use the lab's droplets, `make lab-up`."
        )
    host.check_programs(PROGRAMS, PACKAGES)


def make_disk(root: Path, target: Path) -> None:
    """Write a disk with the content of the directory `root`, without a partition table."""
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, target, f"{DISK_GIB}G")


def memory_mib(machine: Machine) -> int:
    """Return the size of the machine's memory, which `resize` may have changed."""
    file = machine.root / "memory"
    return int(file.read_text()) if file.exists() else MEMORY_MIB


def resize(machine: Machine, mib: int) -> None:
    """Change the size of the machine's memory from its next boot on."""
    (machine.root / "memory").write_text(f"{mib}\n")


def set_clock(machine: Machine, at: datetime | None) -> None:
    """Set the clock that the machine finds at its next boots to `at`, or to this computer's clock."""
    (machine.root / "clock").write_text(f"{at:%Y-%m-%dT%H:%M:%S}" if at else "utc")


def _clock(machine: Machine) -> str:
    file = machine.root / "clock"
    return file.read_text() if file.exists() else "utc"


def command(machine: Machine) -> list[str]:
    """Return QEMU's command. At a reboot QEMU exits, and the keeper boots the kernel that the disk then has."""
    kernel, initrd = boot_files(machine)
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # a machine without its keeper would stay off after a reboot
        *_qemu(kernel, initrd, KERNEL, memory_mib(machine)),
        *(WITH_KVM if has_kvm(kernel, initrd) else WITH_TCG),
        *("-rtc", f"base={_clock(machine)}"),
        *("-drive", f"file={machine.root / DISK},format=raw,if=virtio,discard=unmap"),
        *("-netdev", f"tap,id=net,ifname={machine.interface},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net,mac={mac(machine)}"),
        *("-device", "virtio-rng-pci"),
    ]


def mac(machine: Machine) -> str:
    """Return an address that only this machine has on the lab's network."""
    return f"52:54:00:77:00:{machine.host:02x}"


def boot_files(machine: Machine) -> tuple[Path, Path]:
    """Copy the kernel and the initial RAM disk from the disk of a machine that is off.

    debugfs reads the disk without a mount. After a power cut, it first needs what is only in the journal. The machine's
    kernel would replay the journal in the same way.
    """
    run("e2fsck", "-p", "-E", "journal_only", machine.root / DISK, check=False)
    kernel, initrd = (_copy_of(machine, link) for link in ("vmlinuz", "initrd.img"))
    return kernel, initrd


def _copy_of(machine: Machine, link: str) -> Path:
    disk, file = machine.root / DISK, RUN / f"{machine.name}.{link}"
    # debugfs succeeds even if it finds nothing, and would leave the copy of an earlier boot.
    file.unlink(missing_ok=True)
    _, found, target = run("debugfs", "-R", f"stat /{link}", disk).partition("Fast link dest: ")
    if found:
        run("debugfs", "-R", f"dump /{target.strip().strip(chr(34))} {file}", disk)
    if not file.exists() or not file.stat().st_size:
        raise LabError(
            f"{machine.name} cannot boot: /{link} on its disk leads to no file. {machine.name} is off. "
            f"Next: .venv/bin/python -m tests.lab recreate {machine.name}"
        )
    return file


# The accelerator. QEMU runs the machine's code on the processor (KVM), or translates it (TCG).

WITH_KVM = ("-accel", "kvm", "-cpu", "host")
WITH_TCG = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max")


def accelerator(machine: Machine) -> str:
    """Return a sentence for the operator about the accelerator of a machine that is off."""
    if has_kvm(*boot_files(machine)):
        return "QEMU uses KVM"
    return (
        "KVM cannot boot a kernel here, so QEMU emulates the processor (TCG): programs take about fifteen times as long"
    )


def has_kvm(kernel: Path, initrd: Path) -> bool:
    """Return whether a kernel boots with KVM on this computer.

    An open /dev/kvm proves nothing. So this function boots the kernel once, and remembers the result until this
    computer restarts or the lab is removed.
    """
    if not VERDICT.exists():
        works = KVM.exists() and _boots_with_kvm(kernel, initrd)
        VERDICT.write_text("kvm" if works else "tcg")
    return VERDICT.read_text() == "kvm"


def _boots_with_kvm(kernel: Path, initrd: Path) -> bool:
    """Boot until a program of the initial RAM disk reboots.

    The exit status alone proves nothing, because QEMU also exits with 0 if the machine resets before it has booted.
    """
    trial = [*_qemu(kernel, initrd, "rdinit=/bin/reboot console=ttyS0 panic=-1 -- -f", 512), *WITH_KVM]
    try:
        done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TRIAL_BOOT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"reboot: Restarting system" in done.stdout


def _qemu(kernel: Path, initrd: Path, append: str, mib: int) -> list[str]:
    return [
        *("qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-serial", "stdio"),
        *("-machine", "q35", "-smp", str(PROCESSORS), "-m", str(mib), "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", append),
    ]
