"""One command rotates a secret, or keeps the old secret if the rotation fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.rotation import rotate
from deploys.rotation.secrets import APP_SECRET, BY_HAND, SECRETS
from deploys.secrets import ledger
from deploys.secrets.env_file import read_env_file, with_value
from deploys.terminal import prompt
from deploys.terminal.exit_codes import DONE, FAILED, LOCKED, NEEDS_A_PERSON, REFUSED
from stackctl.core.errors import RefusedError
from tests.support.env_file import GOOD, env_file
from tests.support.rotations import ENDS, LAYOUT, OPENS, SHOWS, Operator
from tests.support.settings import ROOT

ISSUED = {
    "REGISTRY_PASSWORD": "another-token",
    "TELEGRAM_BOT_TOKEN": "110201543:" + "B" * 35,
    "STRIPE_API_KEY": "sk_another",
}


def proof(key: str) -> list[str]:
    """Return the deploy that tests a new value before anything is changed."""
    known = SECRETS.get(key, APP_SECRET).check
    return [known] if known else []


@pytest.mark.parametrize("key", [key for key, secret in SECRETS.items() if secret.make and "OFFSITE" not in key])
def test_what_is_ours_is_made_anew_and_converged(
    operator: Operator, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.rotates(key, "--yes") == DONE
    values = read_env_file(operator.file)
    assert values[key] != GOOD[key]
    assert {**values, key: ""} == {**GOOD, key: ""}
    assert operator.ran == [("deploys/site.py", values), ("deploys/status.py", values)]
    said = "".join(capsys.readouterr())
    assert SECRETS[key].after in said
    assert values[key] not in said
    assert GOOD[key] not in said


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("key", ISSUED)
def test_a_secret_of_another_issuer_is_typed_or_passed(operator: Operator, key: str, terminal: bool) -> None:  # noqa: FBT001
    options = [] if terminal else ["--yes"]
    assert operator.rotates(key, *options, stdin=ISSUED[key], terminal=terminal) == DONE
    new = {**GOOD, key: ISSUED[key]}
    assert read_env_file(operator.file) == new
    assert operator.ran == [(deploy, new) for deploy in [*proof(key), "deploys/site.py", "deploys/status.py"]]


@pytest.mark.parametrize(
    ("key", "given_", "why"),
    [
        ("REDIS_PASSWORD", {}, "cannot ask for confirmation"),
        ("REDIS_PASSWORD", {"terminal": True, "answer": ""}, "you did not answer yes"),
        ("STRIPE_API_KEY", {"terminal": True}, "no new STRIPE_API_KEY was given"),
        (
            "STRIPE_API_KEY",
            {"terminal": True, "stdin": GOOD["STRIPE_API_KEY"]},
            "already has this value of STRIPE_API_KEY",
        ),
        ("STRIPE_API_KEY", {"terminal": True, "stdin": GOOD["REDIS_PASSWORD"]}, "STRIPE_API_KEY are the same"),
        (
            "STRIPE_API_KEY",
            {"terminal": True, "stdin": "<your-key>"},
            "the new value: STRIPE_API_KEY is still a placeholder",
        ),
        ("TELEGRAM_BOT_TOKEN", {"terminal": True, "stdin": "rubbish"}, "belongs to another bot"),
        ("TELEGRAM_BOT_TOKEN", {"terminal": True, "stdin": "220201543:" + "B" * 35}, "belongs to another bot"),
        ("TELEGRAM_BOT_TOKEN", {"terminal": True, "stdin": "110201543:short"}, "does not have the form"),
        ("REDIS_PASWORD", {"terminal": True}, "is no secret of prod. Next: set KEY to one of DATABASE_PASSWORD, "),
        ("", {"terminal": True}, "no KEY was given. Next: set KEY to one of DATABASE_PASSWORD, "),
    ],
)
def test_what_is_refused_changes_nothing(
    operator: Operator, key: str, given_: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.rotates(key, **given_) == REFUSED
    assert why in capsys.readouterr().err
    assert operator.file.read_bytes().decode() == LAYOUT
    assert operator.ran == []


@pytest.mark.parametrize(("second", "code"), [(0, FAILED), (1, NEEDS_A_PERSON), (LOCKED, NEEDS_A_PERSON)])
def test_a_converge_that_fails_is_undone(operator: Operator, second: int, code: int) -> None:
    operator.ends = [1, second]
    assert operator.rotates("REDIS_PASSWORD", "--yes") == code
    assert operator.file.read_bytes().decode() == LAYOUT
    (first, new), (again, old) = operator.ran
    assert (first, again) == ("deploys/site.py", "deploys/site.py")
    assert operator.ages_seen[0] == operator.ages_seen[1], "the restored secret must keep its former age"
    assert new["REDIS_PASSWORD"] != old["REDIS_PASSWORD"] == GOOD["REDIS_PASSWORD"]


@pytest.mark.parametrize(
    ("error", "cause"), [(KeyboardInterrupt(), "Interrupted."), (OSError("no memory"), "OSError.")]
)
def test_an_interruption_leaves_file_and_ages_as_they_were(
    operator: Operator, error: BaseException, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.ends = [error]
    ages = operator.ages.read_bytes()
    assert operator.rotates("REDIS_PASSWORD", "--yes") == NEEDS_A_PERSON
    assert operator.file.read_bytes().decode() == LAYOUT
    assert operator.ages.read_bytes() == ages
    said = capsys.readouterr().out
    assert cause in said
    assert "make site ENV=prod" in said


@pytest.mark.parametrize("end", [1, LOCKED, KeyboardInterrupt(), OSError("no memory")])
@pytest.mark.parametrize("key", ["TELEGRAM_BOT_TOKEN", "STRIPE_API_KEY"])
def test_a_value_whose_predecessor_is_revoked_stays(
    operator: Operator, key: str, end: int | BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new value stays in the env file, because @BotFather has revoked the old token."""
    operator.ends = [*(0 for _ in proof(key)), end]
    assert operator.rotates(key, "--yes", stdin=ISSUED[key]) == NEEDS_A_PERSON
    assert read_env_file(operator.file) == {**GOOD, key: ISSUED[key]}
    assert ledger.read(operator.ages)["A"].fingerprint == "new"
    assert [deploy for deploy, _ in operator.ran] == [*proof(key), "deploys/site.py"]
    said = capsys.readouterr().out
    assert "fix the cause, then make site ENV=prod" in said
    assert ISSUED[key] not in said


def test_it_stays_though_the_interruption_came_before_it_was_written(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter([KeyboardInterrupt()])
    replace = rotate.durable.write

    def write(*arguments: Any) -> None:
        for end in ends:
            raise end
        replace(*arguments)

    monkeypatch.setattr(rotate.durable, "write", write)
    key = "TELEGRAM_BOT_TOKEN"
    assert operator.rotates(key, "--yes", stdin=ISSUED[key]) == NEEDS_A_PERSON
    assert read_env_file(operator.file)[key] == ISSUED[key]


def test_a_droplet_that_is_locked_is_no_failure(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.ends = [LOCKED]
    ages = operator.ages.read_bytes()
    assert operator.rotates("REDIS_PASSWORD", "--yes") == LOCKED
    assert operator.file.read_bytes().decode() == LAYOUT
    assert operator.ages.read_bytes() == ages
    assert [deploy for deploy, _ in operator.ran] == ["deploys/site.py"]
    assert "repository" not in capsys.readouterr().out


def test_a_second_rotation_is_refused_until_the_first_has_ended(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second rotation is refused until the first has ended, even if the first has already written the env file.

    Otherwise, each rotation would restore its own copy of the env file.
    """
    second: list[int] = []

    def converge(environment: str, deploy: str) -> int:
        if not second:
            second.append(operator.rotates("DATABASE_PASSWORD", "--yes"))
        return operator.runs(environment, deploy)

    monkeypatch.setattr(rotate, "run", converge)
    assert operator.rotates("REDIS_PASSWORD", "--yes") == DONE
    assert second == [LOCKED]
    assert "another rotation is running" in capsys.readouterr().err
    assert read_env_file(operator.file)["DATABASE_PASSWORD"] == GOOD["DATABASE_PASSWORD"]
    assert operator.rotates("DATABASE_PASSWORD", "--yes") == DONE


def test_an_env_file_in_no_directory_is_refused(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rotate, "group_data", lambda _: {"env_file": str(operator.directory / "nowhere" / ".env")})
    assert operator.rotates("REDIS_PASSWORD", "--yes") == REFUSED
    assert "where .env should be: No such file or directory" in capsys.readouterr().err


def test_the_file_stays_its_owner_s_alone_and_no_copy_is_left(operator: Operator) -> None:
    there = {path.name for path in operator.directory.iterdir()}
    operator.rotates("REDIS_PASSWORD", "--yes")
    assert operator.file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in operator.directory.iterdir()} == there


@pytest.mark.parametrize("key", ["REDIS_PASSWORD", "STRIPE_API_KEY", "OFFSITE_PASSWORD"])
def test_a_converge_that_fails_after_the_new_secret_is_in_use_undoes_nothing(
    operator: Operator, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A converge may fail after the new secret is in use, for example in the last component, `certificate`."""
    operator.recorded = key
    secret = SECRETS.get(key, APP_SECRET)
    operator.ends = [*[0] * secret.steps.index("deploys/site.py"), 1]
    assert operator.rotates(key, "--yes", stdin="sk_another") == NEEDS_A_PERSON
    assert read_env_file(operator.file)[key] != GOOD[key]
    assert [*ledger.read(operator.ages)] == [key]
    assert [step for step, _ in operator.ran] == [*secret.steps, "deploys/status.py"]
    said = capsys.readouterr().out
    assert "But another part of the converge failed, see above. Next: fix the cause, then make site ENV=prod" in said
    assert secret.after in said


def test_interrupted_once_the_new_one_is_in_use_it_stays(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.recorded, operator.ends = "REDIS_PASSWORD", [KeyboardInterrupt()]
    assert operator.rotates("REDIS_PASSWORD", "--yes") == NEEDS_A_PERSON
    assert read_env_file(operator.file)["REDIS_PASSWORD"] != GOOD["REDIS_PASSWORD"]
    assert [*ledger.read(operator.ages)] == ["REDIS_PASSWORD"]
    assert "fix the cause, then make site ENV=prod." in capsys.readouterr().out


@pytest.mark.parametrize("look", [1, KeyboardInterrupt()])
def test_a_failed_check_after_the_rotation_undoes_nothing(
    operator: Operator, look: int | BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a failed check nor an interruption after the rotation restores the old secret."""
    operator.ends = [0, look]
    assert operator.rotates("REDIS_PASSWORD", "--yes") == NEEDS_A_PERSON
    assert read_env_file(operator.file)["REDIS_PASSWORD"] != GOOD["REDIS_PASSWORD"]
    said = capsys.readouterr().out
    assert SECRETS["REDIS_PASSWORD"].after in said
    assert "make status ENV=prod" in said


@pytest.mark.parametrize("key", BY_HAND)
def test_a_secret_that_is_changed_by_hand_is_explained_and_nothing_is_done(
    operator: Operator, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.rotates(key) == DONE
    assert BY_HAND[key] in capsys.readouterr().out
    assert operator.ran == []


def test_every_secret_is_explained() -> None:
    known = {*SECRETS, *BY_HAND}
    assert {*GOOD} - known == {"STRIPE_API_KEY"}  # STRIPE_API_KEY is one of the app's own secrets
    assert APP_SECRET.after


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


@given(TEXT)
def test_any_value_is_written_so_that_it_is_read_again_and_all_else_stays(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    text = with_value(LAYOUT, "REDIS_PASSWORD", value)
    assert read_env_file(env_file(tmp_path_factory.mktemp("env"), text)) == {**GOOD, "REDIS_PASSWORD": value}
    assert with_value(text, "REDIS_PASSWORD", GOOD["REDIS_PASSWORD"]) == LAYOUT


@pytest.mark.parametrize("key", [key for key, secret in SECRETS.items() if secret.check])
def test_a_token_that_its_issuer_refuses_changes_nothing(
    operator: Operator, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The env file keeps the old token, even if that token was revoked, because the new token is certainly wrong."""
    operator.ends = [1]
    ages = operator.ages.read_bytes()
    assert operator.rotates(key, "--yes", stdin=ISSUED[key]) == REFUSED
    assert operator.ran == [(*proof(key), {**GOOD, key: ISSUED[key]})]
    assert operator.file.read_bytes().decode() == LAYOUT
    assert operator.ages.read_bytes() == ages
    assert "Nothing was changed" in capsys.readouterr().out
    assert all((ROOT / deploy).is_file() for deploy in proof(key))


def test_a_check_that_meets_a_lock_undoes_the_rotation(operator: Operator) -> None:
    """The rotation is undone if its last check meets a lock, although the droplet already has the new value."""
    operator.ends = [0, 0, LOCKED]
    assert operator.rotates("OFFSITE_PASSWORD", "--yes") == FAILED
    assert [step for step, _ in operator.ran] == [OPENS, "deploys/site.py", SHOWS, "deploys/site.py"]


def test_a_step_is_a_deploy_or_a_program_with_its_options() -> None:
    python = rotate.sys.executable
    assert rotate.command("prod", SHOWS) == [python, "-m", "pyinfra", "inventories/prod.py", SHOWS, "-y"]
    assert rotate.command("prod", ENDS) == [
        python,
        "-m",
        "deploys.offsite.setup",
        "inventories/prod.py",
        "--only-these",
    ]


def test_ctrl_d_and_ctrl_c_at_a_question_are_a_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    for end in (EOFError, KeyboardInterrupt):

        def ended(_: str, end: type[BaseException] = end) -> str:
            raise end

        monkeypatch.setattr("builtins.input", ended)
        with pytest.raises(RefusedError, match="you did not answer yes"):
            prompt.confirm("Rotate it now?")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(RefusedError, match="cannot ask for confirmation"):
        prompt.confirm("Drop them?")
