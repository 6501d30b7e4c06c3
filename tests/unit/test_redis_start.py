"""The tests run files/data_services/redis-start without Redis, in a temporary directory instead of /data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploys import build

BASE = "appendonlydir/appendonly.aof.1.base.rdb"


def start(data: Path, append_only: str) -> None:
    script = build.file("data_services/redis-start").decode()
    assert script.count("\ncd /data\n") == 1
    assert script.count("\nexec ") == 1
    script = script.replace("cd /data", f"cd {data}").partition("\nexec ")[0]
    subprocess.run(["sh", "-c", script, "start", append_only], check=True, timeout=10)


def test_a_dump_becomes_the_append_only_file_s_base(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS")
    start(tmp_path, "yes")
    assert (tmp_path / BASE).read_bytes() == b"REDIS"
    start(tmp_path, "yes")
    os.utime(tmp_path / "dump.rdb", (2**31, 2**31))
    start(tmp_path, "no")
    assert [path.name for path in tmp_path.iterdir()] == ["dump.rdb"]


@pytest.mark.parametrize(
    "plant",
    [lambda path, other: path.symlink_to(other), lambda path, _: os.mkfifo(path), lambda path, _: path.mkdir()],
    ids=["link", "fifo", "directory"],
)
def test_root_does_not_read_a_dump_that_is_no_regular_file(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """The container's root must not follow a link to a secret and copy the secret to a file that uid 999 can read."""
    data, other = tmp_path / "data", tmp_path / "secret"
    data.mkdir()
    other.write_bytes(b"SECRET")
    plant(data / "dump.rdb", other)
    start(data, "yes")
    assert [path.name for path in data.iterdir()] == ["dump.rdb"]


def test_a_link_instead_of_the_append_only_directory_is_not_followed(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    (data / "dump.rdb").write_bytes(b"REDIS")
    (data / "appendonlydir").symlink_to(elsewhere)
    (data / "appendonlydir.new").symlink_to(elsewhere)
    start(data, "yes")
    assert list(elsewhere.iterdir()) == []
    start(data, "no")
    assert elsewhere.is_dir()
