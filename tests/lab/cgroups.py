"""Control groups of the lab's own for each machine, on a host where no systemd makes them (version 1 hierarchies)."""

import os
from pathlib import Path

PARENT = "marketplace-lab"


def join(name: str) -> None:
    """Move this process into the machine's groups, new and empty: in one group, two machines would share their services."""
    for hierarchy in _hierarchies():
        _enter(hierarchy / PARENT)  # out of the group of the boot before, which then can go
    remove(name)
    for hierarchy in _hierarchies():
        _enter(hierarchy / PARENT / name)


def remove(name: str = "") -> None:
    """Remove the groups that a machine left, or every machine's. A group with a process in it raises OSError."""
    for hierarchy in _hierarchies():
        top = hierarchy / PARENT / name
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()


def _hierarchies() -> list[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(mount[1]) for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]


def _enter(group: Path) -> None:
    group.mkdir(exist_ok=True)
    for file in ("cpuset.mems", "cpuset.cpus"):  # a new cpuset is empty, and takes no process
        if (group / file).exists():
            (group / file).write_text((group.parent / file).read_text())
    (group / "cgroup.procs").write_text(str(os.getpid()))
