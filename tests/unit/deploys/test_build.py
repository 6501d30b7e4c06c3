"""The same input gives the same bytes, so a converge from another clone changes nothing."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from deploys import build
from deploys.components import app
from tests.support.settings import settings_of


def test_the_zipapp_does_not_depend_on_file_times() -> None:
    before = build.stackctl("toogoodtogo")
    for path in Path("stackctl").rglob("*.py"):
        os.utime(path)
    assert build.stackctl("toogoodtogo") == before


def test_the_zipapp_runs_by_itself(tmp_path: Path) -> None:
    program = tmp_path / "stackctl"
    program.write_bytes(build.stackctl("toogoodtogo"))
    run = subprocess.run([sys.executable, "-I", program, "--help"], capture_output=True, text=True, check=True)
    assert "release" in run.stdout


def test_the_zipapp_holds_the_apps_name_and_nothing_but_source() -> None:
    bundle = zipfile.ZipFile(io.BytesIO(build.stackctl("another")))
    assert b'main(app="another")' in bundle.read("__main__.py")
    assert all(name.endswith(".py") for name in bundle.namelist())


def test_the_worker_is_described_where_there_is_one() -> None:
    assert [path.name for path in app.compose_files(settings_of("prod"))] == ["app.yaml", "worker.yaml"]
    assert [path.name for path in app.compose_files(settings_of("prod", {"app_worker": False}))] == ["app.yaml"]


def test_compose_files_have_the_environment_s_names_and_no_value() -> None:
    settings = settings_of("prod", database_password="a-password", redis_password="another-one")
    for content in app.compose_files(settings).values():
        for name, value in settings.app_environment().items():
            assert f"\n    {name}:\n".encode() in content
            assert len(value) < 4 or value.encode() not in content
        assert b"\n    TELEGRAM_WEBHOOK_SECRET_PREVIOUS:\n" in content


def test_migrations_alone_wait_for_no_lock_that_the_live_release_would_wait_behind() -> None:
    content = app.compose_files(settings_of("prod"))[settings_of("prod").paths.app_yaml]
    before, migrate = content.split(b"\n  migrate:\n")
    assert b"\n      PGOPTIONS: -c lock_timeout=5s " in migrate
    assert b"lock_timeout" not in before


def test_without_telegram_its_names_are_not_in_the_compose_files() -> None:
    without: dict[str, Any] = {"webhook_path": None, "app_environment": {}}
    assert all(b"TELEGRAM" not in content for content in app.compose_files(settings_of("prod", without)).values())


def test_a_template_without_its_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        build.template("base/journald.conf.j2")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_different_inputs_have_different_fingerprints(one: list[bytes], other: list[bytes]) -> None:
    assert (build.fingerprint(*one) == build.fingerprint(*other)) == (one == other)


def test_an_app_that_writes_elsewhere_may() -> None:
    for read_only in (True, False):
        described = app.compose_files(settings_of("lab", {"app_read_only": read_only}))
        assert [b"read_only: true" in content for content in described.values()] == [read_only] * 2
