"""systemd of a droplet in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from stackctl.core.program import Result

OPTIONS = {
    "show": ["--property=ActiveState", "--value"],
    "is-active": ["--quiet"],
    "start": ["--no-block"],
    "stop": ["--no-block"],
}
"""The options that each verb may get."""


@dataclass
class Systemd:
    """A fake systemd that raises AssertionError for an unknown verb."""

    units: set[str] = field(default_factory=set)
    """Our units that are active."""
    beside_ours: set[str] = field(default_factory=lambda: {"nginx.service"})
    """Debian's units that are active."""

    def systemctl(self, verb: str, words: list[str]) -> Result:
        units = [word for word in words if not word.startswith("-")]
        options = [word for word in words if word.startswith("-")]
        assert set(options) <= set(OPTIONS.get(verb, [])), f"systemctl {verb} {options}"
        match verb:
            case "show":
                assert options == OPTIONS["show"], options
                return Result(0, "active\n" if units[0] in self.units else "inactive\n")
            case "is-active":
                return Result(0 if units[0] in self.units | self.beside_ours else 3)
            case "start" | "restart":
                self.units |= set(units)
            case "stop":
                self.units -= set(units)
            case "reload" | "reset-failed" | "reboot":
                pass
            case _:
                raise AssertionError(f"systemctl {verb} {units}")
        return Result(0)
