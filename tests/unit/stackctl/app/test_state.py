"""stackctl reads from `state.json` exactly what stackctl wrote. This file determines the live release."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackctl.app import state
from stackctl.app.state import Release, Revision, State, Webhook
from stackctl.core import names
from stackctl.core.errors import FailedError
from stackctl.core.paths import COLOURS, Paths

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TAGS = st.from_regex(re.compile(names.TAG, re.ASCII), fullmatch=True)
RELEASES = st.builds(Release, TEXT, TAGS, TEXT, TEXT, st.none() | TEXT, TEXT)
COLOUR = st.none() | RELEASES
STATES = st.builds(
    State,
    st.sampled_from([None, *COLOURS]),
    COLOUR,
    st.booleans(),
    st.fixed_dictionaries(dict.fromkeys(COLOURS, COLOUR)),
    st.lists(RELEASES, max_size=3).map(tuple),
    st.lists(st.builds(Revision, TEXT, TEXT), max_size=3).map(tuple),
    st.none() | st.builds(Webhook, TEXT, TEXT),
)
LIVE = Release("20251123T120000Z", "1.0.0", "r@sha256:1", "e", None, "2025-11-23T12:00:00+00:00")


@settings(max_examples=50)
@given(STATES)
def test_a_state_comes_back_as_it_was(before: State) -> None:
    assert State.from_json(before.to_json()) == before


def test_the_state_has_the_contracts_shape() -> None:
    document = json.loads(State(active="blue").with_colour("blue", LIVE).to_json())
    assert document == {
        "version": 1,
        "active": "blue",
        "worker": None,
        "maintenance": False,
        "colours": {
            "blue": {
                **{"id": "20251123T120000Z", "tag": "1.0.0", "image": "r@sha256:1", "env_sha256": "e", "schema": None},
                "since": "2025-11-23T12:00:00+00:00",
            },
            "green": None,
        },
        "kept": [],
        "revisions": [],
        "webhook": None,
        "left": [],
    }


def test_a_state_of_before_rollbacks_were_remembered_still_loads() -> None:
    before = State(active="blue", worker=LIVE, kept=(LIVE,)).with_colour("blue", LIVE)
    document = json.loads(before.to_json())
    del document["left"]
    assert State.from_json(json.dumps(document)) == before


def test_a_state_of_before_releases_were_kept_still_loads() -> None:
    before = State(active="blue", worker=LIVE).with_colour("blue", LIVE)
    document = json.loads(before.to_json())
    for key in ("kept", "revisions", "webhook"):
        del document[key]
    assert State.from_json(json.dumps(document)) == before


KINDS_OF_RELEASE = st.tuples(*[st.sampled_from("ab")] * 3)
"""The tag, the image and the app environment of a release."""


@settings(max_examples=50)
@given(STATES, st.lists(KINDS_OF_RELEASE, min_size=1, max_size=12), st.integers(1, 3))
def test_a_live_release_is_kept_once_and_first(before: State, served: list[tuple[str, str, str]], most: int) -> None:
    """A new release replaces a kept one that differs only in its ID and time."""
    after = replace(before, kept=())
    for number, (tag, image, env) in enumerate(served):
        release = replace(LIVE, id=str(number), tag=tag, image=image, env_sha256=env, since=str(number))
        after = after.serving("green", release, most)
    newest_first = list(dict.fromkeys(reversed(served)))
    assert [(known.tag, known.image, known.env_sha256) for known in after.kept] == newest_first[:most]
    assert [int(known.id) for known in after.kept] == sorted((int(known.id) for known in after.kept), reverse=True)
    assert after.kept[0].id == str(len(served) - 1)
    assert (after.release, after.active) == (after.kept[0], "green")
    assert (after.colours["blue"], after.worker) == (before.colours["blue"], before.worker)


def test_the_recorded_colour_is_the_colour_of_what_was_recorded_last() -> None:
    """Between a release's flip and its end, the active colour differs from the recorded colour."""
    recorded = State().serving("blue", LIVE, 3)
    assert (State(active="blue").recorded_colour, recorded.recorded_colour) == (None, "blue")
    during = replace(recorded.with_colour("green", replace(LIVE, id="later")), active="green")
    assert during.recorded_colour == "blue"
    assert during.serving("green", replace(LIVE, id="later", tag="1.1.0"), 3).recorded_colour == "green"
    assert recorded.with_colour("blue", None).recorded_colour is None


def test_maintenance_is_whether_nginx_finds_the_flag(paths: Paths) -> None:
    state.save(paths, State(maintenance=True))
    assert not state.load(paths).maintenance
    paths.maintenance.touch()
    assert state.load(paths).maintenance


def test_the_link_is_the_truth(paths: Paths) -> None:
    state.save(paths, State(active="blue").with_colour("blue", LIVE))
    assert state.load(paths).active is None
    state.activate(paths, "green")
    assert state.load(paths).active == "green"
    assert paths.active.readlink() == Path("green.sock")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"version": 2}', State().to_json().replace("null", "7")),
        *(State().to_json().replace(f'"{key}": []', f'"{key}": [7]') for key in ("kept", "revisions")),
        State().to_json().replace('"webhook": null', '"webhook": {"url": "x"}'),
        State().to_json().replace('"blue"', '"red"'),
        State().to_json().replace('"left"', '"lost"'),
    ],
)
def test_a_broken_state_says_so(paths: Paths, content: str) -> None:
    paths.state.write_text(content)
    with pytest.raises(FailedError, match=r"state\.json can't be read"):
        state.load(paths)


def test_a_link_to_no_socket_says_so(paths: Paths) -> None:
    paths.active.symlink_to("elsewhere")
    with pytest.raises(FailedError, match="neither the blue nor the green socket"):
        state.load(paths)
