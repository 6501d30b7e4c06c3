"""The way off the droplet: open, no wider than declared, and gone by every backup that was proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploys.secrets.rules import OPERATOR_RULES
from stackctl.core.redact import spellings
from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")


@pytest.fixture(scope="module")
def seen(droplet: Host, env: Environment) -> dict[str, Any]:
    """What stackctl finds at the storage now. It writes an object there and tries to delete it, beside the backups."""
    if not env.settings.values.offsite_repository:
        pytest.skip("this environment sends no backup off-site")
    return dict(json.loads(droplet.check_output("stackctl offsite --json")))


def test_the_droplet_s_key_may_do_what_was_declared(seen: dict[str, Any], env: Environment) -> None:
    """Where the storage has keys that only add, it must be one."""
    declared = env.settings.values.offsite_append_only
    assert (seen["powers"]["deletes"] or seen["powers"]["overwrites"]) != declared


def test_every_proven_backup_lies_there_too(seen: dict[str, Any], droplet: Host, env: Environment) -> None:
    """What a restore saved goes there with the next backup."""
    made = json.loads(droplet.check_output("stackctl backups --json"))
    proven = [one for one in made if one["verified"] and one["reason"] != "safety"]
    if not proven:
        without = pytest.fail if env.name == "lab" else pytest.skip
        without(f"no backup was proven yet: make backup ENV={env.name}")
    assert [one["id"] for one in proven if not one["offsite"]] == []
    there = {one["id"]: one["files"] for one in seen["backups"]}
    assert {one["id"]: one["files"] for one in proven}.items() <= there.items()


def test_what_leads_there_is_root_s_alone(seen: dict[str, Any], droplet: Host, env: Environment) -> None:
    access = droplet.file(str(env.settings.paths.offsite))
    assert (access.user, access.group, access.mode) == ("root", "root", 0o600)


def test_the_operator_s_own_secrets_are_nowhere_on_the_droplet(
    seen: dict[str, Any], droplet: Host, env: Environment
) -> None:
    """Or whoever breaks in could destroy the backups with them."""
    offsite = env.settings.credentials.offsite
    own, others = (
        {name: offsite[name] for name in offsite if (name in OPERATOR_RULES) == ours} for ours in (True, False)
    )
    var = str(env.settings.paths.var)
    folders = ["/etc", "/opt", "/root", "/home", "/tmp", "/usr/local", var, "/var/log", "/var/cache"]
    assert where_found(droplet, env, own, *folders) == []
    # The control: the droplet's own are found.
    assert where_found(droplet, env, others, "/etc") == [str(env.settings.paths.offsite)]


def where_found(droplet: Host, env: Environment, secrets: dict[str, str], *folders: str) -> list[str]:
    program = Path(__file__).parent / "find_secrets.py"
    needles = "\0".join(spellings(secrets.values())).encode()
    found = env.run_python(droplet, program, "all-files", *folders, stdin=needles)
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().split()
