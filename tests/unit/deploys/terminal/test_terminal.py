"""A droplet's output is made printable, and Ctrl-C shows which run continues. Most of these tests run pyinfra."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host, ctx_state

from deploys.cli import verb
from deploys.config import environments
from deploys.converge import session
from deploys.terminal import screen
from deploys.terminal.exit_codes import INTERRUPTED
from tests.support.environment import ROOT

CONFIG = """
from pyinfra import config
from deploys.terminal import screen
screen.install()
"""
SAYS = """
from pyinfra import host, logger, state
from pyinfra.facts.files import FileContents
from pyinfra.operations import server
state.print_output = True
logger.info("  - ::add-mask::\\x1b]0;PWNED\\x07")
server.shell(name="Say it", commands=["printf '\\\\033]0;PWNED\\\\007\\\\342\\\\200\\\\256 x\\\\n'"])
server.shell(name="Complain", commands=["printf '\\\\033[2Jgone\\\\n' >&2; exit 1"])
"""


def pyinfra(directory: Path, deploy: str, config: str = CONFIG) -> list[str]:
    (directory / "config.py").write_text(config)
    (directory / "deploy.py").write_text(deploy)
    return [sys.executable, "-m", "pyinfra", "-y", "@local", "deploy.py"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYINFRA_PROGRESS": "off"}


def test_a_droplet_s_output_is_made_printable(tmp_path: Path) -> None:
    command = pyinfra(tmp_path, SAYS)
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    told = (ran.stdout + ran.stderr).decode()
    assert told.count(r"\x1b]0;PWNED\x07") >= 2
    assert r"\u202e" in told
    assert r"\x1b[2Jgone" in told
    left = told.replace("\n", "").replace("\t", "")
    assert click.unstyle(left).isprintable()


def test_without_the_change_a_terminal_would_obey(tmp_path: Path) -> None:
    command = pyinfra(tmp_path, SAYS, "")
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert b"\x1b]0;PWNED\x07" in ran.stdout + ran.stderr


@given(st.text(), st.sampled_from(["red", "green", "yellow", "cyan", "bright_red"]), st.booleans())
def test_pyinfras_colours_stay(text: str, colour: str, bold: bool) -> None:  # noqa: FBT001
    styled = click.style("x", fg=colour, bold=bold)
    shown = screen.shown(f"{styled}{text}")
    assert shown.startswith(styled)
    assert click.unstyle(shown).replace("\n", "").replace("\t", "").isprintable()


WAITS = """
from pyinfra.operations import server
from deploys.terminal import screen
screen.on_interrupt("Interrupted here. The release continues.")
server.shell(name="Wait", commands=["touch begun; sleep 20"])
"""


def test_ctrl_c_says_what_goes_on_and_is_no_success(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    with shown.open("wb") as out:
        process = subprocess.Popen(
            pyinfra(tmp_path, WAITS), cwd=tmp_path, env=environment(), stdout=out, stderr=subprocess.STDOUT
        )
        for _ in range(300):
            if (tmp_path / "begun").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED
    assert "Interrupted here. The release continues." in shown.read_text()


def droplet(facts: dict[str, Any]) -> Any:
    data = {"ssh_config_file": "inventories/prod.ssh_config", "app": "bot"}
    return SimpleNamespace(
        name="prod-1",
        groups=["app", "data", "prod"],
        data=SimpleNamespace(**data),
        get_fact=lambda fact, **_: facts[fact.__name__],
    )


@pytest.mark.parametrize("word", ["release", "rollback", "restore"])
def test_the_printed_commands_follow_end_and_undo_what_continues(word: str) -> None:
    with ctx_host.use(droplet({})):
        told = verb.interrupt_message(word, "prod")
    assert f"If the {word} had begun, the {word} continues on prod-1" in told
    there = "ssh -F inventories/prod.ssh_config prod-1 sudo"
    assert f"{there} stackctl {'restore' if word == 'restore' else 'release'} --follow " in told
    assert f"{there} systemctl stop bot-release.service " in told
    assert ("make rollback ENV=prod" in told) == (word != "restore")


def test_a_backup_goes_on_and_a_look_leaves_nothing() -> None:
    with ctx_host.use(droplet({})):
        assert "prod-1 sudo stackctl list-backups" in verb.interrupt_message("backup", "prod")
        assert verb.interrupt_message("status", "prod") == "Interrupted. Nothing was changed."
    assert "make site ENV=prod, which continues from that step" in session.interrupt_message("prod")


def test_a_bare_droplet_is_not_set_up_yet() -> None:
    with (
        ctx_host.use(droplet({"Which": None})),
        ctx_state.use(SimpleNamespace(print_output=False)),
        pytest.raises(PyinfraError, match=r"prod-1 is not set up yet\. Nothing was changed\. Next: make site ENV=prod"),
    ):
        verb.run("Say", "status")


def test_a_droplet_of_another_group_is_left_alone() -> None:
    with ctx_host.use(SimpleNamespace(groups=["edge", "prod"])):
        verb.run("Back up", "backup", group="data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('domain = "bot.example.org\n', "group_data/prod.py line 2: unterminated string literal"),
        ("watch_s = thirty\n", "group_data/prod.py line 2: NameError: name 'thirty' is not defined"),
        ("x = [\n", "group_data/prod.py line 2: '[' was never closed"),
    ],
)
def test_a_fault_in_group_data_is_told_by_file_line_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/all.py").write_text("")
    (tmp_path / "group_data/prod.py").write_text(f"# ours\n{text}")
    monkeypatch.setattr(environments, "_ROOT", tmp_path)
    for look in (environments.check, lambda: environments.group_data("prod")):
        with pytest.raises(environments.GroupDataError) as raised:
            look()
        assert str(raised.value).startswith(said)


def test_group_data_is_read_where_pyinfra_is_not_installed() -> None:
    """CI's scripts read group_data on a runner without pyinfra."""
    program = "from deploys.config.environments import group_data; print(group_data('prod')['app'])"
    bare = [sys.executable, "-S", "-c", program]
    assert subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "toogoodtogo\n"


def test_pyinfra_tells_it_in_one_line_before_it_reads_group_data_itself(tmp_path: Path) -> None:
    for name in ("deploys", "inventories", "files"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/all.py").write_text("x = 'a\n")
    check = (
        CONFIG
        + "from deploys.config import environments\nfrom pathlib import Path\n"
        + "environments._ROOT = Path('.').resolve()\nenvironments.check()\n"
    )
    command = pyinfra(tmp_path, "", check)
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "group_data/all.py line 1: unterminated string literal" in ran.stderr
    assert "internal exception" not in ran.stderr
    assert not (tmp_path / "pyinfra-debug.log").exists()
    assert "environments.check()" in (ROOT / "config.py").read_text()
    assert "screen.install()" in (ROOT / "config.py").read_text()
