"""A fault in the env file stops the run. The message names the variable, and never shows a value."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from deploys.secrets.env_file import read_env_file
from deploys.secrets.rules import (
    OFFSITE_RULES,
    OPERATOR_RULES,
    RULES,
    TELEGRAM_RULES,
    Credentials,
    CredentialsError,
    credentials_from,
)
from tests.support.env_file import GOOD, SECRET, env_file
from tests.support.settings import ROOT, data_of


def credentials(values: dict[str, str]) -> Credentials:
    return credentials_from(values, app_secrets=[*TELEGRAM_RULES, "STRIPE_API_KEY"], offsite=True, source=".env.test")


def test_complete_values_are_taken() -> None:
    taken = credentials(GOOD)
    assert taken.redis_password == GOOD["REDIS_PASSWORD"]
    assert taken.app == {name: GOOD[name] for name in (*TELEGRAM_RULES, "STRIPE_API_KEY")}
    assert taken.offsite == {name: GOOD[name] for name in (*OFFSITE_RULES, *OPERATOR_RULES)}
    assert taken.by_name == GOOD


@pytest.mark.parametrize("left", [{}, dict.fromkeys(TELEGRAM_RULES, "<of another app>")])
def test_without_telegram_its_keys_are_neither_needed_nor_read(left: dict[str, str]) -> None:
    values = {name: value for name, value in GOOD.items() if name not in TELEGRAM_RULES} | left
    taken = credentials_from(values, app_secrets=["STRIPE_API_KEY"], offsite=True, source=".env.test")
    assert [*taken.app] == ["STRIPE_API_KEY"]


@pytest.mark.parametrize("left", [{}, dict.fromkeys((*OFFSITE_RULES, *OPERATOR_RULES), "<of another place>")])
def test_without_a_repository_off_the_droplet_its_keys_are_neither_needed_nor_read(left: dict[str, str]) -> None:
    values = {name: value for name, value in GOOD.items() if not name.startswith("OFFSITE_")} | left
    taken = credentials_from(values, app_secrets=["STRIPE_API_KEY", *TELEGRAM_RULES], offsite=False, source=".env.test")
    assert taken.offsite == {}


def test_the_operator_s_part_may_be_left_out_whole_and_not_in_part() -> None:
    """CI's env file has none of the operator's secrets.

    An env file with only some of the operator's secrets is refused.
    """
    assert [*credentials({name: GOOD[name] for name in GOOD if name not in OPERATOR_RULES}).offsite] == [*OFFSITE_RULES]
    with pytest.raises(CredentialsError, match="OFFSITE_OPERATOR_PASSWORD is missing"):
        credentials({name: GOOD[name] for name in GOOD if name != "OFFSITE_OPERATOR_PASSWORD"})


def test_no_secret_is_in_a_repr() -> None:
    assert SECRET not in repr(credentials(GOOD))


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(CredentialsError, match=f"{key} is missing"):
        credentials({name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize(
    ("value", "fault"),
    [("", "is empty"), ("  ", "is empty"), ("<your-key>", "placeholder"), ("changeme", "placeholder"),
     (f"{SECRET}\nx", "control character"), (f"{SECRET}\u200b", r"invisible character \(U\+200B\)"),
     (f"{SECRET}\xa0", r"invisible character \(U\+00A0\)"), (f"\ufeff{SECRET}", r"invisible character \(U\+FEFF\)"),
     ("-----BEGIN PRIVATE KEY-----\nMC4C\n", r"control character \(encode the value with base64, or write .n")],
)  # fmt: skip
def test_an_unfit_value_is_named_and_not_shown(key: str, value: str, fault: str) -> None:
    with pytest.raises(CredentialsError, match=f"{key} .*{fault}") as caught:
        credentials({**GOOD, key: value})
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("TELEGRAM_BOT_TOKEN", "110201543:short"), ("TELEGRAM_BOT_TOKEN", "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"),
     ("TELEGRAM_WEBHOOK_SECRET", "not allowed: spaces"), ("TELEGRAM_WEBHOOK_SECRET", "short"),
     ("DATABASE_PASSWORD", "too-brief"), ("REDIS_PASSWORD", "too-brief"),
     ("FINGERPRINT_KEY", "longer-but-not-long-enough"), ("OFFSITE_KEY_ID", "with/a-slash"),
     ("OFFSITE_KEY_SECRET", "too-brief"), ("OFFSITE_PASSWORD", "ends in a white space "),
     ("OFFSITE_OPERATOR_PASSWORD", " begins with a white space")],
)  # fmt: skip
def test_a_malformed_value_is_named_and_not_shown(key: str, value: str) -> None:
    with pytest.raises(CredentialsError, match=key) as caught:
        credentials({**GOOD, key: value})
    assert value not in str(caught.value)


def test_a_misspelt_key_is_told_what_it_may_mean() -> None:
    with pytest.raises(CredentialsError, match="REDIS_PASWORD is not known: did you mean REDIS_PASSWORD"):
        credentials({**GOOD, "REDIS_PASWORD": SECRET})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# first\nA='1'\nB='2'\nA='3'\n", "line 4: A is set twice"),
        ("A='1'\nB='unclosed\n", "line 2 is malformed"),
        ("A='1'\n\n\nNOVALUE\n", "line 4: NOVALUE has no value"),
        ("A='1'\nB=a$b#c\n", "line 2: B is not in single quotes"),
        ('A="a\\\\b"\n', "line 1: A is not in single quotes"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(CredentialsError, match=fault):
        read_env_file(env_file(tmp_path, text))


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = env_file(tmp_path, "A='1'\n")
    path.chmod(0o640)
    with pytest.raises(CredentialsError, match="chmod 600"):
        read_env_file(path)


def test_a_missing_file_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"\.env\.production\.template"):
        read_env_file(tmp_path / "nowhere")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_values_survive_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    path = env_file(tmp_path_factory.mktemp("env"), f"A='{quoted}'\n")
    assert read_env_file(path) == {"A": value}


def test_interpolation_would_have_changed_a_value(tmp_path: Path) -> None:
    """Control for the test above: an ordinary dotenv parser changes the password."""
    path = env_file(tmp_path, "A='a${HOME}b'\n")
    assert read_env_file(path) == {"A": "a${HOME}b"} != dotenv_values(path)


def test_every_credential_has_its_rule() -> None:
    assert [*RULES] == [field.name.upper() for field in fields(Credentials) if field.name not in {"app", "offsite"}]


def test_the_template_lists_every_secret_with_a_comment() -> None:
    template = ROOT / ".env.production.template"
    lines = template.read_text().splitlines()
    keys = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert keys == [*RULES, *TELEGRAM_RULES, *data_of("prod")["app_secrets"], *OFFSITE_RULES, *OPERATOR_RULES]
    for key in keys:
        assert lines[[line.partition("=")[0] for line in lines].index(key) - 1].startswith("# "), key


def test_the_template_itself_is_refused_whole(tmp_path: Path) -> None:
    path = env_file(tmp_path, (ROOT / ".env.production.template").read_text())
    with pytest.raises(CredentialsError) as caught:
        credentials(read_env_file(path))
    assert str(caught.value).count("still a placeholder") == len(GOOD)


def test_the_template_and_an_app_without_secrets_of_its_own_agree(tmp_path: Path) -> None:
    """The template's lines for app secrets, Telegram and off-site backups may stay unchanged.

    See docs/how-to/own-image.md.
    """
    text = (ROOT / ".env.production.template").read_text()
    for key in RULES:
        text = re.sub(rf"(?m)^{key}='.*'$", f"{key}='{key.replace('_', '-')}-{SECRET * 3}'", text)
    found = read_env_file(env_file(tmp_path, text))
    taken = credentials_from(found, app_secrets=[], offsite=False, source=".env.test")
    assert (taken.app, taken.offsite) == ({}, {})


@pytest.mark.parametrize(
    "value", ["your-stripe-key", "<your-stripe-key>", "YOUR_API_KEY", "changeme", "change-me", "xxx"]
)
def test_a_placeholder_is_known_by_its_words(value: str) -> None:
    with pytest.raises(CredentialsError, match="STRIPE_API_KEY is still a placeholder"):
        credentials({**GOOD, "STRIPE_API_KEY": value})


@pytest.mark.parametrize(
    "value", ["your_company_api_v2_ab12cd34", "your-1st-key-9f", "exchangeme-but-longer", f"x{SECRET}"]
)
def test_a_value_that_only_begins_like_one_is_taken(value: str) -> None:
    assert credentials({**GOOD, "STRIPE_API_KEY": value}).app["STRIPE_API_KEY"] == value


def test_an_unused_line_of_the_template_may_stay_unchanged() -> None:
    """An example is the template's STRIPE_API_KEY line with `app_secrets = []` (docs/how-to/own-image.md)."""
    assert credentials({**GOOD, "ANOTHER_KEY": "<your-other-key>"}) == credentials(GOOD)
    with pytest.raises(CredentialsError, match="ANOTHER_KEY is not known"):
        credentials({**GOOD, "ANOTHER_KEY": SECRET})
