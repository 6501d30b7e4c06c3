"""The off-site repository's password is rotated. The old password works until the new one is tested."""

from __future__ import annotations

import pytest

from deploys.rotation.secrets import SECRETS
from deploys.secrets.env_file import read_env_file
from deploys.terminal.exit_codes import DONE, FAILED, LOCKED, NEEDS_A_PERSON
from tests.support.env_file import GOOD
from tests.support.rotations import ENDS, LAYOUT, OPENS, SHOWS, Operator
from tests.support.settings import ROOT


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ("OFFSITE_PASSWORD", [OPENS, "deploys/site.py", SHOWS, ENDS]),
        ("OFFSITE_OPERATOR_PASSWORD", [OPENS, "deploys/site.py", ENDS]),
    ],
)
def test_both_passwords_open_the_repository_until_the_new_one_is_shown_to(
    operator: Operator, key: str, steps: list[str]
) -> None:
    assert operator.rotates(key, "--yes") == DONE
    assert [deploy for deploy, _ in operator.ran] == [*steps, "deploys/status.py"]
    assert all(values[key] != GOOD[key] for _, values in operator.ran)
    assert (ROOT / SHOWS).is_file()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_password_of_the_repository_that_fails_is_undone_with_the_old_one_still_opening(
    operator: Operator, failing: int
) -> None:
    operator.ends = [*[0] * failing, 1]
    assert operator.rotates("OFFSITE_PASSWORD", "--yes") == FAILED
    assert operator.file.read_bytes().decode() == LAYOUT
    steps = [OPENS, "deploys/site.py", SHOWS, ENDS][: failing + 1]
    assert [deploy for deploy, _ in operator.ran] == [*steps, "deploys/site.py"]


@pytest.mark.parametrize("end", [1, KeyboardInterrupt()])
@pytest.mark.parametrize("key", ["OFFSITE_PASSWORD", "OFFSITE_OPERATOR_PASSWORD"])
def test_the_new_repository_password_stays_once_old_ones_are_being_revoked(
    operator: Operator, key: str, end: int | BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """The env file keeps the new password, because the old one may be revoked and only the env file has the new one."""
    steps = SECRETS[key].steps
    operator.recorded, operator.ends = key, [*[0] * steps.index(ENDS), end]
    assert operator.rotates(key, "--yes") == NEEDS_A_PERSON
    values = read_env_file(operator.file)
    assert values[key] != GOOD[key]
    assert all(seen == values for _, seen in operator.ran)
    assert [step for step, _ in operator.ran] == [*steps]
    again = ".venv/bin/python -m deploys.offsite.setup inventories/prod.py --only-these"
    assert f"fix the cause, then {again}. If" in capsys.readouterr().out


def test_a_locked_droplet_leaves_an_unused_repository_password(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.ends = [0, LOCKED]
    assert operator.rotates("OFFSITE_PASSWORD", "--yes") == LOCKED
    assert operator.file.read_bytes().decode() == LAYOUT
    assert (
        "also accepts a password that is now lost. The next rotation revokes that password" in capsys.readouterr().out
    )
