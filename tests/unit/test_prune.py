"""The repository off the droplet from the operator's side: how it is made, and what is dropped from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stackctl.manifest import DUMP, NAME, File, Manifest
from stackctl.offsite import Snapshot

from deploys import offsite, prune, repository
from deploys.prune import DONE, REFUSED, plan
from deploys.repository import DROPLET, OPERATOR, Repository, RepositoryError
from tests.unit.manifests import NOON, made
from tests.unit.places import settings_of

SHA256 = "a" * 64


def snapshot(told: Manifest, number: int = 0) -> Snapshot:
    return Snapshot(f"{told.sequence:032x}{number:032x}", told.at, told.id, f"/opt/backups/{told.id}")


def nightly(days: int) -> list[tuple[Snapshot, Manifest]]:
    files = {DUMP: File(1000, SHA256)}
    told = [made(number, NOON + timedelta(days=number), files=files) for number in range(days)]
    return [(snapshot(one), one) for one in told]


@dataclass
class Stored:
    """A repository in memory, in the place of one that restic asks for."""

    backups: list[tuple[Snapshot, Manifest]] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    """The manifests of snapshots that are no backups, by their ids."""
    there: bool = True
    damaged: set[str] = field(default_factory=set)
    """Snapshots whose files are not what was sent."""
    bytes_there: int = 1000
    passwords: dict[str, str] = field(default_factory=lambda: {OPERATOR: "k1", DROPLET: "k2"})
    """restic's keys, by whose they are."""
    ran: list[list[str]] = field(default_factory=list)
    failing: str = ""
    url: str = "s3:https://s3.test/bucket"
    app: str = "bot"

    def exists(self, whose: str) -> bool:
        return self.there

    def opens(self, whose: str) -> bool:
        return whose in self.passwords

    def current_key(self, whose: str) -> str:
        return self.passwords[whose]

    def add_key(self, whose: str, opened_by: str) -> None:
        assert opened_by in self.passwords
        self.passwords[whose] = f"new of {whose}"

    def json(self, *arguments: str) -> Any:
        return [{"id": key} for key in self.passwords.values()]

    def describe(self, snapshot: str, path: str) -> File:
        self.ran.append(["describe", snapshot, path])
        return File(self.bytes_there, "b" * 64 if snapshot in self.damaged else SHA256)

    def restic(self, *arguments: str, **_: Any) -> str:
        self.ran.append(list(arguments))
        if arguments[0] == self.failing:
            raise RepositoryError("restic failed")
        match arguments:
            case ("init",):
                self.there, self.passwords = True, {OPERATOR: "k1"}
            case ("key", "remove", key):
                self.passwords = {whose: one for whose, one in self.passwords.items() if one != key}
            case ("snapshots", *_):
                every = [(one.id, one.backup, one.path) for one, _ in self.backups]
                every += [(number, "20251123T000000.000Z", "/x") for number in self.others]
                return json.dumps([{"id": i, "time": "", "tags": [tag], "paths": [path]} for i, tag, path in every])
            case ("dump", number, path):
                assert path.endswith(NAME)
                return {**self.others, **{one.id: told.to_json() for one, told in self.backups}}[number]
        return ""

    @property
    def verbs(self) -> list[str]:
        return [arguments[0] for arguments in self.ran]


def pruned(stored: Stored, *, sure: bool = True) -> int:
    return prune.prune(cast(Repository, stored), sure=sure)


# --- what is dropped ------------------------------------------------------------------------------------------------


def test_seven_days_four_weeks_and_six_months_stay() -> None:
    chosen = plan(nightly(365))
    assert len(chosen.keep) in range(7 + 4 + 6 - 4, 7 + 4 + 6 + 1)
    assert [told.sequence for _, told in chosen.keep][-7:] == [*range(358, 365)]
    assert len(chosen.keep) + len(chosen.drop) == 365


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40))
def test_nothing_goes_for_which_no_newer_verified_one_stays(days: Sequence[tuple[int, bool]]) -> None:
    """Whatever the clock said."""
    told = [made(number, NOON + timedelta(days=day), verified=good) for number, (day, good) in enumerate(days)]
    chosen = plan([(snapshot(one), one) for one in told])
    stays = [one.sequence for _, one in chosen.keep if one.verified]
    assert all(any(one.sequence < kept for kept in stays) for _, one in chosen.drop)
    assert chosen.proof is None or chosen.proof[1].sequence == max(one.sequence for one in told if one.verified)


def test_what_goes_goes_by_explicit_ids_once_the_newest_was_read_back() -> None:
    stored = Stored(nightly(30))
    assert pruned(stored) == DONE
    wanted = [one.id for one, _ in plan(stored.backups).drop]
    newest, told = stored.backups[-1]
    assert stored.ran[-5:] == [
        *(["describe", newest.id, f"{newest.path}/{name}"] for name in told.files),
        ["forget", "--prune", *wanted],
        ["check", "--read-data-subset=5%"],
    ]
    assert wanted


def test_a_newest_one_that_was_sent_again_needs_no_whole_first_try() -> None:
    """Nor does it count twice; both stay as long as it does."""
    backups = nightly(30)
    again = [(snapshot(one, 1), one) for _, one in backups[-3:]]
    stored = Stored([*backups, *again], damaged={first.id for first, _ in backups[-3:]})
    assert pruned(stored) == DONE
    assert {one.id for one, _ in plan(stored.backups).drop} == {one.id for one, _ in plan(backups).drop}
    (forgotten,) = [arguments for arguments in stored.ran if arguments[0] == "forget"]
    assert not {*forgotten} & {one.id for one, _ in (*backups[-3:], *again)}


@pytest.mark.parametrize("differs", ["another content", "another size"])
def test_a_damaged_newest_one_saves_all_others(differs: str) -> None:
    stored = Stored(nightly(30))
    if differs == "another size":
        stored.bytes_there = 999
    else:
        stored.damaged = {one.id for one, _ in stored.backups}
    with pytest.raises(
        RepositoryError, match=r"postgres\.dump of .*, the newest verified backup, is not what was sent"
    ):
        pruned(stored)
    assert "forget" not in stored.verbs


def test_of_nothing_verified_nothing_goes() -> None:
    told = [made(number, NOON + timedelta(days=number), verified=False) for number in range(30)]
    stored = Stored([(snapshot(one), one) for one in told])
    assert pruned(stored) == DONE
    assert "forget" not in stored.verbs


def test_a_plan_without_a_proof_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the choice ever be wrong."""
    stored = Stored(nightly(30))
    monkeypatch.setattr(prune.retention, "choose", lambda *_: set())
    assert pruned(stored) == REFUSED
    assert "forget" not in stored.verbs


def test_nothing_to_drop_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert pruned(Stored(nightly(3)), sure=False) == DONE
    assert "Nothing is to be dropped." in capsys.readouterr().out


def test_without_a_yes_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored(nightly(30))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert pruned(stored, sure=False) == REFUSED
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in (("n", REFUSED), ("", REFUSED), ("y", DONE)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert pruned(stored, sure=False) == code
        assert ("forget" in stored.verbs) == (code == DONE)


def test_what_shrank_goes_at_nobody_s_word_beforehand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many that look newer, sent by who broke in: YES=1 would drop the real ones for them."""
    backups = nightly(30)
    forged = [
        made(one.sequence, one.time, files=dict.fromkeys(one.files, File(499, SHA256))) for _, one in backups[15:]
    ]
    stored = Stored([*backups[:15], *((snapshot(one), one) for one in forged)], bytes_there=499)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert pruned(stored, sure=True) == REFUSED
    shown = capsys.readouterr()
    assert f"The dump of {forged[-1].id}, the newest verified, has 0.0 MB, and one of those that go has" in shown.out
    assert "YES=1" not in shown.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in (("n", REFUSED), ("y", DONE)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert pruned(stored, sure=True) == code
        assert ("forget" in stored.verbs) == (code == DONE)


def test_what_has_no_manifest_that_can_be_read_stays_and_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    stored = Stored(nightly(30), others={"f" * 64: "no JSON", "e" * 64: made(99).to_json()})
    assert pruned(stored) == DONE
    (forgotten,) = [arguments for arguments in stored.ran if arguments[0] == "forget"]
    assert not {*forgotten} & {*stored.others}
    shown = capsys.readouterr().out
    assert "ffffffff stays, and is no backup" in shown
    assert "eeeeeeee stays, and is no backup" in shown


def test_without_a_repository_it_says_how_to_make_one() -> None:
    with pytest.raises(RepositoryError, match="there is no repository yet: make offsite"):
        pruned(Stored(there=False))


# --- how the repository is made -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "done"),
    [
        (Stored(there=False), ["init"]),
        (Stored(), []),
        (Stored(passwords={OPERATOR: "k1"}), []),
        (Stored(passwords={DROPLET: "k2"}), []),
    ],
    ids=["no repository", "a second run", "without the droplet's password", "without the operator's"],
)
def test_both_passwords_open_it_whatever_there_was(stored: Stored, done: list[str]) -> None:
    before = {**stored.passwords}
    offsite.made(cast(Repository, stored))
    assert {*stored.passwords} == {OPERATOR, DROPLET}
    assert stored.verbs == done
    if not done:
        assert before.items() <= stored.passwords.items()


def test_one_that_opens_with_neither_password_is_left_alone() -> None:
    with pytest.raises(RepositoryError, match="opens with neither password of the env file"):
        offsite.made(cast(Repository, Stored(passwords={"else": "k3"})))


def test_every_other_password_is_ended_when_that_is_asked() -> None:
    stored = Stored(passwords={OPERATOR: "k1", DROPLET: "k2", "former": "k3"})
    assert offsite.end_others(cast(Repository, stored)) == 1
    assert {*stored.passwords} == {OPERATOR, DROPLET}
    assert offsite.end_others(cast(Repository, stored)) == 0


# --- restic at the operator's ---------------------------------------------------------------------------------------


def program(directory: Path, text: str) -> None:
    """A restic of the test's."""
    path = directory / "restic"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = settings_of("prod")
    secrets = {name: f"secret {name}" for name in settings.credentials.offsite}
    return Repository("s3:https://s3.test/bucket", "bot", secrets, ())


def test_restic_gets_the_operator_s_key_and_no_secret_as_an_argument(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$* $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $RESTIC_PASSWORD $RESTIC_REPOSITORY"')
    keys = "secret OFFSITE_OPERATOR_KEY_ID secret OFFSITE_OPERATOR_KEY_SECRET"
    assert ours.restic("check") == f"check {keys} secret OFFSITE_OPERATOR_PASSWORD s3:https://s3.test/bucket\n"
    assert ours.restic("check", opened_by=DROPLET).split(" secret ")[3].startswith("OFFSITE_PASSWORD s3")


def test_a_password_is_handed_over_by_a_pipe(ours: Repository, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program(tmp_path, f'echo "$*" > {seen}; cat "${{!#}}" >> {seen}')
    ours.add_key(DROPLET, opened_by=OPERATOR)
    arguments, password = seen.read_text().splitlines()
    assert password == "secret OFFSITE_PASSWORD"
    assert arguments.startswith("key add --user offsite --host bot --new-password-file /dev/fd/")


@pytest.mark.parametrize(
    ("code", "said", "opens"),
    [(0, "", True), (12, "Fatal: x", False), (1, "Fatal: wrong password or no key found", False)],
)
def test_restic_of_any_version_tells_of_a_wrong_password(
    ours: Repository, tmp_path: Path, code: int, said: str, *, opens: bool
) -> None:
    program(tmp_path, f"echo '{said}' >&2; exit {code}")
    assert ours.opens(DROPLET) == opens


def test_anything_else_that_goes_wrong_is_told(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Fatal: the sky fell' >&2; exit 1")
    for act in (lambda: ours.restic("check"), lambda: ours.opens(DROPLET)):
        with pytest.raises(RepositoryError, match="the sky fell"):
            act()


def test_who_has_it_locked_is_told(ours: Repository, tmp_path: Path) -> None:
    """In restic's words before 0.17, and since."""
    for said in ("unable to create lock in backend: repository is already", "Fatal: unable to create lock: already"):
        program(tmp_path, f"echo '{said} locked by PID 7 on bot\nuse unlock' >&2; exit 11")
        with pytest.raises(RepositoryError, match="already locked by PID 7 on bot: wait for its end; of one that was"):
            ours.restic("check")


def test_a_machine_without_restic_is_told_what_to_install(ours: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RepositoryError, match="restic is not installed here: apt-get install restic"):
        ours.restic("check")


def test_restic_that_comes_to_no_end_is_stopped(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Load(x) returned error, retrying after 7s: no route to host' >&2; exec sleep 60")
    with pytest.raises(RepositoryError, match="restic check: no route to host"):
        ours.restic("check", timeout=0.5)


def test_a_file_is_hashed_as_it_comes(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "printf 'abc'")
    found = ours.describe("x", "/y")
    assert (found.bytes, found.sha256[:16]) == (3, "ba7816bf8f01cfea")
    program(tmp_path, "printf 'abc'; exit 1")
    with pytest.raises(RepositoryError, match="/y of snapshot x can't be read"):
        ours.describe("x", "/y")


def test_an_authority_of_one_s_own_is_trusted_besides_the_public_ones(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$*"')
    own = Repository(ours.url, ours.app, ours.secrets, ("/ca.crt",))
    assert own.restic("check") == f"--cacert={repository.certifi.where()} --cacert=/ca.crt check\n"


def test_a_place_without_the_operator_s_part_is_told_what_is_missing() -> None:
    settings = settings_of("prod")
    assert Repository.of(settings).url == settings.values.offsite_repository
    with pytest.raises(RepositoryError, match="offsite_repository is None"):
        Repository.of(settings_of("prod", {"offsite_repository": None}))
    droplets = {name: "s" for name in settings.credentials.offsite if "OPERATOR" not in name}
    partial = settings_of("prod")
    object.__setattr__(partial.credentials, "offsite", droplets)
    with pytest.raises(RepositoryError, match=r"\.env\.production lacks OFFSITE_OPERATOR_KEY_ID, "):
        Repository.of(partial)
