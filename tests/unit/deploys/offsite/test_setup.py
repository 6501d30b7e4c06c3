"""`make offsite` creates the off-site repository and repairs its passwords."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest

from deploys.offsite import look, setup
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from tests.support.fakes.repository import (
    InMemory,
    nightly,
    pruned_before,
)
from tests.support.settings import settings_of


@pytest.mark.parametrize(
    ("there", "done"),
    [
        (InMemory(there=False), ["init"]),
        (InMemory(), []),
        (InMemory(passwords={OPERATOR: "k1"}), []),
        (InMemory(passwords={DROPLET: "k2"}), []),
    ],
    ids=["no repository", "a second run", "without the droplet's password", "without the operator's"],
)
def test_setup_makes_both_passwords_open_the_repository(there: InMemory, done: list[str]) -> None:
    before = {**there.passwords}
    setup.made(cast(Repository, there))
    assert {*there.passwords} == {OPERATOR, DROPLET}
    assert there.verbs == done
    if not done:
        assert before.items() <= there.passwords.items()


@pytest.mark.parametrize("there", [True, False])
def test_setup_says_whether_the_repository_is_new(*, there: bool) -> None:
    assert setup.made(cast(Repository, InMemory(there=there))) is not there


def test_a_repository_that_opens_with_neither_password_is_left_alone() -> None:
    with pytest.raises(RepositoryError, match="opens with neither password of the env file"):
        setup.made(cast(Repository, InMemory(passwords={"else": "k3"})))


def test_every_other_password_is_ended_when_that_is_asked() -> None:
    there = InMemory(passwords={OPERATOR: "k1", DROPLET: "k2", "former": "k3"})
    assert setup.revoke_others(cast(Repository, there)) == 1
    assert {*there.passwords} == {OPERATOR, DROPLET}
    assert setup.revoke_others(cast(Repository, there)) == 0


@pytest.mark.parametrize("is_new", [True, False])
def test_a_new_repository_begins_a_ledger(ledger: Path, monkeypatch: pytest.MonkeyPatch, *, is_new: bool) -> None:
    there = pruned_before(InMemory(nightly(3)), ledger)
    settings = settings_of("prod", {"backups_ledger": str(ledger)})
    monkeypatch.setattr(setup, "load_settings", lambda _: settings)
    monkeypatch.setattr(setup.Repository, "of", lambda _: there)
    monkeypatch.setattr("sys.argv", ["offsite", "inventories/prod.py"])
    there.there, there.backups, there.identity = not is_new, [], "r2"
    assert setup.main() == 0
    with patch.object(look, "now", lambda: there.now):
        code, shown = look.looked(cast(Repository, there), ledger)
    assert code == (0 if is_new else 4)
    assert bool([line for line in shown if "gone" in line or "another" in line]) is not is_new
    assert look.load(ledger, there.url).repository == ("r2" if is_new else "r1")
