"""The virtual machine of the lab: a QEMU process with a disk and a kernel of its own.

The machine has no boot loader. QEMU boots the kernel that the link /vmlinuz on the disk names, so an upgrade of the
kernel takes effect at the next boot, as on a droplet.
"""

import subprocess
from datetime import datetime
from pathlib import Path

from tests.lab.host import LabError, run
from tests.lab.layout import RUN, Machine
from tests.lab.rootfs import BASE, Recipe

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
# The kernel restarts one second after a panic, as DigitalOcean's droplets do not. A test would otherwise wait forever.
KERNEL = "root=/dev/vda rw console=ttyS0 panic=1 net.ifnames=0"


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
        *("setpriv", "--pdeathsig", "KILL"),
        *_qemu(kernel, initrd, KERNEL, memory_mib(machine)),
        *accelerator(kernel, initrd),
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
    """Copy the kernel and the initial RAM disk from the disk of a machine that is off, without mounting the disk."""
    files = []
    for link in ("vmlinuz", "initrd.img"):
        shown = run("debugfs", "-R", f"stat /{link}", machine.root / DISK)
        _, _, target = shown.partition("Fast link dest: ")
        if not target.startswith('"'):
            raise LabError(
                f"The disk of {machine.name} has no kernel: /{link} is no link. Next: recreate {machine.name}."
            )
        file = RUN / f"{machine.name}.{link}"
        run("debugfs", "-R", f"dump /{target.strip().strip(chr(34))} {file}", machine.root / DISK)
        files.append(file)
    return files[0], files[1]


def accelerator(kernel: Path, initrd: Path) -> list[str]:
    """Return QEMU's options for KVM if a trial boot with KVM succeeds, otherwise those for TCG, which emulates.

    The trial boot is made once for each start of this computer, because an open /dev/kvm proves nothing.
    """
    if not VERDICT.exists():
        works = KVM.exists() and _boots_with_kvm(kernel, initrd)
        VERDICT.write_text("kvm" if works else "tcg")
    if VERDICT.read_text() == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    print("This computer cannot boot a machine with KVM. QEMU emulates the processor (TCG), which is slow", flush=True)
    return ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"]


def _boots_with_kvm(kernel: Path, initrd: Path) -> bool:
    """Boot until the initial RAM disk's own program reboots."""
    tried = _qemu(kernel, initrd, "rdinit=/bin/reboot console=ttyS0 panic=-1 -- -f", 512)
    try:
        done = subprocess.run(
            [*tried, "-accel", "kvm", "-cpu", "host"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TRIAL_BOOT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"reboot: Restarting system" in done.stdout


def _qemu(kernel: Path, initrd: Path, append: str, mib: int) -> list[str]:
    return [
        *("qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-serial", "stdio"),
        *("-machine", "q35", "-smp", str(PROCESSORS), "-m", str(mib), "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", append),
    ]
