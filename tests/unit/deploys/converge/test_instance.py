"""A converge records which droplet it converged, and is refused on a copy until a person decides what the copy is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest
from pyinfra.api import Host
from pyinfra.api.exceptions import PyinfraError

from deploys.components.stackctl import stackctl_config
from deploys.config.settings import Settings
from deploys.converge.instance import check_copy, with_instance_of
from deploys.facts.machine import InstanceId
from deploys.facts.stackctl import RecordedInstanceId
from stackctl.core import records
from stackctl.core.config import VERSION, Config
from tests.support.settings import settings_of

ORIGINAL, ANOTHER = "512345678", "598765432"


def on(recorded: str | None, present: str | None, isolated: bool | None = None) -> tuple[Host, Settings]:  # noqa: FBT001
    """Return a host and its settings, for a droplet with these instance IDs."""
    facts = {InstanceId: present, RecordedInstanceId: recorded}
    host = cast("Host", SimpleNamespace(name="prod-1", get_fact=lambda fact, **_: facts[fact]))
    return host, with_instance_of(host, settings_of("prod", {"isolated": isolated}))


@pytest.mark.parametrize(
    ("recorded", "present", "becomes", "is_copy"),
    [
        (None, None, None, False),
        (None, ORIGINAL, ORIGINAL, False),
        (ORIGINAL, ORIGINAL, ORIGINAL, False),
        (ORIGINAL, None, ORIGINAL, False),
        (ORIGINAL, ANOTHER, ANOTHER, True),
    ],
)
def test_a_converge_records_the_present_droplet(
    recorded: str | None, present: str | None, becomes: str | None, *, is_copy: bool
) -> None:
    _, settings = on(recorded, present)
    assert (settings.instance_id, settings.is_copy) == (becomes, is_copy)
    written = records.loads(Config, stackctl_config(settings, ["app"]), version=VERSION)
    assert written.instance_id == becomes


def test_an_ordinary_converge_of_a_copy_is_refused() -> None:
    with pytest.raises(PyinfraError) as refused:
        check_copy(*on(ORIGINAL, ANOTHER))
    assert str(refused.value) == (
        "Cannot converge prod-1: this droplet was made from an image of another droplet, so the app does not run here. "
        "Nothing was changed. Next: make isolate to look at the copy's data, or make promote if this droplet replaces "
        "the original"
    )


@pytest.mark.parametrize("isolated", [True, False])
def test_isolate_and_promote_accept_a_copy(*, isolated: bool) -> None:
    check_copy(*on(ORIGINAL, ANOTHER, isolated))


@pytest.mark.parametrize("present", [ORIGINAL, None])
@pytest.mark.parametrize("recorded", [ORIGINAL, None])
def test_every_other_droplet_is_let_through(recorded: str | None, present: str | None) -> None:
    check_copy(*on(recorded, present))


def test_a_configuration_of_an_earlier_version_is_read() -> None:
    document = json.loads(stackctl_config(settings_of("prod"), ["app"]))
    del document["instance_id"]
    assert records.loads(Config, json.dumps(document), version=VERSION).instance_id is None
