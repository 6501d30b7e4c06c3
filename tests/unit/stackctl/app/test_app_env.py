"""stackctl reads an app environment exactly as the converge wrote it, and refuses faulty values by name."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackctl.app import app_env
from stackctl.core import durable
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import ENVIRONMENT

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda name: not app_env.problem({name: ""}))
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=5)


@settings(max_examples=50)
@given(ENVIRONMENTS)
def test_an_environment_survives_byte_for_byte(before: dict[str, str]) -> None:
    spelt = app_env.canonical(before)
    assert json.loads(spelt) == before
    assert app_env.canonical(dict(reversed(before.items()))) == spelt


@settings(max_examples=50)
@given(ENVIRONMENTS, ENVIRONMENTS)
def test_only_equal_environments_have_equal_fingerprints(one: dict[str, str], other: dict[str, str]) -> None:
    assert (app_env.env_sha256(one) == app_env.env_sha256(other)) == (one == other)


def test_an_environment_is_loaded_from_where_it_was_written(paths: Paths) -> None:
    values = {"A": "spaces $ # ' \" % \\ ü\n"}
    durable.write(paths.next_environment, app_env.canonical(values))
    assert app_env.load(paths.next_environment) == values


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([], "must be an object"),
        ({"A B": ""}, "'A B' is not a valid name"),
        ({"A=": ""}, "'A=' is not a valid name"),
        ({"": ""}, "'' is not a valid name"),
        ({"COMPOSE_FILE": "s3cret"}, "COMPOSE_FILE would configure docker"),
        ({"DOCKER_HOST": "s3cret"}, "DOCKER_HOST would configure docker"),
        ({"STACK_IMAGE": "s3cret"}, "STACK_IMAGE would configure docker"),
        ({"LD_PRELOAD": "s3cret"}, "LD_PRELOAD would configure docker"),
        ({"PATH": "s3cret"}, "PATH would configure docker"),
        ({"A": 1}, "A must be text"),
        ({"A": "s3cret\0"}, "A has characters"),
        ({"A": "s3cret\ud800"}, "A has characters"),
        (
            {"A": "s3cret" + "ü" * app_env.LONGEST},
            f"A is too long, because name and value may have at most {32 * 4096} bytes",
        ),
    ],
)
def test_a_value_that_no_app_can_have_is_refused_by_name(paths: Paths, values: Any, fault: str) -> None:
    paths.next_environment.write_text(json.dumps(values))
    with pytest.raises(RefusedError, match=fault) as refused:
        app_env.load(paths.next_environment)
    assert "s3cret" not in str(refused.value)


def test_the_longest_value_that_is_taken_is_the_longest_that_linux_takes() -> None:
    """The limit for a value is MAX_ARG_STRLEN, from execve(2)."""
    longest = "x" * (app_env.LONGEST - len("A=") - 1)
    assert app_env.problem({"A": longest}) is None
    assert Machine().run(["true"], env={"A": longest, **ENVIRONMENT}).code == 0
    assert app_env.problem({"A": f"{longest}x"})
    with pytest.raises(
        FailedError, match=r"too large [(]execve[(]2[)][)]\. The largest variable is A\. Next: shorten A"
    ):
        Machine().run(["true"], env={"A": f"{longest}x", **ENVIRONMENT})
