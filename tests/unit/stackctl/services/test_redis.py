"""A dump of Redis contains nothing after the data.

No link in Redis's directory, which belongs to uid 999, misleads root.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import Result
from stackctl.services.docker import Docker
from stackctl.services.redis import FRESH, RDB, Directory, Redis, facts, loaded
from tests.support.planted import PLANTED, SECRET

DATA = b"REDIS0012...\xff\xe4\xdd\x62\xaf\xd5\x0e\xca\xfe"
AOF = "appendonlydir"


@pytest.mark.parametrize("mark", [b"", b"06e2c66bc318c5c3c8d32a4df8bf2538e8db3e362"[:40]])
@pytest.mark.parametrize("data", [DATA, DATA * 3, b""])
def test_the_marker_after_the_stream_is_not_in_the_dump(tmp_path: Path, data: bytes, mark: bytes) -> None:
    """The dump lacks the marker at the stream's end, because no append-only file can begin with a marked dump."""

    class Answering(Machine):
        def run(self, *_: object, stdout: Path | None = None, **__: object) -> Result:
            assert stdout
            stdout.write_bytes(data + mark)
            return Result(0)

    paths = Paths("bot", tmp_path)
    (paths.secrets / "redis").mkdir(parents=True)
    paths.redis_administrator.write_text("p")
    Redis(Docker(Answering()), paths).dump(tmp_path / "redis.rdb", 10)
    assert (tmp_path / "redis.rdb").read_bytes() == data


def test_a_droplet_without_a_password_of_the_administrator_is_told_how_it_gets_one(tmp_path: Path) -> None:
    """A droplet from before November 2026 may lack the password of Redis's administrator.

    The error says how to create the password.
    """
    with pytest.raises(FailedError, match=r"redis/administrator is missing\. Next: make site"):
        Redis(Docker(Machine()), Paths("bot", tmp_path)).keys()


@pytest.mark.parametrize("told", ["", "-1", "1" * 5000, "5\x1b[2J", "٣"])
def test_a_malformed_count_is_reported_in_one_line(told: str) -> None:
    with pytest.raises(FailedError, match="which is not a number"):
        loaded(facts(f"rdb_last_load_keys_loaded:{told}\r\nrdb_last_load_keys_expired:0\r\n"))


# its directory


@pytest.fixture
def rdb(tmp_path: Path) -> Path:
    """Write the dump of a backup."""
    path = tmp_path / "backups/20251123T120000.000Z/redis.rdb"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Create a directory like Redis's, with an append-only file."""
    path = tmp_path / "data/redis"
    (path / AOF).mkdir(parents=True)
    (path / AOF / "appendonly.aof.manifest").write_bytes(b"its own")
    (path / RDB).write_bytes(b"its own")
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def as_it_was(there: Path) -> bool:
    names = sorted(str(path.relative_to(there)) for path in there.rglob("*"))
    return names == [AOF, f"{AOF}/appendonly.aof.manifest", RDB] and (there / RDB).read_bytes() == b"its own"


def test_a_backups_data_takes_the_place_of_its_own_which_can_come_back(there: Path, rdb: Path) -> None:
    redis = Directory(there)
    with patch("os.fchown") as given:
        redis.place(rdb)
    (call,) = given.mock_calls
    assert call.args[1:] == (there.stat().st_uid, there.stat().st_gid)
    assert (there / RDB).read_bytes() == DATA
    assert sorted(path.name for path in there.iterdir()) == [f"{AOF}_replaced", RDB, f"{RDB}_replaced"]
    assert redis.has_former
    redis.put_back()
    assert as_it_was(there)
    redis.place(rdb)
    redis.forget_former()
    assert not redis.has_former
    assert [path.name for path in there.iterdir()] == [RDB]


@pytest.mark.parametrize("name", [FRESH, f"{RDB}_replaced", f"{AOF}_replaced", RDB, AOF, f"{FRESH}.new"])
@PLANTED
def test_a_link_of_uid_999_leads_to_no_file_of_root_s(
    there: Path, rdb: Path, outside: Path, name: str, *, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """In attack S2, a restore followed a link at dump.rdb.new, overwrote a file of the host and changed its owner."""
    with openat.directory(there.parent, there.name) as opened:
        opened.remove(name)
    plant(there / name, outside)
    redis = Directory(there)
    redis.place(rdb)
    assert ((there / RDB).read_bytes(), (there / RDB).is_symlink()) == (DATA, False)
    assert (there / RDB).stat().st_nlink == 1
    redis.put_back()
    redis.place(rdb)
    redis.forget_former()
    assert not redis.has_former
    assert sorted(path.name for path in outside.parent.iterdir()) == ["backups", "data", "outside"]
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777, outside.stat().st_uid) == (SECRET, 0o600, os.getuid())


@PLANTED
def test_a_link_or_fifo_in_a_backup_is_not_copied_to_redis(
    there: Path, rdb: Path, outside: Path, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """In attack S8, a restore followed a link and copied a file of the host, and uid 999 could read the copy."""
    rdb.unlink()
    plant(rdb, outside)
    with pytest.raises(FailedError, match=kind):
        Directory(there).place(rdb)
    assert as_it_was(there)


def test_a_directory_that_is_a_link_is_not_entered(there: Path, rdb: Path, outside: Path) -> None:
    there.rename(there.with_name("moved"))
    there.symlink_to(outside.parent)
    for act in (lambda one: one.place(rdb), Directory.put_back, Directory.forget_former, lambda one: one.has_former):
        with pytest.raises(FailedError, match="data/redis is a symbolic link, not a directory"):
            act(Directory(there))


def test_a_link_laid_while_it_is_copied_is_refused(
    there: Path, rdb: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that appears between the removal of the old file and the creation of the new file is refused."""
    real = openat.Directory.remove

    def remove(self: openat.Directory, name: str) -> None:
        real(self, name)
        if name == FRESH:
            (there / FRESH).symlink_to(outside)

    monkeypatch.setattr(openat.Directory, "remove", remove)
    with pytest.raises(FileExistsError):
        Directory(there).place(rdb)
    assert outside.read_bytes() == SECRET
    (there / FRESH).unlink()
    assert as_it_was(there)


@pytest.mark.usefixtures("swept")
def test_no_tree_is_too_deep_to_be_forgotten(there: Path, rdb: Path) -> None:
    """A tree of any depth is removed. shutil.rmtree fails at a thousand levels, so each restore would fail."""
    here = os.open(there, os.O_RDONLY)
    os.mkdir(f"{AOF}_replaced", dir_fd=here)
    name = f"{AOF}_replaced"
    for _ in range(2000):
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, name = below, "d"
        os.mkdir(name, dir_fd=here)
    os.close(here)
    Directory(there).forget_former()
    assert as_it_was(there)
