"""A skipped test, for use by test_guards.py. pytest collects this module only if the command line names it."""

import pytest


@pytest.mark.skip(reason="for test_guards.py")
def test_left_out() -> None:
    raise AssertionError
