"""Root file systems, which mmdebstrap builds once, and which are cached until their recipe changes."""

import functools
import hashlib
import json
import platform
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.host import LabError, run, say
from tests.lab.layout import CACHE

SUITE = "trixie"


@dataclass(frozen=True)
class Recipe:
    """A root file system's name, its packages besides Debian's minimum, and commands that run in it at the end."""

    name: str
    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()

    def key(self, sources: list[str]) -> str:
        """Return the name of the built root file system in the cache.

        The name changes with the recipe and with the package sources.
        """
        inputs = json.dumps([SUITE, sources, asdict(self)], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"


# The list has only the packages of DigitalOcean's Debian 13 image on which a site may rely. The site installs
# everything else.
BASE = Recipe(
    name="droplet",
    packages=(
        *(
            "systemd",
            "systemd-sysv",
            "systemd-timesyncd",
            "dbus",
            "cron",
            "cloud-init",
            "openssh-server",
            "sudo",
            "python3",
        ),
        *("iproute2", "iputils-ping", "netbase", "ca-certificates", "procps", "kmod", "less"),
    ),
    commands=(
        "systemctl enable systemd-networkd.service",
        "rm -f /etc/ssh/ssh_host_*",  # each machine gets its own host keys
        "truncate --size 0 /etc/machine-id",
    ),
)


def build(recipe: Recipe) -> Path:
    """Return the directory of the recipe's root file system. If the cache lacks it, build it (about half a minute)."""
    sources = apt_sources()
    key = recipe.key(sources)
    root = CACHE / "roots" / key
    if root.exists():
        return root
    say(f"Building the root file system {key} (half a minute, once; cached in {CACHE})")
    archives = CACHE / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.parent / f".{key}.new"
    remove(unfinished)
    include = (f"--include={','.join(recipe.packages)}",) if recipe.packages else ()
    directory = shlex.quote(str(archives))
    run(
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", *include),
        # Downloaded packages are cached, and reused when a recipe changes.
        *("--skip=essential/unlink", '--setup-hook=mkdir -p "$1"/var/cache/apt/archives'),
        f"--setup-hook=sync-in {directory} /var/cache/apt/archives",
        f"--customize-hook=sync-out /var/cache/apt/archives {directory}",
        *(f'--customize-hook=chroot "$1" sh -c {shlex.quote(command)}' for command in recipe.commands),
        SUITE,
        unfinished,
        *sources,
    )
    unfinished.rename(root)
    _forget_older(recipe, root)
    return root


@functools.cache
def apt_sources() -> list[str]:
    """Return Debian 13's sources in sources.list form, from this machine's mirrors if it runs Debian.

    Write these sources only to the root file system, because a machine's mirror is private.
    """
    release = platform.freedesktop_os_release()
    targets = run(
        "apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE) $(RELEASE)", "Created-By: Packages", check=False
    )
    return sources_of(targets, codename=release.get("VERSION_CODENAME", ""))


def sources_of(targets: str, codename: str) -> list[str]:
    """Turn `apt-get indextargets` lines (origin, site, release) of the host's Debian into Debian 13's sources.

    >>> sources_of("Debian http://mirror/debian bookworm-updates", "bookworm")
    ['deb http://mirror/debian trixie-updates main']
    """
    suites = {codename: SUITE, f"{codename}-updates": f"{SUITE}-updates", f"{codename}-security": f"{SUITE}-security"}
    found = []
    for line in targets.splitlines():
        origin, _, rest = line.partition(" ")
        site, _, release = rest.rpartition(" ")
        if origin == "Debian" and release in suites:
            found.append(f"deb {site} {suites[release]} main")
    if any(f" {SUITE} " in line for line in found):
        return sorted(set(found))
    raise LabError("apt has no sources of Debian here. Next: use Debian 12 or 13, or a VM (docs/how-to/lab.md).")


def copy(source: Path, target: Path) -> None:
    """Copy a root file system atomically."""
    unfinished = target.with_name(f".{target.name}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(unfinished)
    run("cp", "--archive", "--reflink=auto", source, unfinished)
    unfinished.rename(target)


def remove(root: Path) -> None:
    """Remove a root file system.

    First unmount every file system in it, because the removal would otherwise empty a mounted file system.
    """
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split()[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(root):
            run("umount", "--lazy", point)
    if root.exists():
        run("rm", "--recursive", "--force", "--one-file-system", root)
    if root.exists():
        raise LabError(f"Cannot remove {root}: another file system is mounted in it. Next: findmnt --submounts {root}")


def _forget_older(recipe: Recipe, newest: Path) -> None:
    for root in newest.parent.glob(f"{recipe.name}-*"):
        if root != newest:
            remove(root)
