"""Functions that check the lab's host, run programs and print progress."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages.txt")
STARTED = time.monotonic()

# The purpose tells the operator why the lab needs the program.
PROGRAMS = {
    "mmdebstrap": "builds Debian root file systems",
    "systemd-nspawn": "boots them as machines",
    "ip": "makes the lab's network",
    "nft": "gives the machines a way out",
    "ssh": "logs in to them",
    "ssh-keygen": "makes their keys",
}


class LabError(Exception):
    """A failure. The message names the cause and the next step for the operator."""


def say(message: str) -> None:
    """Print a step as it begins, with the seconds since the command started."""
    print(f"[{time.monotonic() - STARTED:6.1f}s] {message}", flush=True)


def run(*command: str | Path, stdin: str | bytes | None = None, check: bool = True) -> str:
    """Run a program and return its output.

    With `check`, a failure raises LabError with the end of the program's error output. Use standard input for data
    that must not appear in an argument list.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    if data is None:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    else:
        done = subprocess.run(command, input=data, capture_output=True, check=False)
    if check and done.returncode:
        words = " ".join(str(part) for part in command)
        tail = "\n".join((done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-15:])
        raise LabError(f"`{words}` failed with exit code {done.returncode}:\n{tail}")
    return done.stdout.decode(errors="replace")


def packages(file: Path = PACKAGES) -> list[str]:
    """Return the Debian packages in a list of what this machine needs."""
    lines = (re.sub(r"#.*", "", line).strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def check() -> None:
    """Raise LabError with everything that this machine lacks and the next step."""
    if sys.platform != "linux":
        raise LabError(
            "The lab needs systemd-nspawn, which only Linux has. Next: use a virtual machine (docs/how-to/lab.md)."
        )
    if os.geteuid() != 0:
        raise LabError("The lab needs root for mounts, a bridge and machines. Next: run the same command with sudo.")
    check_programs(PROGRAMS, PACKAGES)


def check_programs(programs: Mapping[str, str], file: Path) -> None:
    """Raise LabError with the programs that this machine lacks. The list `file` names the packages that have them."""
    missing = [f"{name} ({purpose})" for name, purpose in programs.items() if shutil.which(name) is None]
    if missing:
        raise LabError(f"Missing: {', '.join(missing)}.\nNext: apt-get install {' '.join(packages(file))}")
