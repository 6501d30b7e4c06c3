"""The off-site storage is reachable, grants the declared permissions only and has every verified backup."""

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
    """Return stackctl's report on the storage. stackctl writes an object beside the backups and tries to delete it."""
    if not env.settings.values.offsite_repository:
        pytest.skip("this environment sends no backup off-site")
    return dict(json.loads(droplet.check_output("stackctl check-offsite --json")))


def test_the_droplet_s_key_has_the_declared_permissions(seen: dict[str, Any], env: Environment) -> None:
    """If the storage has append-only keys, the droplet must use such a key."""
    declared = env.settings.values.offsite_append_only
    assert (seen["powers"]["deletes"] or seen["powers"]["overwrites"]) != declared


def test_every_verified_backup_is_off_site(seen: dict[str, Any], droplet: Host, env: Environment) -> None:
    """A pre-restore backup is uploaded with the next backup."""
    made = json.loads(droplet.check_output("stackctl list-backups --json"))
    proven = [one for one in made if one["verified"] and one["reason"] != "safety"]
    if not proven:
        without = pytest.fail if env.in_lab else pytest.skip
        without(f"no backup is verified yet. Next: make backup ENV={env.name}")
    assert [one["id"] for one in proven if not one["offsite"]] == []
    there = {one["id"]: one["files"] for one in seen["backups"]}
    assert {one["id"]: one["files"] for one in proven}.items() <= there.items()


def test_only_root_can_read_the_off_site_credentials(seen: dict[str, Any], droplet: Host, env: Environment) -> None:
    access = droplet.file(str(env.settings.paths.offsite))
    assert (access.user, access.group, access.mode) == ("root", "root", 0o600)


def test_the_operator_s_secrets_are_nowhere_on_the_droplet(
    seen: dict[str, Any], droplet: Host, env: Environment
) -> None:
    """With the operator's secrets, an intruder could destroy the backups."""
    offsite = env.settings.credentials.offsite
    own, others = (
        {name: offsite[name] for name in offsite if (name in OPERATOR_RULES) == ours} for ours in (True, False)
    )
    var = str(env.settings.paths.var)
    folders = ["/etc", "/opt", "/root", "/home", "/tmp", "/usr/local", var, "/var/log", "/var/cache"]
    assert where_found(droplet, env, own, *folders) == []
    # Control: the search finds the droplet's secrets.
    assert where_found(droplet, env, others, "/etc") == [str(env.settings.paths.offsite)]


def where_found(droplet: Host, env: Environment, secrets: dict[str, str], *folders: str) -> list[str]:
    program = Path(__file__).parent / "find_secrets.py"
    needles = "\0".join(spellings(secrets.values())).encode()
    found = env.run_python(droplet, program, "all-files", *folders, stdin=needles)
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().split()
