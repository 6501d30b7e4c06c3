"""An error in the bot's environment names the missing or malformed variable, and never shows a value."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketplace_bot.settings import REQUIRED, EnvironmentProblem, read_settings

GOOD = {
    "ENVIRONMENT": "lab",
    "DATABASE_URL": "postgresql://bot:database-pw@postgres:5432/market",
    "REDIS_URL": "redis://:redis-pw@redis:6379/0",
    "TELEGRAM_BOT_TOKEN": "123456:token-pw",
    "TELEGRAM_WEBHOOK_SECRET": "webhook-pw",
}


def test_a_complete_environment_is_read_with_defaults() -> None:
    settings = read_settings(GOOD)
    assert settings.database_url.drivername == "postgresql+psycopg"
    assert settings.webhook_secrets == ("webhook-pw",)
    assert (settings.log_level, settings.telegram_api_url) == ("INFO", "https://api.telegram.org")


@pytest.mark.parametrize(("previous", "accepted"), [("older-pw", ("webhook-pw", "older-pw")), ("", ("webhook-pw",))])
def test_the_previous_webhook_secret_is_still_accepted_and_still_secret(
    previous: str, accepted: tuple[str, ...]
) -> None:
    settings = read_settings({**GOOD, "TELEGRAM_WEBHOOK_SECRET_PREVIOUS": previous})
    assert settings.webhook_secrets == accepted
    assert set(accepted) <= set(settings.secrets)
    assert "-pw" not in repr(settings)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("absent", [True, False], ids=["missing", "empty"])
def test_a_missing_variable_is_named_alone(name: str, absent: bool) -> None:  # noqa: FBT001
    environ = {**GOOD, name: ""}
    if absent:
        del environ[name]
    with pytest.raises(EnvironmentProblem) as raised:
        read_settings(environ)
    assert str(raised.value) == f"missing or empty in the environment: {name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://bot:s3cret@postgres/market"),
        ("DATABASE_URL", "postgresql://bot:s3cret@postgres:port/market"),
        ("REDIS_URL", "redis:6379/s3cret"),
        ("TELEGRAM_BOT_TOKEN", "s3cret"),
        ("TELEGRAM_BOT_TOKEN", "1:s3cret\n"),
        ("TELEGRAM_WEBHOOK_SECRET", "s3cret s3cret"),
        ("TELEGRAM_WEBHOOK_SECRET", "s3cret" * 43),
        ("TELEGRAM_WEBHOOK_SECRET_PREVIOUS", "s3cret s3cret"),
        ("TELEGRAM_API_URL", "telegram.s3cret.test"),
        ("LOG_LEVEL", "s3cret"),
    ],
)
def test_a_malformed_variable_is_named_and_its_value_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"^{name} is malformed") as raised:
        read_settings({**GOOD, name: value})
    assert "s3cret" not in str(raised.value)


@given(password=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_password_survives_its_url_and_is_known_as_a_secret(password: str) -> None:
    quoted = quote(password, safe="")
    settings = read_settings(
        {**GOOD, "DATABASE_URL": f"postgresql://bot:{quoted}@postgres/x", "REDIS_URL": f"redis://:{quoted}@redis/0"}
    )
    assert settings.database_url.password == password
    assert settings.secrets.count(password) >= 2


def test_settings_can_be_printed() -> None:
    assert "-pw" not in repr(read_settings(GOOD))
