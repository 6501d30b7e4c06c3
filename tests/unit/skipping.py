"""A skipped test for test_guards.py. pytest collects this module only by its name."""

import pytest


@pytest.mark.skip(reason="for test_guards.py")
def test_left_out() -> None:
    raise AssertionError
