"""The ledger records the ages of secrets, and finds two secrets with the same value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand
from pyinfra.context import ctx_host

from deploys.operations.ledger import record_secret_ages
from deploys.secrets import ledger
from deploys.secrets.ledger import KEY, Entry, Ledger, ages, changed, check, fingerprints, read, updated, write
from deploys.secrets.rules import OFFSITE_RULES, OPERATOR_RULES, CredentialsError
from tests.support.settings import settings_of

BEFORE, TODAY = date(2026, 1, 2), date(2026, 4, 1)
KNOWN: Ledger = {KEY: Entry("k", BEFORE), "A": Entry("1", BEFORE), "B": Entry("2", BEFORE)}
GIVEN = {"fingerprint_key": "k", "redis_password": "r"}
CURRENT = {KEY: "k", "A": "1", "B": "2"}


def test_a_fingerprint_is_the_key_s_and_the_value_s() -> None:
    one, same, of_another_key, of_another_value = (
        fingerprints(settings_of("prod", None, **secrets).credentials)["REDIS_PASSWORD"]
        for secrets in (GIVEN, GIVEN, GIVEN | {"fingerprint_key": "x"}, GIVEN | {"redis_password": "x"})
    )
    assert one == same
    assert len({one, of_another_key, of_another_value}) == 3


def test_every_secret_of_the_place_has_one() -> None:
    names = {"DATABASE_PASSWORD", "REDIS_PASSWORD", "REGISTRY_PASSWORD", KEY}
    own = {"TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET", "STRIPE_API_KEY"}
    assert {*fingerprints(settings_of("staging", {"offsite_repository": None}).credentials)} == names | own
    assert {*fingerprints(settings_of("prod").credentials)} == names | own | {*OFFSITE_RULES, *OPERATOR_RULES}


def test_the_operator_s_own_keep_their_day_when_an_env_file_leaves_them_out() -> None:
    """CI's env file lacks the operator's secrets.

    The ledger keeps the days of these secrets, so that CI's plan shows no drift.
    """
    given = {KEY: "k", "OFFSITE_PASSWORD": "1", "OFFSITE_OPERATOR_PASSWORD": "2"}
    known = {name: Entry(fingerprint, BEFORE) for name, fingerprint in given.items()}
    assert updated(known, {KEY: "k", "OFFSITE_PASSWORD": "1"}, TODAY) == known
    assert [*updated(known, {KEY: "k"}, TODAY)] == [KEY]


def test_what_is_known_keeps_its_day() -> None:
    assert updated(KNOWN, CURRENT, TODAY) == KNOWN


def test_what_is_new_or_changed_is_of_today_and_what_is_gone_is_left_out() -> None:
    now = updated(KNOWN, {KEY: "k", "A": "other", "C": "3"}, TODAY)
    assert now == {KEY: Entry("k", BEFORE), "A": Entry("other", TODAY), "C": Entry("3", TODAY)}
    assert changed(KNOWN, now) == ["A", "B", "C"]


def test_another_key_makes_no_secret_younger() -> None:
    now = updated(KNOWN, {KEY: "k2", "A": "x", "B": "y", "C": "z"}, TODAY)
    assert {name: entry.since for name, entry in now.items()} == {KEY: TODAY, "A": BEFORE, "B": BEFORE, "C": TODAY}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "prod.secrets.json"
    assert read(path) == {}
    write(path, KNOWN)
    assert read(path) == KNOWN


@pytest.mark.parametrize("content", ["", "[1]", '{"A": {}}', '{"A": {"fingerprint": "1", "since": "soon"}}'])
def test_a_malformed_file_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prod.secrets.json"
    path.write_text(content)
    with pytest.raises(CredentialsError, match=r"is malformed\. Next: git checkout"):
        read(path)


def refusal(tmp_path: Path, current: Mapping[str, str], beside: Ledger) -> str:
    write(tmp_path / "staging.secrets.json", beside)
    with pytest.raises(CredentialsError) as caught:
        check(tmp_path / "prod.secrets.json", current)
    return str(caught.value)


def test_two_of_one_place_must_differ(tmp_path: Path) -> None:
    assert refusal(tmp_path, {**CURRENT, "C": "1"}, {}) == "A and C are the same. Next: give each its own value"


def test_two_environments_must_have_different_secrets_under_any_name(tmp_path: Path) -> None:
    theirs = {KEY: Entry("k", BEFORE), "B": Entry("1", BEFORE), "C": Entry("9", BEFORE)}
    said = refusal(tmp_path, CURRENT, theirs)
    assert said == f"A is the same as B in {tmp_path}/staging.secrets.json. Next: give each environment its own value"


def test_places_that_can_t_be_compared_are_refused(tmp_path: Path) -> None:
    assert f"was made with another {KEY}" in refusal(tmp_path, CURRENT, {KEY: Entry("other", BEFORE)})


def test_environments_that_differ_are_accepted_and_none_is_compared_with_itself(tmp_path: Path) -> None:
    write(tmp_path / "staging.secrets.json", {KEY: Entry("k", BEFORE), "A": Entry("8", BEFORE)})
    write(tmp_path / "prod.secrets.json", KNOWN)
    check(tmp_path / "prod.secrets.json", CURRENT)


def test_the_lab_is_compared_with_no_other_environment(tmp_path: Path) -> None:
    write(tmp_path / "secrets.json", KNOWN)
    check(tmp_path / "staging.secrets.json", CURRENT)


def test_ages_are_reported_and_due_secrets_named_with_the_command() -> None:
    # On `TODAY`, both entries are 90 days old. On 2 April, A is 91 days old.
    entries = {**KNOWN, "A": Entry("1", date(2026, 1, 1))}
    assert ages(entries, "prod", date(2026, 4, 2)) == [
        "2 secrets, the oldest A: 91 days.",
        "A is 91 days old, more than 90. Next: make rotate KEY=A ENV=prod",
    ]
    assert ages(entries, "prod", TODAY) == ["2 secrets, the oldest A: 90 days."]
    assert "no known age yet" in ages({}, "prod", TODAY)[0]


def operations(path: Path, current: Mapping[str, str]) -> list[Any]:
    with ctx_host.use(SimpleNamespace(noop=lambda _: None, current_op_global_arguments=None)):
        return list(record_secret_ages._inner(path=str(path), current=current))


def test_a_converge_records_what_is_new_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "today", lambda: BEFORE)
    path = tmp_path / "prod.secrets.json"
    (command,) = operations(path, CURRENT)
    assert isinstance(command, FunctionCommand)
    assert not path.exists(), "a plan must not write the ledger"
    command.function(*command.args)
    assert read(path) == KNOWN
    assert operations(path, CURRENT) == []
