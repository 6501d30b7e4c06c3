"""The lab's processes are those in its control groups, even if the process that started them is gone.

Each machine has a group with two subgroups. The subgroup `keeper` has the process that starts nspawn, and `machine` has
nspawn and all processes inside. A process ID alone could belong to another program by now, but membership in these
groups is certain.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.lab.host import LabError

HAS_SYSTEMD = Path("/run/systemd/system").exists()
KILL_TIMEOUT_S = 10.0


def enter(name: str, part: str) -> None:
    """Move this process into the machine's group `keeper` or `machine`, in every hierarchy."""
    for hierarchy in _hierarchies():
        group = hierarchy / _group(name)
        (group / part).mkdir(parents=True, exist_ok=True)
        for directory in (group.parent, group, group / part):
            _inherit_processors(directory)
        (group / part / "cgroup.procs").write_text(str(os.getpid()))
        _pass_on_controllers(group)


def remove_groups(name: str = "", part: str = "") -> None:
    """Remove the cgroups of all machines, of one machine, or of one part of a machine.

    Raise OSError if a group is in use.
    """
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / _group(name) / part, topdown=False):
            Path(directory).rmdir()


def all_of(name: str) -> list[int]:
    """Return the IDs of all processes of a machine, including its keeper. The list is empty if the machine is off."""
    found = []
    for directory, _, _ in os.walk(_named_hierarchy() / _group(name)):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()]
    return found


def has_keeper(name: str) -> bool:
    """Return False if a machine is off, or runs without the process that would boot it again."""
    return any(_depth(pid) == 1 for pid in all_of(name))


def named(name: str, program: str) -> int | None:
    """Return the ID of a machine's process whose program's name begins with `program`."""
    for pid in all_of(name):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(program):
                return pid
    return None


def leader(name: str) -> int | None:
    """Return the process ID that a machine's PID 1 has on the host."""
    return next((pid for pid in all_of(name) if _namespaced_ids(pid)[1:] == [1]), None)


def kill(name: str) -> None:
    """Kill all processes of a machine. Do nothing if the machine is off."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while remaining := all_of(name):
        if time.monotonic() > deadline:
            raise LabError(f"{name}: processes {remaining} do not end. Next: see what they wait for, `ps -l`.")
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    if not HAS_SYSTEMD:
        remove_groups(name)


def unit(name: str) -> str:
    """Return the name of a machine's systemd service. Without systemd on the host, no such service exists."""
    return f"marketplace-lab-{name}.service"


def _group(name: str) -> Path:
    return Path("system.slice", unit(name)) if HAS_SYSTEMD else Path("marketplace-lab", name)


def _inherit_processors(group: Path) -> None:
    """Copy the parent's CPUs and memory nodes. In cgroup v1, a new cpuset is empty and accepts no process."""
    for file in ("cpuset.mems", "cpuset.cpus"):
        if (group / "cgroup.clone_children").exists() and (group / file).exists():
            (group / file).write_text((group.parent / file).read_text())


def _pass_on_controllers(group: Path) -> None:
    """Enable all controllers for subgroups.

    In cgroup v2, the parent enables the controllers, and must have no processes.
    """
    if (group / "cgroup.controllers").exists():
        for controller in (group / "cgroup.controllers").read_text().split():
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _hierarchies() -> list[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(mount[1]) for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]


def _named_hierarchy() -> Path:
    """Return the cgroup hierarchy that contains every process. nspawn needs this hierarchy."""
    legacy = Path("/sys/fs/cgroup/systemd")
    return legacy if legacy.exists() else Path("/sys/fs/cgroup")


def _depth(pid: int) -> int:
    """Return 1 for a process of the host, 2 for one in a machine, and 3 for one in a machine's container.

    Return 0 if the process is gone.
    """
    return len(_namespaced_ids(pid))


def _namespaced_ids(pid: int) -> list[int]:
    """Return the IDs of a process in each nested namespace. The first ID is the ID on the host."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []
