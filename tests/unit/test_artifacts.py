"""The same input gives the same bytes: a clone of tomorrow sees no drift."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from deploys import artifacts


def test_the_zipapp_does_not_depend_on_file_times() -> None:
    before = artifacts.stackctl("toogoodtogo")
    for path in Path("files/stackctl/stackctl").glob("*.py"):
        os.utime(path)
    assert artifacts.stackctl("toogoodtogo") == before


def test_the_zipapp_runs_by_itself(tmp_path: Path) -> None:
    program = tmp_path / "stackctl"
    program.write_bytes(artifacts.stackctl("toogoodtogo"))
    run = subprocess.run([sys.executable, "-I", program, "--help"], capture_output=True, text=True, check=True)
    assert "release" in run.stdout


def test_the_zipapp_holds_the_apps_name_and_nothing_but_source() -> None:
    bundle = zipfile.ZipFile(io.BytesIO(artifacts.stackctl("another")))
    assert b'main(app="another")' in bundle.read("__main__.py")
    assert all(name.endswith(".py") for name in bundle.namelist())


def test_a_template_without_its_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        artifacts.template("base/journald.conf.j2")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_different_inputs_have_different_fingerprints(one: list[bytes], other: list[bytes]) -> None:
    assert (artifacts.fingerprint(*one) == artifacts.fingerprint(*other)) == (one == other)
