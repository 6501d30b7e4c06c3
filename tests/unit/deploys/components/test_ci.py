"""A droplet has both CI's keys and CI's account, or has neither."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploys import build
from deploys.config.keys import read_ci_keys
from deploys.config.values import SettingsError
from deploys.facts.accounts import SystemAccount, SystemUser
from deploys.facts.files import FileState
from deploys.operations.accounts import sudoers, system_user
from tests.support.environment import ROOT
from tests.support.operations import commands
from tests.support.settings import data_of

KEY = f"ssh-ed25519 {'A' * 68} CI"
OTHER = f"ssh-ed25519 {'B' * 68} another"
THERE = SystemAccount("/home/ci", "/bin/sh", frozenset({"ci"}))


def read(tmp_path: Path, content: str, operators: str = OTHER) -> tuple[str, ...]:
    path = tmp_path / "keys"
    path.write_text(content)
    return read_ci_keys(str(path), operators.encode())


def test_no_file_named_no_keys() -> None:
    assert read_ci_keys(None, KEY.encode()) == ()


def test_keys_without_comments_and_empty_lines(tmp_path: Path) -> None:
    assert read(tmp_path, f"# CI's\n\n{KEY}\n") == (KEY,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no key"),
        ("# none yet\n", "has no key"),
        (f'command="bash" {KEY}\n', "key 1 is malformed"),
        (f"{KEY}\nrubbish\n", "key 2 is malformed"),
        (f"{OTHER}\n", "an operator's key"),
    ],
)
def test_keys_that_would_open_nothing_or_too_much_are_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, content)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ci_authorized_keys: .*nowhere"):
        read_ci_keys(str(tmp_path / "nowhere"), b"")


def test_every_key_is_behind_the_gate() -> None:
    lines = build.template("ci/authorized_keys.j2", keys=(KEY, OTHER)).decode().splitlines()
    keys = [line for line in lines if not line.startswith("#")]
    forced = r'restrict,command="sudo -n /usr/local/bin/stackctl gate -- \"$SSH_ORIGINAL_COMMAND\"" '
    assert keys == [f"{forced}{KEY}", f"{forced}{OTHER}"]


def test_what_sudo_allows_is_what_the_forced_command_runs() -> None:
    (rule,) = [line for line in build.file("ci/sudoers").decode().splitlines() if line.startswith("ci ")]
    assert rule == "ci ALL=(root) NOPASSWD: /usr/local/bin/stackctl gate -- *"


@pytest.mark.parametrize("place", ["staging", "prod"])
def test_by_default_there_is_no_ci(place: str) -> None:
    assert read_ci_keys(data_of(place)["ci_authorized_keys"], KEY.encode()) == ()


def account(there: Any) -> list[str]:
    return commands(system_user, {SystemUser: there}, login="ci", home="/home/ci")


def test_an_account_as_declared_is_left_alone() -> None:
    assert account(THERE) == []


def test_an_account_is_made_without_a_password_or_a_home_of_its_own() -> None:
    assert account(None) == ["useradd --system --no-create-home --shell /bin/sh -d /home/ci ci"]


@pytest.mark.parametrize(
    "difference", [{"home": "/tmp"}, {"shell": "/bin/bash"}, {"groups": frozenset({"ci", "sudo"})}]
)
def test_an_account_that_differs_is_mended(difference: dict[str, Any]) -> None:
    assert account(THERE._replace(**difference)) == ["usermod --groups '' --shell /bin/sh -d /home/ci ci"]


def test_an_account_is_read_as_the_droplet_tells_it() -> None:
    told = ["ci:x:993:993::/home/ci:/bin/sh", "ci docker"]
    assert SystemUser().process(told) == SystemAccount("/home/ci", "/bin/sh", frozenset({"ci", "docker"}))
    assert SystemUser().process([]) is None


def test_an_account_is_removed_once() -> None:
    assert commands(system_user, {SystemUser: THERE}, login="ci", home="/home/ci", present=False) == [
        "userdel --force ci"
    ]
    assert commands(system_user, {SystemUser: None}, login="ci", home="/home/ci", present=False) == []


def test_sudoers_are_checked_before_they_are_placed() -> None:
    (write,) = commands(sudoers, {FileState: None}, login="ci", content=b"x\n")
    check, placed = (
        "visudo --check --strict --file=/etc/sudoers.d/ci.new",
        "mv -fT /etc/sudoers.d/ci.new /etc/sudoers.d/ci",
    )
    assert 0 < write.index(check) < write.index(placed)
    assert " 440 " in write


def test_sudoers_as_declared_are_left_alone() -> None:
    content = build.file("ci/sudoers")
    placed = {"mode": "440", "owner": "root", "group": "root", "sha256": sha256(content).hexdigest()}
    assert commands(sudoers, {FileState: placed}, login="ci", content=content) == []


WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text()
EXAMPLE = (ROOT / "docs/examples/release.yml").read_text()


def test_both_environments_release_what_the_build_pushed() -> None:
    """The workflow passes the digest to both `staging` and `prod`.

    The output of one droplet never decides which image another droplet runs.
    """
    released = re.findall(r"scripts/stackctl (\S+) release (\S+)", WORKFLOW)
    assert released == [(place, '"$TAG@$DIGEST"') for place in ("staging", "staging", "prod", "prod")]
    assert re.findall(r"^ +DIGEST: (.*)$", WORKFLOW, re.MULTILINE) == ["${{ inputs.digest }}"]
    assert "outputs" not in WORKFLOW
    assert "GITHUB_OUTPUT" not in WORKFLOW
    assert re.search(
        r"^      digest:\n        description: .*\n        type: string\n        required: true$", WORKFLOW, re.M
    )
    for place in ("staging", "prod"):
        assert f'verify.py {place} "$IMAGE" "$TAG" "$DIGEST" before.json' in WORKFLOW


def test_the_example_hands_on_the_digest_of_its_build() -> None:
    assert "--metadata-file build.json" in EXAMPLE
    assert """jq --exit-status --raw-output '."containerimage.digest"' build.json""" in EXAMPLE
    assert "digest: ${{ steps.build.outputs.digest }}" in EXAMPLE
    assert "digest: ${{ needs.image.outputs.digest }}" in EXAMPLE


def test_the_nightly_plan_shows_lines_of_a_droplet_that_the_runner_does_not_obey() -> None:
    plan = (ROOT / ".github/workflows/nightly.yml").read_text().partition("id: plan")[2]
    steps = ["exec 2>&1", "::stop-commands::$token", "deploys.converge.plan"]
    assert sorted(steps, key=plan.index) == steps
    assert r'printf "\n::%s::\n" "$token"' in plan


CHANGE = {"prod-1": ["Configure nginx"]}
FOREIGN = {"prod-1": ["/etc/cron.d/x: cron runs it. Next: make site REMOVE=/etc/cron.d/x"]}


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed; GitHub's machines have it")
@pytest.mark.parametrize(
    ("hosts", "foreign", "told"),
    [
        (CHANGE, {}, ["would change, as of RUN:", "**prod-1**", "- Configure nginx"]),
        (
            {},
            FOREIGN,
            ["would change nothing, as of RUN.", "Foreign (declared by nobody) on **prod-1**:", "- /etc"],
        ),
        (
            CHANGE,
            FOREIGN,
            ["would change, as of RUN:", "- Configure nginx", "Foreign (declared by", "- /etc/cron.d/x"],
        ),
    ],
)
def test_the_drift_issue_says_whether_a_converge_would_change_anything(
    tmp_path: Path, hosts: dict[str, list[str]], foreign: dict[str, list[str]], told: list[str]
) -> None:
    report = (ROOT / ".github/workflows/nightly.yml").read_text().partition("Open, update or close the issue")[2]
    script = report.partition("run: |\n")[2].partition("        env:\n")[0]
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\n")
    gh.chmod(0o755)
    plan = json.dumps({"hosts": hosts, "changed": len(hosts), "foreign": foreign})
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLAN": plan, "RUN": "RUN"}
    subprocess.run(["bash", "-eu", "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment, check=True)
    body = (tmp_path / "body.md").read_text()
    assert sorted(told, key=body.index) == told
    assert ("Foreign" in body) == bool(foreign)


def test_without_a_lab_the_checks_name_what_they_leave_out() -> None:
    checks = (ROOT / ".github/workflows/checks.yml").read_text()
    assert "name: unit (tests only the text of templates" in checks
    assert "LAB_RUNNER)" in checks
