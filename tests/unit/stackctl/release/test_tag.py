"""stackctl accepts only well-formed tags."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.core.errors import RefusedError
from stackctl.core.paths import other
from stackctl.release import release
from tests.support.fakes.droplet import Droplet, stackctl

WORD = string.ascii_letters + string.digits + "_"


@given(st.sampled_from(WORD), st.text(WORD + ".-", max_size=127))
def test_docker_tags_are_accepted(first: str, rest: str) -> None:
    assert release.parse(first + rest) == (first + rest, None)


@given(st.text().filter(lambda tag: not re.fullmatch(r"(?a:\w)[\w.-]{0,127}", tag, re.ASCII)))
def test_anything_else_is_refused(tag: str) -> None:
    with pytest.raises(RefusedError):
        release.parse(tag)


@pytest.mark.parametrize("tag", ["1.0.0\n", "a" * 129, "-x", ".x", "x:y", "x@sha256", "ü", ""])
def test_a_bad_tag_is_refused_before_anything_is_looked_at(fresh: Droplet, tag: str) -> None:
    assert stackctl(fresh, "release", "--", tag)[0] == 2
    assert not fresh.ran("docker ")


def test_other() -> None:
    assert (other("blue"), other("green")) == ("green", "blue")
