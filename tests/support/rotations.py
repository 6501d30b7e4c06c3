"""An operator with an env file, for tests of a rotation. The converges are fakes."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from deploys.rotation import rotate
from deploys.secrets import ledger
from deploys.secrets.env_file import read_env_file
from tests.support.env_file import GOOD

KEY = f"ssh-ed25519 {'A' * 68} operator"
LAYOUT = "# Ours\n\n" + "".join(f"  export {name} = '{value}' # note\r\n" for name, value in GOOD.items()) + "# end"


@dataclass
class Operator:
    """An operator, at a terminal or not. Each step on the droplet ends with the next code or exception of `ends`."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    ends: list[int | BaseException] = field(default_factory=list)
    ran: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ages_seen: list[bytes] = field(default_factory=list)
    recorded: str = "A"
    """The secret whose new age a converge records, even if the converge fails."""

    @property
    def file(self) -> Path:
        return self.directory / ".env.test"

    @property
    def ages(self) -> Path:
        return self.directory / "prod.secrets.json"

    def runs(self, environment: str, deploy: str) -> int:
        """Stand in for a step, and record the env file that the step would read. A converge also writes the ledger."""
        self.ran.append((deploy, read_env_file(self.file)))
        self.ages_seen.append(self.ages.read_bytes())
        if deploy.endswith("site.py"):
            ledger.write(self.ages, {self.recorded: ledger.Entry("new", date(2026, 2, 2))})
        end = self.ends.pop(0) if self.ends else 0
        if isinstance(end, BaseException):
            raise end
        return end

    def rotates(self, key: str, *options: str, stdin: str = "", terminal: bool = False, answer: str = "y") -> int:
        typed = io.StringIO(stdin)
        self.monkeypatch.setattr(typed, "isatty", lambda: terminal)
        self.monkeypatch.setattr("sys.stdin", typed)
        self.monkeypatch.setattr("sys.argv", ["rotate", "inventories/prod.py", key, *options])
        self.monkeypatch.setattr("builtins.input", lambda _: answer)
        self.monkeypatch.setattr("getpass.getpass", lambda _: stdin)
        return rotate.main()


OPENS = "deploys.offsite.setup"
ENDS = "deploys.offsite.setup --only-these"
SHOWS = "deploys/checks/offsite.py"
