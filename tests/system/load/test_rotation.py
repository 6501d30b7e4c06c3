"""Secrets change under load. No request is lost, and no update is delayed.

The tests change a secret by converging with another value, or with `python -m deploys.rotation.rotate`, as an operator
does.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

import pytest
import requests
from testinfra.host import Host

from deploys.facts.data import redis_cli
from deploys.operations.data import RULES
from deploys.rotation.secrets import SECRETS
from deploys.secrets import ledger
from deploys.terminal.exit_codes import DONE, NEEDS_A_PERSON, REFUSED
from stackctl.services.redis import ADMINISTRATOR
from tests.lab import lab as whole_lab
from tests.lab import secrets_file
from tests.lab.demo import TELEGRAM, deliver_an_update, delivery, post
from tests.lab.layout import ENV_FILE
from tests.support import converge
from tests.support.environment import ROOT, Environment, status
from tests.support.load import Target, load

pytestmark = pytest.mark.group("app")

NEW = {
    "TELEGRAM_WEBHOOK_SECRET": "rotated-secret_0123456789",
    "DATABASE_PASSWORD": "rotated: p $w'ord é☃",
    "REDIS_PASSWORD": "rotated: r $d'is é☃",
}
ADMITTED = "ACL GETUSER default"
LOGINS = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname ~ '^toogoodtogo_'"


def declare(name: str) -> None:
    values = secrets_file.read(ENV_FILE) | {name: NEW[name]}
    ENV_FILE.write_text("".join(secrets_file.line(*item) for item in values.items()))


@pytest.fixture
def restored(lab: Environment) -> Iterator[None]:
    """Restore every secret and its recorded age after the test."""
    ages = Path(lab.settings.values.secrets_ledger)
    before, ages_before = ENV_FILE.read_bytes(), ages.read_bytes()
    yield
    ENV_FILE.write_bytes(before)
    ages.write_bytes(ages_before)
    converge.site()


@pytest.fixture
def rotate(restored: None) -> Callable[[str], None]:
    def rotate(name: str) -> None:
        declare(name)
        changed = converge.changed(converge.site())
        assert "app | Release the live tag again if it does not run as declared" in changed

    return rotate


def start_rotating(key: str) -> subprocess.Popen[str]:
    """Start a rotation as an operator does, without a terminal."""
    command = [sys.executable, "-m", "deploys.rotation.rotate", "inventories/lab.py", key, "--yes"]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=both, text=True)


def rotating(key: str, value: str = "") -> tuple[int, str]:
    """Run a rotation, and return its exit code and output."""
    running = start_rotating(key)
    said, _ = running.communicate(f"{value}\n")
    return running.returncode, said


def another_token(token: str) -> str:
    """Return another token of the same bot."""
    return f"{token.partition(':')[0]}:{token_urlsafe(27)[:35]}"


def age_all_secrets(ages: Path) -> None:
    entries = ledger.read(ages).items()
    ledger.write(ages, {name: ledger.Entry(one.fingerprint, date(2026, 1, 1)) for name, one in entries})


def logins(lab: Environment, droplet: Host) -> list[str]:
    return lab.ask_postgres(droplet, LOGINS).split()


def test_a_new_webhook_secret_loses_nothing(
    rotate: Callable[[str], None], target: Target, show: Callable[[str], None]
) -> None:
    """The clients keep sending the old secret, as Telegram does for updates that were under way at the change."""
    with load(target, clients=20, rate=60) as running:
        rotate("TELEGRAM_WEBHOOK_SECRET")
        (update_id,) = post("/lab/updates", {"count": 1, "text": "/offers"})["update_ids"]
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    # Telegram knows the new secret, and the app accepts the first attempt.
    assert delivery(update_id) == {"update_id": update_id, "attempts": 1, "deliveries": 1, "last_status": 200}


def test_a_new_database_password_loses_nothing_and_the_old_role_goes_in_time(
    rotate: Callable[[str], None], lab: Environment, droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    former, before = lab.settings.login_role, logins(lab, droplet)
    assert former in before
    with load(target, clients=20, rate=60) as running:
        rotate("DATABASE_PASSWORD")
        after = logins(lab, droplet)
        assert former in after, "the former role is gone, although a rollback needs it"
        assert set(after) - set(before), "the live release has no new role"
    show(running.tally.table())
    assert not running.tally.lost
    # Three different releases are kept. After two more releases, none of the kept releases knows the old password.
    live = status(droplet)["release"]["tag"]
    droplet.check_output(f"stackctl release {'1.0.0' if live == '1.1.0' else '1.1.0'}")
    rotate("TELEGRAM_WEBHOOK_SECRET")
    assert former not in logins(lab, droplet)


def test_a_redis_that_restarts_before_the_new_release_serves_still_admits_the_live_one(
    rotate: Callable[[str], None], lab: Environment, droplet: Host
) -> None:
    """Redis restarts before the new release serves, and still admits the live release.

    The converge stops after the data services, because a directory with the same name prevents the write of the app
    environment.
    """
    former = sha256(secrets_file.read(ENV_FILE)["REDIS_PASSWORD"].encode()).hexdigest()
    hindrance = f"{lab.settings.paths.next_environment}.new"
    droplet.check_output(f"rm -f {hindrance} && mkdir {hindrance}")
    try:
        declare("REDIS_PASSWORD")
        converge.failing_site()
    finally:
        droplet.check_output(f"rmdir {hindrance}")
    droplet.check_output(f"docker restart {lab.settings.paths.docker.data_container('redis')}")
    assert {former, sha256(NEW["REDIS_PASSWORD"].encode()).hexdigest()} <= {*lab.ask_redis(droplet, ADMITTED).split()}
    health = (
        f"curl -sS --retry 10 --retry-all-errors --fail --unix-socket {lab.settings.paths.active} http://app/health"
    )
    assert '"status": "healthy"' in droplet.check_output(health)
    rotate("REDIS_PASSWORD")
    assert former not in lab.ask_redis(droplet, ADMITTED)


def test_a_new_redis_password_loses_nothing_and_the_old_one_is_refused(
    rotate: Callable[[str], None], lab: Environment, droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    redis = lab.settings.paths.docker.data_container("redis")
    started = droplet.check_output(f"docker inspect --format '{{{{.State.StartedAt}}}}' {redis}")
    former = sha256(secrets_file.read(ENV_FILE)["REDIS_PASSWORD"].encode()).hexdigest()
    new = sha256(NEW["REDIS_PASSWORD"].encode()).hexdigest()
    assert former in lab.ask_redis(droplet, ADMITTED)
    with load(target, clients=20, rate=60) as running:
        rotate("REDIS_PASSWORD")
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    admitted = lab.ask_redis(droplet, ADMITTED)
    assert new in admitted
    assert former not in admitted
    # Redis was not restarted meanwhile. A restart of Redis would change nothing, because its files name the same users.
    assert droplet.check_output(f"docker inspect --format '{{{{.State.StartedAt}}}}' {redis}") == started
    droplet.check_output(f"docker restart {redis}")
    assert new in lab.ask_redis(droplet, ADMITTED)


def test_a_redis_whose_app_was_its_administrator_is_corrected_while_it_serves(
    rotate: Callable[[str], None], lab: Environment, droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    """Until November 2026, the app was Redis's administrator.

    One converge takes the administrator's permissions from the app and changes the password.
    """
    redis, file = lab.settings.paths.docker.data_container("redis"), lab.settings.paths.redis_administrator
    started = droplet.check_output(f"docker inspect --format '{{{{.State.StartedAt}}}}' {redis}")
    lab.ask_redis(droplet, "ACL SETUSER default +@all")
    as_before = shlex.quote(f"{redis_cli('password')} ACL DELUSER {ADMINISTRATOR}")
    assert droplet.check_output(f"docker exec {redis} sh -c {as_before} && rm {file}") == "1"
    with load(target, clients=20, rate=60) as running:
        rotate("REDIS_PASSWORD")
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    admitted = lab.ask_redis(droplet, ADMITTED).split("\n")
    assert admitted[admitted.index("commands") + 1] == RULES
    assert sha256(NEW["REDIS_PASSWORD"].encode()).hexdigest() in admitted
    assert droplet.check_output(f"docker inspect --format '{{{{.State.StartedAt}}}}' {redis}") == started
    assert converge.changed(converge.site()) == set()
    droplet.check_output(f"docker restart {redis}")
    assert RULES in lab.ask_redis(droplet, ADMITTED), "after a restart, Redis lacks one of its users"


def test_an_interrupted_rotation_is_run_again_and_loses_nothing(
    restored: None, lab: Environment, droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    key, ages = "DATABASE_PASSWORD", Path(lab.settings.values.secrets_ledger)
    before, ages_before, logins_before = ENV_FILE.read_bytes(), ages.read_bytes(), logins(lab, droplet)
    with load(target, clients=20, rate=60) as running:
        running.phase("interrupted")
        interrupted = start_rotating(key)
        assert interrupted.stdout
        # When nginx is configured, the new role exists, and no release has started.
        converge.wait_for(interrupted.stdout, "nginx | Configure nginx")
        interrupted.terminate()
        said, _ = interrupted.communicate()
        assert interrupted.returncode == NEEDS_A_PERSON
        assert "make site ENV=lab, which restores the old value there, or rotate again" in said
        assert ENV_FILE.read_bytes() == before
        assert ages.read_bytes() == ages_before
        assert len(logins(lab, droplet)) == len(logins_before) + 1
        age_all_secrets(ages)
        running.phase("again")
        code, said = rotating(key)
    show(running.tally.table())
    assert not running.tally.lost
    assert code == DONE, said[-2000:]
    new = secrets_file.read(ENV_FILE)[key]
    assert new.encode() not in before
    assert new not in said
    assert said.rstrip().endswith("has the new age. Commit this file.")
    assert [name for name, entry in ledger.read(ages).items() if entry.since == ledger.today()] == [key]
    assert converge.changed(converge.site()) == set()


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("TELEGRAM_BOT_TOKEN", another_token), ("REGISTRY_PASSWORD", "not {}".format)],
    ids=["telegram", "registry"],
)
def test_a_value_that_its_issuer_doesn_t_know_changes_nothing(
    lab: Environment, droplet: Host, key: str, wrong: Callable[[str], str]
) -> None:
    on_the_droplet = f"sha256sum {lab.settings.paths.next_environment} /root/.docker/config.json"
    in_use, before, there = (
        secrets_file.read(ENV_FILE)[key],
        ENV_FILE.read_bytes(),
        droplet.check_output(on_the_droplet),
    )
    proof = [*converge.PYINFRA[:-1], "-y", str(SECRETS[key].check)]
    assert subprocess.run(proof, cwd=ROOT, check=False, capture_output=True).returncode == 0, (
        "control: the check refused the right value"
    )
    code, said = rotating(key, wrong(in_use))
    assert code == REFUSED, said[-2000:]
    assert "nauthorized" in said
    assert ENV_FILE.read_bytes() == before
    assert droplet.check_output(on_the_droplet) == there


def test_a_revoked_bot_token_is_replaced_and_no_request_is_lost(
    lab: Environment, target: Target, show: Callable[[str], None]
) -> None:
    """The test does not restore the old token, because Telegram, the env file and the droplet all have the new one."""
    key = "TELEGRAM_BOT_TOKEN"
    former = secrets_file.read(ENV_FILE)[key]
    new = another_token(former)
    with load(target, clients=20, rate=60) as running:
        whole_lab.revoke(new)
        code, said = rotating(key, new)
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    assert code == DONE, said[-2000:]
    assert new not in said
    assert requests.get(f"{TELEGRAM}/bot{former}/getMe", timeout=10).status_code == requests.codes.unauthorized
    deliver_an_update()
    assert requests.get(f"{TELEGRAM}/lab/messages", timeout=10).json()["messages"], "the bot cannot send messages"
