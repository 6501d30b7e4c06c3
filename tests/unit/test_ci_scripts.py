"""The workflows' scripts (.github/scripts) work with stand-ins for ssh and for the web."""

from __future__ import annotations

import http.client
import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackctl.cli import gate
from tests.support.environment import ROOT
from tests.support.runner import obeyed

STACKCTL = ROOT / ".github/scripts/stackctl"
DIGEST = f"sha256:{'0' * 64}"
OTHER = f"sha256:{'f' * 64}"
IMAGE = "ghcr.io/marketplace/bot"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return a function that runs the script for staging.

    Each call of a fake `ssh` prints `said` and exits with the next of `codes`.
    """

    def run(
        codes: str, *words: str, key: str = "k", said: tuple[str, ...] = (), github: bool = False
    ) -> tuple[int, list[str]]:
        asked = tmp_path / "asked"
        asked.write_text("")
        for number, line in enumerate(said, start=1):
            (tmp_path / f"said{number}").write_text(f"{line}\n")
        turn = f'echo "$*" >> {asked}; turn=$(wc -l < {asked}); cat {tmp_path}/said$turn 2>/dev/null'
        program = f"{turn}; set -- {codes}; shift $((turn - 1)); exit $1"
        for name, body in {"ssh": program, "ssh-agent": ":", "ssh-add": "cat >/dev/null", "sleep": ":"}.items():
            stand_in = tmp_path / name
            stand_in.write_text(f"#!/bin/sh\n{body}\n")
            stand_in.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CI_KEY": key}
        environment["GITHUB_ACTIONS"] = "true" if github else ""
        ran = subprocess.run([STACKCTL, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        (tmp_path / "out").write_text(ran.stdout)
        (tmp_path / "err").write_text(ran.stderr)
        return ran.returncode, asked.read_text().splitlines()

    return run


def test_the_committed_address_and_host_key_are_used(run: Any) -> None:
    code, (asked,) = run("0", "staging", "status", "--json")
    assert code == 0
    assert asked.startswith("-F inventories/staging.ssh_config ")
    assert asked.endswith(" staging-1 status --json")
    assert "-o User=ci " in asked
    assert "StrictHostKeyChecking" not in asked
    assert "StrictHostKeyChecking yes" in (ROOT / "inventories/staging.ssh_config").read_text()


REQUESTS = [("release", "1.0"), ("release", f"1.0@{DIGEST}", "--json"), ("rollback",), ("rollback", "1.0", "--json")]


def requests(asked: list[str]) -> tuple[list[str], str]:
    """Return the requests with their common ID replaced by "ID", and return this ID."""
    said = [line.partition(" prod-1 ")[2] for line in asked]
    (used,) = {found[1] for line in said if (found := re.search(r" --id ([0-9a-f]{32})$", line))}
    return [line.replace(used, "ID") for line in said], used


@pytest.mark.parametrize("words", REQUESTS, ids=" ".join)
def test_a_request_whose_connection_drops_is_followed_by_its_id_to_the_end(run: Any, words: tuple[str, ...]) -> None:
    code, asked = run("255 255 4", "prod", *words)
    assert code == 4
    follow = f"release --follow{' --json' if '--json' in words else ''} --id ID"
    assert requests(asked)[0] == [f"{' '.join(words)} --id ID", follow, follow]


@pytest.mark.parametrize("words", REQUESTS, ids=" ".join)
def test_what_the_script_asks_for_passes_the_gate(run: Any, words: tuple[str, ...]) -> None:
    _, asked = run("255 255 0", "prod", *words)
    for line in asked:
        assert gate.parse(line.partition(" prod-1 ")[2])


def test_a_request_that_started_nothing_is_refused(run: Any) -> None:
    """If the droplet refuses the request with exit code 2, the script fails and does not follow another release."""
    code, asked = run("255 2", "prod", "release", "1.0")
    assert (code, len(asked)) == (2, 2)


def test_without_any_connection_it_is_given_up_and_nothing_else_is_started(run: Any) -> None:
    code, asked = run("255 255 255 255 255 255", "prod", "release", "1.0")
    assert code == 255
    assert requests(asked)[0] == ["release 1.0 --id ID", *["release --follow --id ID"] * 5]


def test_no_two_requests_have_the_same_id(run: Any) -> None:
    assert len({requests(run("0", "prod", "release", "1.0")[1])[1] for _ in range(2)}) == 2


@pytest.mark.parametrize("words", [("release", "1.0", "--dry-run"), ("status", "--json")])
def test_a_verb_that_changes_nothing_is_not_followed(run: Any, words: tuple[str, ...]) -> None:
    code, asked = run("255", "prod", *words)
    assert (code, len(asked)) == (255, 1)


def test_a_refusal_is_final(run: Any) -> None:
    code, asked = run("2", "prod", "release", "1.0")
    assert (code, len(asked)) == (2, 1)


def test_without_a_key_no_connection_is_made(run: Any) -> None:
    assert run("0", "prod", "status", key="") == (2, [])


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `main` of verify.py with given answers from the droplet and the web."""
    program = runpy.run_path(str(ROOT / ".github/scripts/verify.py"))

    def verify(status: dict[str, Any], answer: int, *known: str) -> None:
        said = SimpleNamespace(stdout=json.dumps(status), returncode=0)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
        connection = SimpleNamespace(request=lambda *_: None, getresponse=lambda: SimpleNamespace(status=answer))
        monkeypatch.setattr(http.client, "HTTPSConnection", lambda *_, **__: connection)
        monkeypatch.chdir(ROOT)
        before = tmp_path / "before.json"
        before.write_text(json.dumps(live("1.1.0", IMAGE, *known)))
        program["main"]("staging", IMAGE, "1.2.0", DIGEST, str(before))

    return verify


def live(tag: str = "1.2.0", image: str = IMAGE, *problems: str) -> dict[str, Any]:
    release = {"tag": tag, "image": f"{image}@{DIGEST}"}
    return {"release": release, "drift": [], "stale": [], "problems": list(problems)}


def test_the_pushed_image_serves(verify: Any, capsys: pytest.CaptureFixture[str]) -> None:
    verify(live(), 403)
    assert f"staging serves 1.2.0 as {DIGEST}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (live("1.1.0"), 200, "staging serves 1.1.0 of"),
        (live("1.2.0", "ghcr.io/other/bot"), 200, f"of ghcr.io/other/bot@{DIGEST}, not 1.2.0"),
        (
            live() | {"release": {"tag": "1.2.0", "image": f"{IMAGE}@{OTHER}"}},
            200,
            f"@{OTHER}, not 1.2.0 of .*@{DIGEST}",
        ),
        (live("1.2.0", IMAGE, "worker is dead"), 200, "worker is dead"),
        (live() | {"release": None}, 200, "no release"),
        (live(), 503, "answers 503"),
    ],
)
def test_anything_else_fails(verify: Any, status: dict[str, Any], answer: int, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        verify(status, answer)


OVERDUE = "the last verified backup is of 2026-11-20 02:49 UTC: sudo stackctl backup"


def test_a_problem_from_before_is_shown_and_does_not_fail_the_release(
    verify: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(live("1.2.0", IMAGE, OVERDUE), 200, OVERDUE)
    assert OVERDUE in capsys.readouterr().out
    with pytest.raises(SystemExit, match="redis has no container"):
        verify(live("1.2.0", IMAGE, OVERDUE, "redis has no container"), 200, OVERDUE)


@pytest.mark.parametrize("kind", ["drift", "stale"])
def test_an_unhealthy_release_fails_at_its_second_try_too(verify: Any, kind: str) -> None:
    with pytest.raises(SystemExit, match="worker is dead"):
        verify(live("1.2.0", IMAGE, "worker is dead") | {kind: ["worker"]}, 200, "worker is dead")


# GitHub's runner obeys some lines of a log as commands

COMMANDS = [
    "::add-mask::x",
    "  ::error::x",
    "\t::stop-commands::x",
    "x ##[add-mask]y",
    "\x1b]0;PWNED\x07",
    "a\n::error::b",
]


def test_the_runner_would_obey_a_droplet_s_output(run: Any, tmp_path: Path) -> None:
    run("0", "staging", "status", said=("::add-mask::x",))
    assert obeyed((tmp_path / "out").read_text()) == ["::add-mask::x"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("words", [("status",), ("release", "1.2.0"), ("release", "1.2.0", "--dry-run")])
def test_a_droplet_s_output_is_no_command_to_the_runner(
    run: Any, tmp_path: Path, command: str, words: tuple[str, ...]
) -> None:
    run("0 0", "staging", *words, said=(command, command), github=True)
    log = (tmp_path / "out").read_text()
    assert command in log
    assert (tmp_path / "err").read_text() == "", (
        "the script must not use stderr, because the runner reads both streams in any order"
    )
    assert obeyed(log) == []


def test_json_stays_json(run: Any, tmp_path: Path) -> None:
    run("0", "staging", "status", "--json", said=('{"problems": ["::add-mask::x"]}',), github=True)
    assert json.loads((tmp_path / "out").read_text()) == {"problems": ["::add-mask::x"]}
    assert obeyed((tmp_path / "err").read_text()) == []


def test_no_two_runs_have_the_same_token(run: Any, tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        run("0", "staging", "status", github=True)
        tokens.add((tmp_path / "out").read_text().splitlines()[0])
    assert len(tokens) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_problem_is_shown_and_is_no_command_to_the_runner(
    verify: Any, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    verify(live("1.2.0", IMAGE, command), 200, command)
    log = capsys.readouterr().out
    assert log.replace("\n", "").isprintable()
    assert obeyed(log.replace("Problems from before the release: ", "")) == []
    for unwell in (live("1.2.0", IMAGE, command), live(command), live("1.2.0", command)):
        with pytest.raises(SystemExit) as raised:
            verify(unwell, 200)
        assert str(raised.value).replace("\n", "").isprintable()
        assert obeyed(str(raised.value)) == []
