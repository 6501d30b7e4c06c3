"""The fakes of a droplet's services refuse unknown commands, so no test passes with a misspelt command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes.droplet import Droplet, installed
from tests.support.fakes.kills import killed
from tests.support.fakes.restic import REPOSITORY as BUCKET
from tests.support.fakes.restic import SECRETS, Storage

PSQL = ("docker", "exec", "-i", "--user", "postgres", "--env", "A", "--env")
SETTINGS = "PGOPTIONS=-c search_path=pg_catalog,pg_temp "
RESTIC = {
    "RESTIC_REPOSITORY": BUCKET,
    "RESTIC_PASSWORD": SECRETS["password"],
    "AWS_ACCESS_KEY_ID": SECRETS["key_id"],
    "AWS_SECRET_ACCESS_KEY": SECRETS["key_secret"],
}


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.mark.parametrize(
    "argv",
    [
        ["systemctl", "strat", "a.service"],
        ["systemctl", "start", "--no-wait", "a.service"],
        ["systemctl", "show", "--value", "a.service"],
        ["docker", "inspekt", "a"],
        ["docker", "image", "prune"],
        [*PSQL, SETTINGS, "postgres", "psql", "REASIGN OWNED BY a TO b"],
        [*PSQL, SETTINGS, "postgres", "psql", 'TRUNCATE DATABASE "a"'],
        [*PSQL, SETTINGS, "postgres", "psql", 'REASSIGN OWNED BY "a" ON "b"'],
        [*PSQL, SETTINGS, "postgres", "psql", 'DROP OWNED BY "a"; DORP ROLE "a"'],
        [*PSQL, SETTINGS, "postgres", "psql", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"],
        [*PSQL, SETTINGS, "postgres", "psql", "SELECT rolname FROM pg_catalog.pg_roles r WHERE true"],
        [*PSQL, SETTINGS, "postgres", "psql", "--username=stackctl_restore", "--dbname=a", "-c", "ANALYSE"],
        [*PSQL, SETTINGS, "postgres", "pg_dumb"],
    ],
    ids=lambda argv: argv[-1],
)
def test_an_unknown_command_is_an_error(fresh: Droplet, argv: list[str]) -> None:
    with pytest.raises(AssertionError):
        fresh.run(argv)


def test_an_unknown_verb_of_restic_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no verb forgett"):
        Storage().restic(["forgett"], RESTIC)


def test_an_unknown_method_of_telegram_is_an_error(fresh: Droplet) -> None:
    with pytest.raises(AssertionError, match="no method getMe"):
        fresh.request("POST", "https://api.telegram.org/botTOKEN/getMe", b"{}", {})


def test_a_failure_in_the_forked_stackctl_ends_it_there(fresh: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the forked stackctl ends the child process, which would otherwise continue as a second pytest."""
    monkeypatch.setattr("tests.support.fakes.kills.stackctl", None)
    with pytest.raises(AssertionError, match="stackctl raised"):
        killed(fresh, 1, "release", "1.0.0")
