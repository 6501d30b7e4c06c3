"""Redis's dump: the data, and nothing behind it."""

from pathlib import Path

import pytest
from stackctl.docker import Docker
from stackctl.machine import Machine, Result
from stackctl.paths import Paths
from stackctl.redis import Redis

DATA = b"REDIS0012...\xff\xe4\xdd\x62\xaf\xd5\x0e\xca\xfe"


@pytest.mark.parametrize("mark", [b"", b"06e2c66bc318c5c3c8d32a4df8bf2538e8db3e362"[:40]])
@pytest.mark.parametrize("data", [DATA, DATA * 3, b""])
def test_the_mark_behind_a_stream_is_no_part_of_the_dump(tmp_path: Path, data: bytes, mark: bytes) -> None:
    """An append-only file can't begin with it."""

    class Answering(Machine):
        def run(self, *_: object, stdout: Path | None = None, **__: object) -> Result:
            assert stdout
            stdout.write_bytes(data + mark)
            return Result(0)

    paths = Paths("bot", tmp_path)
    (paths.secrets / "redis").mkdir(parents=True)
    (paths.secrets / "redis/password").write_text("p")
    Redis(Docker(Answering()), paths).dump(tmp_path / "redis.rdb", 10)
    assert (tmp_path / "redis.rdb").read_bytes() == data
