"""QEMU gets the right command, and KVM only if a kernel has booted with KVM. These tests boot no machine."""

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.lab import blueprint, keys, layout, network, qemu
from tests.lab.blueprint import CGROUPS
from tests.lab.host import LabError, packages
from tests.lab.layout import DROPLETS, GATEWAY, MACHINES, VM

BOOTED = "echo '[    0.9] reboot: Restarting system'"
LINKS = {"vmlinuz": "boot/vmlinuz-2", "initrd.img": "boot/initrd.img-2"}
Qemu = Callable[[str], Path]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the machine, the verdict and /dev/kvm in a temporary directory."""
    monkeypatch.setattr(layout, "STATE", tmp_path)
    monkeypatch.setattr(qemu, "RUN", tmp_path)
    monkeypatch.setattr(qemu, "VERDICT", tmp_path / "accelerator")
    monkeypatch.setattr(qemu, "KVM", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    VM.root.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def fake_qemu(places: Path, monkeypatch: pytest.MonkeyPatch) -> Qemu:
    """Return a function that puts a shell script in the place of QEMU. The script's calls are counted in a file."""
    monkeypatch.setenv("PATH", str(places), prepend=":")

    def put(script: str) -> Path:
        program, calls = places / "qemu-system-x86_64", places / "calls"
        program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{script}\n')
        program.chmod(0o755)
        return calls

    return put


def has_kvm() -> bool:
    return qemu.has_kvm(Path("vmlinuz"), Path("initrd.img"))


class TestAccelerator:
    """QEMU uses KVM only after a trial boot."""

    def test_kvm_that_boots_a_kernel_is_used(self, fake_qemu: Qemu) -> None:
        calls = fake_qemu(BOOTED)
        assert has_kvm()
        assert "-accel kvm -cpu host" in calls.read_text()

    @pytest.mark.parametrize(
        "script",
        [
            pytest.param(f"{BOOTED}; exit 1", id="it-fails"),
            pytest.param("exit 0", id="the-machine-resets-before-the-kernel-has-booted"),
            pytest.param(f"{BOOTED}; exec sleep 60", id="it-hangs"),
        ],
    )
    def test_kvm_is_not_used_if_the_trial_boot(
        self, fake_qemu: Qemu, monkeypatch: pytest.MonkeyPatch, script: str
    ) -> None:
        monkeypatch.setattr(qemu, "TRIAL_BOOT_S", 0.5)
        calls = fake_qemu(script)
        assert not has_kvm()
        assert calls.exists()

    def test_nothing_is_booted_without_a_device(self, fake_qemu: Qemu) -> None:
        calls = fake_qemu(BOOTED)
        qemu.KVM.unlink()
        assert not has_kvm()
        assert not calls.exists()

    @pytest.mark.parametrize(("script", "works"), [(BOOTED, True), ("exit 1", False)])
    def test_the_verdict_is_remembered(self, fake_qemu: Qemu, script: str, *, works: bool) -> None:
        calls = fake_qemu(script)
        assert [has_kvm(), has_kvm()] == [works, works]
        assert len(calls.read_text().splitlines()) == 1
        qemu.VERDICT.unlink()
        has_kvm()
        assert len(calls.read_text().splitlines()) == 2

    @pytest.mark.parametrize(
        ("verdict", "sentence"), [("kvm", "QEMU uses KVM"), ("tcg", "KVM cannot boot a kernel here.*fifteen times")]
    )
    def test_the_operator_is_told(
        self, places: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, sentence: str
    ) -> None:
        monkeypatch.setattr(qemu, "boot_files", lambda _: (places, places))
        qemu.VERDICT.write_text(verdict)
        assert re.match(sentence, qemu.accelerator(VM))


class TestCommand:
    """QEMU's command has the memory, the clock and the accelerator that the machine's files state."""

    @pytest.fixture
    def command(self, places: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
        """Return a function that returns the command for a machine whose disk has a kernel."""
        monkeypatch.setattr(qemu, "boot_files", lambda _: (Path("vmlinuz"), Path("initrd.img")))
        qemu.VERDICT.write_text("tcg")
        return lambda: " ".join(qemu.command(VM))

    def test_has_the_memory_of_a_droplet_until_a_resize(self, command: Callable[[], str]) -> None:
        assert " -m 2048 " in command()
        qemu.resize(VM, 1024)
        assert " -m 1024 " in command()
        assert qemu.memory_mib(VM) == 1024

    def test_has_the_right_clock_or_the_given_one(self, command: Callable[[], str]) -> None:
        assert " -rtc base=utc " in command()
        qemu.set_clock(VM, datetime(2026, 1, 31, 12, tzinfo=UTC))
        assert " -rtc base=2026-01-31T12:00:00 " in command()
        qemu.set_clock(VM, None)
        assert " -rtc base=utc " in command()

    @pytest.mark.parametrize(("verdict", "options"), [("kvm", qemu.WITH_KVM), ("tcg", qemu.WITH_TCG)])
    def test_has_one_accelerator(self, command: Callable[[], str], verdict: str, options: tuple[str, ...]) -> None:
        qemu.VERDICT.write_text(verdict)
        assert f" {' '.join(options)} " in command()
        assert command().count("-accel ") == 1

    def test_has_the_machine_s_disk_and_interface(self, command: Callable[[], str]) -> None:
        assert f"file={VM.root}/disk.raw,format=raw" in command()
        assert f"tap,id=net,ifname={VM.interface}," in command()

    def test_ends_at_a_reboot_and_with_its_keeper(self, command: Callable[[], str]) -> None:
        assert command().startswith("setpriv --pdeathsig KILL qemu-system-x86_64 ")
        assert " -no-reboot " in command()


class TestDisk:
    """The kernel comes from the machine's disk, which is an ext4 file system without a partition table."""

    @pytest.fixture
    def boot_files(
        self, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[dict[str, str]], tuple[Path, Path]]:
        """Return a function that makes a disk with these links and two files, and copies the kernel from the disk."""
        monkeypatch.setattr(qemu, "DISK_GIB", 1)
        monkeypatch.setenv("PATH", "/usr/sbin:/sbin", prepend=":")  # where Debian has mke2fs and debugfs

        def copy(links: dict[str, str]) -> tuple[Path, Path]:
            root = places / "root"
            shutil.rmtree(root, ignore_errors=True)
            (root / "boot").mkdir(parents=True)
            for name in ("vmlinuz-2", "initrd.img-2"):
                (root / "boot" / name).write_text(name)
            for link, target in links.items():
                (root / link).symlink_to(target)
            (VM.root / qemu.DISK).unlink(missing_ok=True)
            qemu.make_disk(root, VM.root / qemu.DISK)
            return qemu.boot_files(VM)

        return copy

    def test_the_links_on_the_disk_choose_the_kernel(self, boot_files: Callable[..., tuple[Path, Path]]) -> None:
        assert [file.read_text() for file in boot_files(LINKS)] == ["vmlinuz-2", "initrd.img-2"]

    @pytest.mark.parametrize("name", ["vmlinuz", "initrd.img"])
    @pytest.mark.parametrize("target", [None, "boot/removed"])
    def test_a_link_to_nothing_is_refused_and_no_older_copy_is_booted(
        self, boot_files: Callable[..., tuple[Path, Path]], name: str, target: str | None
    ) -> None:
        boot_files(LINKS)
        links = {**LINKS, name: target}
        with pytest.raises(LabError, match=f"vm cannot boot: /{name} .* leads to no file.*Next: .*recreate vm"):
            boot_files({link: to for link, to in links.items() if to})

    def test_the_disk_has_no_partition_table(self, boot_files: Callable[..., tuple[Path, Path]]) -> None:
        boot_files(LINKS)
        disk = VM.root / qemu.DISK
        assert disk.stat().st_size == 1 << 30
        assert subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False).returncode == 0


class TestCheck:
    """A computer that cannot run the virtual machine is told what is missing."""

    def test_another_architecture_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(
            LabError, match=r"x86_64, and this one has aarch64.*Nothing was changed.*Next: .*make lab-up"
        ):
            qemu.check()

    def test_missing_programs_are_named_with_their_packages(
        self, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setenv("PATH", str(places))
        with pytest.raises(LabError, match=r"qemu-system-x86_64.*mke2fs.*debugfs") as refused:
            qemu.check()
        assert str(refused.value).endswith("Next: apt-get install e2fsprogs qemu-system-x86")
        for name in qemu.PROGRAMS:
            (places / name).touch(mode=0o755)
        qemu.check()

    def test_the_packages_are_free_of_comments(self) -> None:
        assert packages(qemu.PACKAGES) == ["e2fsprogs", "qemu-system-x86"]


class TestBlueprint:
    """The virtual machine is a droplet, except that its kernel and its disk are its own."""

    @pytest.fixture(autouse=True)
    def keys_and_resolvers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Replace what `make lab-up` would have made."""
        monkeypatch.setattr(keys, "public", lambda _: "ssh-ed25519 AAAA")
        monkeypatch.setattr(network, "resolvers", lambda: ["192.0.2.1"])
        (tmp_path / "key").touch()
        monkeypatch.setattr(keys, "host_key", lambda _: tmp_path / "key")

    def test_mounts_its_disk_and_leaves_its_control_groups_alone(self) -> None:
        of_vm, of_droplet = blueprint.of(VM), blueprint.of(DROPLETS[0])
        assert of_vm.files.keys() ^ of_droplet.files.keys() == {"etc/fstab", CGROUPS}
        assert of_vm.files["etc/fstab"].content.startswith(b"/dev/vda / ext4 ")
        assert CGROUPS in of_droplet.files
        assert not any("lab-cgroups" in command for command in of_vm.commands)

    def test_has_a_droplet_s_packages_and_a_kernel(self) -> None:
        extra = set(blueprint.of(VM).recipe.packages) - set(blueprint.of(DROPLETS[0]).recipe.packages)
        assert "linux-image-cloud-amd64" in extra
        assert set(blueprint.of(DROPLETS[0]).recipe.packages) < set(blueprint.of(VM).recipe.packages)

    def test_has_the_same_user_data(self) -> None:
        path = "var/lib/cloud/seed/nocloud/user-data"
        assert blueprint.of(VM).identity[path] == blueprint.of(DROPLETS[0]).identity[path]


class TestLayout:
    """No two machines have the same name, address, interface or MAC address."""

    @pytest.mark.parametrize("key", ["name", "ipv4", "ipv6", "interface", "root"])
    def test_each_machine_has_its_own(self, key: str) -> None:
        machines = (*MACHINES, GATEWAY)
        assert len({getattr(machine, key) for machine in machines}) == len(machines)

    def test_mac_addresses(self) -> None:
        assert len({qemu.mac(machine) for machine in MACHINES}) == len(MACHINES)

    def test_the_virtual_machine_is_a_droplet_with_the_addresses_of_20(self) -> None:
        assert (VM.name, str(VM.ipv4), str(VM.ipv6)) == ("vm", "10.77.0.20", "fd00:77::20")
        assert VM.is_droplet
        assert [machine for machine in MACHINES if machine.is_virtual] == [VM]
