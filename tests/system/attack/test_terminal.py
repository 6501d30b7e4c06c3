"""A hostile app sends control characters to the operator's terminal and to GitHub's runner (CWE-150)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support import environment
from tests.support.environment import ROOT, Environment
from tests.support.runner import obeyed

pytestmark = pytest.mark.group("app")

TITLE = "\x1b]0;PWNED\x07"
SHOWN = r"\x1b]0;PWNED\x07"
COMMAND = "::add-mask::PWNED"
IN_SHELL = r"\033]0;PWNED\007"


@pytest.fixture(scope="module")
def web(droplet: Host, lab: Environment) -> str:
    return f"{lab.settings.paths.docker.project(environment.status(droplet)['active'])}-web-1"


def test_a_log_line_of_the_apps(droplet: Host, web: str) -> None:
    droplet.check_output(f"docker exec {web} sh -c \"printf '{IN_SHELL}\\n{COMMAND}\\n' > /proc/1/fd/1\"")
    control = droplet.check_output(f"docker logs --tail 5 {web}")
    assert TITLE in control
    said = droplet.check_output("stackctl logs -n 5")
    assert f"{SHOWN}\n{COMMAND}" in said
    assert "\x1b" not in said


@contextmanager
def stranger(droplet: Host, lab: Environment, web: str) -> Iterator[None]:
    """Run a container with a label that has control characters and claims that the container is of the live release."""
    image = droplet.check_output(f"docker inspect -f '{{{{.Image}}}}' {web}")
    project = lab.settings.paths.docker.project(environment.status(droplet)["active"])
    labels = f"--label com.docker.compose.project={project} --label com.docker.compose.oneoff=False"
    service = f"--label \"com.docker.compose.service=$(printf '{IN_SHELL}')\""
    droplet.check_output(f"docker create --name stranger {labels} {service} {image}")
    try:
        yield
    finally:
        droplet.check_output("docker rm --force stranger")


def test_a_containers_label(droplet: Host, lab: Environment, web: str) -> None:
    """`stackctl status`, `make status` and CI's script show the label without its control characters."""
    key = Path(".lab/ci_ed25519").read_text()
    with stranger(droplet, lab, web):
        control = json.loads(droplet.run("stackctl status --json").stdout)
        assert any(TITLE in problem for problem in control["problems"]), "the JSON lacks the label's control characters"
        told = droplet.run("stackctl status").stdout
        make = [sys.executable, "-m", "pyinfra", "-y", "inventories/lab.py", "deploys/status.py"]
        made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
        ci = subprocess.run(
            [ROOT / ".github/scripts/stackctl", "lab", "status"],
            cwd=ROOT,
            env={**os.environ, "CI_KEY": key, "GITHUB_ACTIONS": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
    for screen in (told, made.stdout + made.stderr, ci.stdout):
        assert SHOWN in screen
        assert TITLE not in screen
    assert obeyed(ci.stdout + ci.stderr) == []


def test_a_tables_name_and_a_manifest(droplet: Host, lab: Environment) -> None:
    """Neither a failed nor a successful backup shows control characters from a table's name or from the manifest."""
    spelt = "".join(rf"\{ord(one):04x}" for one in TITLE)
    lab.ask_postgres(droplet, f'CREATE TABLE public.U&"{spelt}" AS SELECT 1 AS one')
    made = ""
    try:
        assert TITLE in lab.ask_postgres(droplet, "SELECT relname FROM pg_class WHERE relname LIKE '%PWNED%'")
        said = droplet.run("stackctl backup").stdout
        made = json.loads(droplet.check_output("stackctl list-backups --json"))[-1]["id"]
        manifest = f"{lab.settings.paths.backup(made)}/manifest.json"
        droplet.check_output(f"""sed -i 's/"tag": "[^"]*"/"tag": "\\\\u001b]0;PWNED\\\\u0007"/' {manifest}""")
        assert r"\u001b]0;PWNED" in droplet.check_output(f"cat {manifest}")
        for words in ("list-backups", "status", "history", f"restore {made} --to-database pwned"):
            ran = droplet.run(f"stackctl {words}")
            said += ran.stdout + ran.stderr
    finally:
        lab.ask_postgres(droplet, f'DROP TABLE public.U&"{spelt}"')
        if made:
            droplet.check_output(f"rm -rf {lab.settings.paths.backup(made)}")
    assert "\x1b" not in said
    assert "\x07" not in said
