"""`make verify` first names the programs that this machine lacks."""

from __future__ import annotations

import shutil
import socket

import pytest

from tests.droplet.conftest import NEEDED, unfit
from tests.support.environment import ROOT
from tests.support.suite import run_pytest
from tests.support.web import is_public


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program in {"nmap", "curl"} else f"/bin/{program}")
    assert unfit("localhost").startswith("Not installed here: curl, nmap. Next: ")


def test_a_domain_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    assert unfit("localhost") == ""
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert unfit("bot.acme.io").startswith("bot.acme.io has no address here (")


def test_every_program_that_a_check_runs_here_is_needed() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests/droplet").glob("test_*.py"))
    asked = {word for word in ("curl", "openssl", "nmap", "ssh", "dig", "nc") if f'"{word} ' in text}
    assert asked <= {*NEEDED}


@pytest.mark.parametrize(("path", "public"), [("/", True), ("/a", True), ("/b/c", True), ("/b", False), ("/ab", False)])
def test_is_public_decides_as_nginx_does(path: str, public: bool) -> None:  # noqa: FBT001
    class Settings:
        class values:  # noqa: N801
            public_paths = ["/a", "/b/"] if path != "/" else ["/"]

    class There:
        settings = Settings

    assert is_public(There(), path) is public  # type: ignore[arg-type]


def test_data_is_passed_on_as_to_a_converge() -> None:
    said = run_pytest("--env", "prod", "--data", "env_file=17", "tests/droplet/test_tls.py")
    assert "env_file" in said
