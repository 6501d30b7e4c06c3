"""The way off the droplet: open, no wider than declared, and gone by every backup that was proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploys.secrets.rules import OPERATOR_RULES
from stackctl.core.redact import spellings
from tests.support.environment import Place

pytestmark = pytest.mark.group("data")


@pytest.fixture(scope="module")
def seen(droplet: Host, place: Place) -> dict[str, Any]:
    """What stackctl finds at the storage now. It writes an object there and tries to delete it, beside the backups."""
    if not place.settings.values.offsite_repository:
        pytest.skip("no backup goes off this place's droplet")
    return dict(json.loads(droplet.check_output("stackctl offsite --json")))


def test_the_droplet_s_key_may_do_what_was_declared(seen: dict[str, Any], place: Place) -> None:
    """Where the storage has keys that only add, it must be one."""
    declared = place.settings.values.offsite_append_only
    assert (seen["powers"]["deletes"] or seen["powers"]["overwrites"]) != declared


def test_every_proven_backup_lies_there_too(seen: dict[str, Any], droplet: Host, place: Place) -> None:
    """What a restore saved goes there with the next backup."""
    made = json.loads(droplet.check_output("stackctl backups --json"))
    proven = [one for one in made if one["verified"] and one["reason"] != "safety"]
    if not proven:
        without = pytest.fail if place.name == "lab" else pytest.skip
        without(f"no backup was proven yet: make backup ENV={place.name}")
    assert [one["id"] for one in proven if not one["offsite"]] == []
    there = {one["id"]: one["files"] for one in seen["backups"]}
    assert {one["id"]: one["files"] for one in proven}.items() <= there.items()


def test_what_leads_there_is_root_s_alone(seen: dict[str, Any], droplet: Host, place: Place) -> None:
    access = droplet.file(str(place.settings.paths.offsite))
    assert (access.user, access.group, access.mode) == ("root", "root", 0o600)


def test_the_operator_s_own_secrets_are_nowhere_on_the_droplet(
    seen: dict[str, Any], droplet: Host, place: Place
) -> None:
    """Or whoever breaks in could destroy the backups with them."""
    offsite = place.settings.credentials.offsite
    own, others = (
        {name: offsite[name] for name in offsite if (name in OPERATOR_RULES) == ours} for ours in (True, False)
    )
    var = str(place.settings.paths.var)
    folders = ["/etc", "/opt", "/root", "/home", "/tmp", "/usr/local", var, "/var/log", "/var/cache"]
    assert where_found(droplet, place, own, *folders) == []
    # The control: the droplet's own are found.
    assert where_found(droplet, place, others, "/etc") == [str(place.settings.paths.offsite)]


def where_found(droplet: Host, place: Place, secrets: dict[str, str], *folders: str) -> list[str]:
    program = Path(__file__).parent / "find_secrets.py"
    needles = "\0".join(spellings(secrets.values())).encode()
    found = place.run_python(droplet, program, "all-files", *folders, stdin=needles)
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().split()
