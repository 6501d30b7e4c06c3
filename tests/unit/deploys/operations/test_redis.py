"""The app's password and permissions in Redis are set as declared."""

from __future__ import annotations

import os
import re
import subprocess
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pyinfra.facts.files import Sha256File

from deploys.facts.data import RedisUser, RedisUsers
from deploys.facts.files import FileState
from deploys.operations.data import APP, RULES, generated_secret, redis_password
from tests.support.operations import PLACED, Facts, commands, droplet


def sha256_of(password: str) -> str:
    return sha256(password.encode()).hexdigest()


NEW, OLD = sha256_of("new"), sha256_of("old")
ADMIN = "ad" * 32
STARTS_WITH: dict[tuple[str, ...], bytes] = {
    passwords: (
        f"include x\nuser default on {' '.join(f'#{sha256_of(one)}' for one in passwords)} {APP}\n"
        f"user stackctl on #{ADMIN} ~* &* +@all\n"
    ).encode()
    for passwords in (("new",), ("new", "old"))
}
REDIS: dict[str, Any] = {
    **{"container": "c", "password": "new", "administrator": "/s/administrator", "dest": "/s/redis.conf"},
    "directives": "include x\n",
}


def admitting(*passwords: str, rules: str = RULES, by_administrator: bool = True) -> RedisUser:
    return RedisUser(frozenset(map(sha256_of, passwords)), rules, by_administrator)


def redis(user: RedisUser, *, starts_with: tuple[str, ...], exclusive: bool, executing: bool = True) -> list[str]:
    """Return the commands that run if Redis's file is as declared."""
    there = {**PLACED, "sha256": sha256(STARTS_WITH[starts_with]).hexdigest()}
    facts: Facts = {RedisUsers: user, FileState: there, Sha256File: ADMIN}
    return commands(redis_password, facts, executing=executing, exclusive=exclusive, **REDIS)


@pytest.mark.parametrize(
    ("admitted", "beside", "alone"),
    [
        (["new"], 0, 0),
        (["old"], 1, 1),
        (["old", "new"], 0, 1),  # an earlier converge was interrupted
        ([], 0, 1),  # the user does not exist yet
    ],
)
def test_redis_takes_a_new_password_beside_the_old_one_and_then_alone(
    admitted: list[str], beside: int, alone: int
) -> None:
    both = ("new", "old") if "old" in admitted else ("new",)
    assert len(redis(admitting(*admitted), starts_with=both, exclusive=False)) == beside
    assert len(redis(admitting(*admitted), starts_with=("new",), exclusive=True)) == alone


@pytest.mark.parametrize(("alone", "wanted"), [(False, ("new", "old")), (True, ("new",))])
def test_redis_starts_with_the_passwords_that_it_admits_now(alone: bool, wanted: tuple[str, ...]) -> None:  # noqa: FBT001
    """If Redis restarts before the next release serves, Redis must still admit the live release."""
    with droplet({RedisUsers: admitting("new", "old"), FileState: None, Sha256File: ADMIN}):
        write, *_ = redis_password._inner(**REDIS, exclusive=alone)
    assert "/s/redis.conf.new" in str(write)
    assert b64decode(write.connector_arguments["_stdin"]) == STARTS_WITH[wanted]


@pytest.mark.parametrize("alone", [False, True])
def test_a_redis_that_admits_the_declared_password_alone_is_left_alone(alone: bool) -> None:  # noqa: FBT001
    assert redis(admitting("new"), starts_with=("new",), exclusive=alone) == []


def test_a_plan_expects_a_redis_that_is_down_to_start_with_the_declared_password() -> None:
    assert redis(admitting(), starts_with=("new", "old"), exclusive=True, executing=False) == []


def test_a_plan_of_the_first_converge_knows_no_password_of_the_administrator_yet() -> None:
    with droplet({RedisUsers: RedisUser(), FileState: None, Sha256File: None}, executing=False):
        (write,) = redis_password._inner(**REDIS)
    assert "/s/redis.conf.new" in str(write)


@pytest.mark.parametrize(
    ("user", "who"),
    [
        (admitting("new", rules="+@all", by_administrator=False), '/run/secrets/password)" redis-cli --user default'),
        (admitting("new", rules="+@all"), '/run/secrets/administrator)" redis-cli --user stackctl'),
        (admitting("new", by_administrator=False), '/run/secrets/password)" redis-cli --user default'),
    ],
    ids=["converged before November 2026", "other rules", "its administrator is refused"],
)
def test_what_the_app_may_do_is_taken_from_a_redis_that_runs(user: RedisUser, who: str) -> None:
    """One command sets both of Redis's users, so the app keeps its connections and its password."""
    with droplet({RedisUsers: user, FileState: {**PLACED, "sha256": "0"}, Sha256File: ADMIN}):
        _, command = redis_password._inner(**REDIS)
    assert who in str(command)
    assert '| grep -cx OK)" = 2' in str(command)
    assert str(command).endswith("Next: sudo docker restart c, then make site' >&2; false; }")
    assert command.connector_arguments["_stdin"] == [
        f"ACL SETUSER stackctl reset on #{ADMIN} ~* &* +@all",
        f"ACL SETUSER default #{NEW} ~* &* {RULES}",
    ]


@pytest.mark.parametrize(
    ("there", "made"),
    [(None, True), (PLACED, False), ({**PLACED, "mode": "644"}, True), ({**PLACED, "owner": "deploy"}, True)],
)
def test_a_secret_of_the_droplet_s_own_is_made_once(tmp_path: Path, there: Any, made: bool) -> None:  # noqa: FBT001
    dest = tmp_path / "administrator"
    run = commands(generated_secret, {FileState: there}, dest=str(dest))
    assert bool(run) == made
    found = []
    for _ in range(2 * bool(run)):
        for command in run:
            subprocess.run(["sh", "-c", command.replace("root:root", f"{os.getuid()}:{os.getgid()}")], check=True)
        found.append(dest.read_bytes())
        assert dest.stat().st_mode & 0o777 == 0o600
        dest.chmod(0o644)
    assert len(set(found)) == made, "a second run must keep the secret"
    assert all(re.fullmatch(b"[0-9a-f]{64}", one) for one in found)


def test_redis_is_told_on_standard_input() -> None:
    facts: Facts = {RedisUsers: admitting("old"), FileState: None, Sha256File: ADMIN}
    with droplet(facts):
        write, command = redis_password._inner(**REDIS, exclusive=True)
    assert NEW not in f"{write} {command}"
    assert command.connector_arguments["_stdin"][1] == f"ACL SETUSER default resetpass #{NEW} {APP}"
