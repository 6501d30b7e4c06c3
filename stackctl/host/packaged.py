"""Reads dpkg's lists of the paths that Debian's packages installed, and of the checksums of configuration files."""

import os
import re
from hashlib import md5
from pathlib import Path

from stackctl.host.findings import meant, read

# Keep only paths in watched directories, because a droplet has twenty thousand other paths.
_LISTED = re.compile(
    rb"^(?:/usr)?(/(?:lib/(?:systemd|sysctl\.d|mod|udev|tmpfiles\.d)|share/pam-configs/)[^\n]*|/etc/[^\n]+"
    rb"|/lib/python3[^/\n]*/dist-packages/[^/\n]+\.(?:pth|py))$",
    re.MULTILINE,
)
_CONFFILE = re.compile(rb"^ (/\S+) ([0-9a-f]{32})(?: \w+)*$", re.MULTILINE)
_UCF = re.compile(rb"^([0-9a-f]{32}) +(/\S+)$", re.MULTILINE)


class Packaged:
    """The contents of dpkg's lists."""

    def __init__(self, root: Path) -> None:
        self._root = root
        dpkg = root / "var/lib/dpkg"
        self._paths: set[str] = set()
        info = dpkg / "info"
        for listing in info.glob("*.list"):
            found = map(os.fsdecode, _LISTED.findall(listing.read_bytes()))
            # A package may still list a path in /lib, which is a link to /usr/lib.
            self._paths.update(f"/usr{path}" if path.startswith(("/lib/", "/share/")) else path for path in found)
        self._sums: dict[str, str] = {}
        for path, one in _CONFFILE.findall(_bytes(dpkg / "status")):
            self._sums[os.fsdecode(path)] = one.decode()
        # ucf keeps the checksums of the files that ucf handles for a package.
        for one, path in _UCF.findall(_bytes(root / "var/lib/ucf/hashfile")):
            self._sums[os.fsdecode(path)] = one.decode()
        self._presets: list[tuple[str, str]] = []
        presets = root / "usr/lib/systemd/system-preset"
        for preset in sorted(presets.glob("*.preset")):
            for line in meant(read(preset)):
                verb, _, pattern = line.partition(" ")
                self._presets.append((verb, pattern.strip()))

    def has(self, path: str) -> bool:
        """Return whether a package or ucf has installed a file at this path."""
        return path in self._paths or path in self._sums

    def is_changed(self, path: str) -> bool:
        """Return whether the path is a configuration file that was changed.

        Programs are checked by debsums (upkeep.py).
        """
        known = self._sums.get(path)
        if known is None:
            return False
        try:
            # dpkg keeps MD5. MD5 suffices, because only root could replace a file with another file of the same sum.
            return md5((self._root / path[1:]).read_bytes(), usedforsecurity=False).hexdigest() != known
        except OSError:
            return False

    def disables(self, unit: str) -> bool:
        """Return whether Debian's presets disable this unit."""
        generic = re.sub(r"@[^.]*\.", "@.", unit)
        for verb, pattern in self._presets:
            if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), generic):
                return verb == "disable"
        return False


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
