"""stackctl verifies backups, even backups in which a constraint rejects rows of the dump."""

import time
from pathlib import Path
from typing import Any

import pytest

from stackctl.backup import create, manifest, prune, verify
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import download
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from tests.support.backups import ENDED, Sent, every, leftovers, problems, proven, stack_of
from tests.support.fakes.droplet import Droplet, change, installed, stackctl
from tests.support.fakes.kills import kills
from tests.support.fakes.postgres import Postgres


@pytest.fixture
def odd(live: Droplet) -> Droplet:
    """Give the live database a table whose constraint rejects the table's own rows during a restore."""
    live.postgres.unloadable = {"public.offers": True}
    return live


def unproven(droplet: Droplet) -> list[Manifest]:
    return [one for one in every(droplet) if one.unproven]


def test_a_schema_that_does_not_restore_in_one_go_keeps_its_dump_and_says_so(odd: Droplet, storage: Sent) -> None:
    code, shown = stackctl(odd, "backup", "--nightly")
    (kept,) = unproven(odd)
    assert (code, kept.verified, kept.reason, kept.tables) == (1, None, "nightly", odd.postgres.tables), shown
    assert manifest.differing(odd.paths.backup(kept.id), kept) == []
    assert kept.unproven
    assert "COPY failed for table public.offers" in kept.unproven
    assert f"The dump is kept as the unverified backup {kept.id}" in shown.splitlines()[-1]
    assert storage == [kept.id], "an unverified backup must be sent, too"
    assert leftovers(odd) == []
    assert [line for line in problems(odd) if kept.id in line and "unverified" in line and "public.offers" in line]
    row = next(line for line in stackctl(odd, "list-backups")[1].splitlines() if kept.id in line)
    assert "unverified" in row
    assert f"{kept.id} is unverified: {kept.unproven}" in stackctl(odd, "list-backups")[1]


def test_an_unverified_backup_is_kept_even_if_it_cannot_be_sent(odd: Droplet, storage: Sent) -> None:
    storage.most = 0
    code, shown = stackctl(odd, "backup")
    assert (code, len(unproven(odd))) == (1, 1)
    assert "COPY failed for table public.offers" in shown.splitlines()[-1]
    assert "and could not be sent off the droplet: the storage is down" in shown.splitlines()[-1]


def test_a_backup_too_large_for_the_memory_is_kept_unverified(odd: Droplet) -> None:
    odd.failing = {"oom": ENDED}
    code, shown = stackctl(odd, "backup")
    assert (code, "out of memory while postgres was restored" in shown.splitlines()[-1]) == (1, True)
    (kept,) = unproven(odd)
    assert "raise backup_memory_mib" in (kept.unproven or "")


def test_a_newer_one_takes_its_place_and_no_proven_one_s(live: Droplet) -> None:
    assert stackctl(live, "backup")[0] == 0
    before = proven(live)
    live.postgres.unloadable = {"public.offers": True}
    for _ in range(prune.KEPT_DAYS + 3):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 1
    (kept,) = unproven(live)
    assert (proven(live), kept.sequence) == (before, max(one.sequence for one in every(live)))
    live.postgres.unloadable = {}
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert (unproven(live), len(proven(live))) == ([], 2)
    assert problems(live) == []


def test_a_replaced_unverified_backup_gets_no_new_number(odd: Droplet, storage: Sent, monkeypatch: Any) -> None:
    """A replaced unverified backup keeps its number, even if the storage has higher numbers."""
    assert stackctl(odd, "backup")[0] == 1
    monkeypatch.setattr(download, "highest_since", lambda *_: 500)
    storage.clear()
    code, shown = stackctl(odd, "backup")
    (kept,) = unproven(odd)
    assert (code, kept.sequence, "unsent backups get higher numbers" in shown) == (1, 501, True), shown


def test_after_a_kill_there_is_still_an_unverified_backup(tmp_path: Path) -> None:
    kept = set[int]()
    droplet = installed(tmp_path / "droplet")
    droplet.postgres.unloadable = {"public.offers": True}
    assert stackctl(droplet, "backup")[0] == 1
    for _, left in kills(droplet, "backup"):
        kept.add(len(unproven(left)))
        assert all(manifest.differing(left.paths.backup(one.id), one) == [] for one in every(left))
    assert kept == {1, 2}


def test_a_pre_restore_backup_must_be_verified_and_is_kept_otherwise(odd: Droplet) -> None:
    with pytest.raises(FailedError, match=r"is kept as the unverified backup 20251123T130000\.000Z"):
        create.pre_restore(stack_of(odd))
    assert [one.reason for one in unproven(odd)] == ["safety"]
    assert stackctl(odd, "backup")[0] == 1
    assert [one.reason for one in unproven(odd)] == ["safety", "asked"], (
        "the pre-restore backup must stay, as perhaps the last copy of its data"
    )


def test_a_verified_backup_does_not_replace_a_pre_restore_backup(live: Droplet) -> None:
    """An unverified pre-restore backup stays as long as a verified one would."""
    assert stackctl(live, "backup")[0] == 0
    live.seconds += 60
    live.postgres.unloadable = {"public.offers": True}
    with pytest.raises(FailedError, match="unverified"):
        create.pre_restore(stack_of(live))
    live.postgres.unloadable = {}
    for _ in range(prune.KEPT_DAYS - 1):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 0
        assert [one.reason for one in unproven(live)] == ["safety"]
    live.seconds += 86400
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert unproven(live) == []


@pytest.mark.parametrize("changes", [{"postgres.lost": {"public.offers": 11}}, {"redis.keys_lost": 1}])
def test_a_backup_that_restores_other_data_does_not_count(live: Droplet, changes: dict[str, Any]) -> None:
    change(live, changes)
    before = every(live)
    assert stackctl(live, "backup")[0] == 1
    assert every(live) == before


def test_the_verification_stops_at_the_first_error_of_the_load(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    live.postgres.tables = {"public.a": 1, "public.b": 2, "public.c": 3}
    live.postgres.unloadable = {"public.b": False}
    seen: list[dict[str, int]] = []
    restored = Postgres._restore

    def look(self: Postgres, arguments: list[str], dump: Path | None, databases: dict[str, dict[str, int]]) -> Result:
        ran = restored(self, arguments, dump, databases)
        seen.extend(databases.values())
        return ran

    monkeypatch.setattr(Postgres, "_restore", look)
    assert stackctl(live, "backup")[0] == 1
    assert seen == [{"public.a": 1, "public.b": 0}]


def test_the_throwaway_server_has_locks_for_all_tables(live: Droplet) -> None:
    live.postgres.tables = {f"public.day_{number}": 1 for number in range(2000)}
    assert stackctl(live, "backup")[0] == 0
    (started,) = [call for call in live.ran("docker run --detach") if "postgres" in call]
    assert "--max_locks_per_transaction=2064" in started
    assert len(live.ran("LOCK TABLE ONLY ")) == 2000, "only the live tables may be locked"
    counted = live.ran("COPY ")
    assert len(counted) == 4000
    assert all("ROLLBACK TO SAVEPOINT a;" in question for _, question in counted), "each count must release its table"


NO_SPACE = Result(1, stderr="pg_restore: error: could not extend file: No space left on device")


def test_a_full_disk_during_the_verification_says_where_to_make_room(live: Droplet) -> None:
    live.failing = {"--exit-on-error": NO_SPACE}
    code, shown = stackctl(live, "backup")
    cause = f"no space left on the disk (pg_restore of postgres.dump failed: {NO_SPACE.stderr}). The dump is kept as "
    assert (code, cause in shown.splitlines()[-1]) == (1, True), shown
    assert f". Next: make room in {live.paths.backups} (" in shown.splitlines()[-1]


def test_a_load_that_writes_without_end_is_stopped_before_the_disk_is_full(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function in a CHECK constraint could write without end."""

    def written(*_: object) -> Result:
        live.bytes_free = SPARE - 1
        deadline = time.monotonic() + 10
        while live.docker.throwaway and time.monotonic() < deadline:
            time.sleep(0.01)
        return Result(2 if not live.docker.throwaway else 0, stderr="server closed the connection unexpectedly")

    monkeypatch.setattr(Postgres, "_restore", written)
    code, shown = stackctl(live, "backup")
    assert (code, f"less than {SPARE >> 20} MiB is left on the disk" in shown.splitlines()[-1]) == (1, True), shown
    assert live.ran("docker kill bot-verify")
    assert leftovers(live) == []


def test_a_load_that_was_ended_is_not_verified_even_if_its_faults_are_expected(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup whose load was stopped is not verified, even if stackctl ignores other errors of the load."""
    monkeypatch.setattr(verify, "LOOK_S", 0.001)
    live.bytes_free = SPARE - 1
    with pytest.raises(FailedError, match="is left on the disk"), verify._leaving_room(stack_of(live), "bot-verify"):
        time.sleep(0.2)
    live.bytes_free = SPARE
    with verify._leaving_room(stack_of(live), "bot-verify"):
        time.sleep(0.2)


def test_a_service_without_a_container_is_named(live: Droplet) -> None:
    postgres = next(c for c in live.docker.containers if c["service"] == "postgres")
    live.docker.containers.remove(postgres)
    with pytest.raises(FailedError, match=r"postgres has no container\. Next: sudo systemctl restart bot\.service"):
        verify._image(stack_of(live), "postgres")


@pytest.mark.parametrize(
    ("state", "said", "patience"),
    [
        ("exited", "the throwaway container ended: FATAL: out of shared memory", 0),
        ("running", "the throwaway container is not ready", verify.READY_TIMEOUT),
    ],
)
def test_a_throwaway_container_that_does_not_start_is_reported(
    live: Droplet, state: str, said: str, patience: int
) -> None:
    live.failing = {
        "pg_isready": ENDED,
        "{{.State.Status}} bot-verify": Result(0, state),
        "docker logs --tail 20 bot-verify": Result(0, "FATAL: out of shared memory"),
    }
    began = live.seconds
    code, shown = stackctl(live, "backup")
    assert (code, said in shown.splitlines()[-1]) == (1, True), shown
    assert live.seconds - began >= patience
    live.failing = {}
    assert (leftovers(live), unproven(live)) == ([], [])


def test_a_throwaway_is_small_alone_and_gone(live: Droplet) -> None:
    stackctl(live, "backup")
    limits = {"--network=none", "--memory=128m", "--memory-swap=128m", "--read-only", "--cap-drop=ALL"}
    started = live.ran("docker run")
    assert len(started) == 3
    assert all(limits <= set(call) for call in started)
    assert not list(live.paths.backups.glob(f"*/{verify.WORK}"))
