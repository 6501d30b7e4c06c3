"""The webhook's secret and the data services' passwords are changed under load: no request lost, no update delayed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest
from testinfra.host import Host

from tests import converge
from tests.lab import secrets_file
from tests.lab.demo import delivery, post
from tests.lab.layout import ENV_FILE
from tests.places import Place
from tests.releases.load import Target, load

pytestmark = pytest.mark.group("app")

NEW = {
    "TELEGRAM_WEBHOOK_SECRET": "rotated-secret_0123456789",
    "DATABASE_PASSWORD": "rotated: p $w'ord é☃",
    "REDIS_PASSWORD": "rotated: r $d'is é☃",
}
REDIS = "docker exec toogoodtogo-data-redis-1"
ADMITTED = REDIS + """ sh -c 'REDISCLI_AUTH="$(cat /run/secrets/password)" redis-cli ACL GETUSER default'"""
LOGINS = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname ~ '^toogoodtogo_'"


def declare(name: str) -> None:
    values = secrets_file.read(ENV_FILE) | {name: NEW[name]}
    ENV_FILE.write_text("".join(secrets_file.line(*item) for item in values.items()))


@pytest.fixture
def rotate(lab: Place, droplet: Host) -> Iterator[Callable[[str], None]]:
    before = ENV_FILE.read_text()

    def rotate(name: str) -> None:
        declare(name)
        changed = converge.changed(converge.site())
        assert "app | Release the live tag anew, when what runs is not what is declared" in changed

    yield rotate
    ENV_FILE.write_text(before)
    converge.site()


def logins(droplet: Host) -> list[str]:
    psql = "docker exec toogoodtogo-data-postgres-1 psql -tA -U postgres -d telegram_marketplace"
    return str(droplet.check_output(f'{psql} -c "{LOGINS}"')).split()


def test_a_new_webhook_secret_loses_nothing(
    rotate: Callable[[str], None], target: Target, show: Callable[[str], None]
) -> None:
    """The clients go on with the old one, as updates do that Telegram sent before it was told."""
    with load(target, clients=20, rate=60) as running:
        rotate("TELEGRAM_WEBHOOK_SECRET")
        (update_id,) = post("/lab/updates", {"count": 1, "text": "/offers"})["update_ids"]
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    # Telegram itself was told the new one, and its first attempt was taken.
    assert delivery(update_id) == {"update_id": update_id, "attempts": 1, "deliveries": 1, "last_status": 200}


def test_a_new_database_password_loses_nothing_and_the_old_role_goes_in_time(
    rotate: Callable[[str], None], lab: Place, droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    former, before = lab.settings.login_role, logins(droplet)
    assert former in before
    with load(target, clients=20, rate=60) as running:
        rotate("DATABASE_PASSWORD")
        assert former in logins(droplet), "a rollback needs it"
        assert len(logins(droplet)) == len(before) + 1
    show(running.tally.table())
    assert not running.tally.lost
    # Three that differ are kept: two more, and none of them knows the old password.
    live = json.loads(droplet.check_output("stackctl status --json"))["release"]["tag"]
    droplet.check_output(f"stackctl release {'1.0.0' if live == '1.1.0' else '1.1.0'}")
    rotate("TELEGRAM_WEBHOOK_SECRET")
    assert former not in logins(droplet)


def test_a_redis_that_starts_anew_before_the_new_release_serves_still_admits_the_live_one(
    rotate: Callable[[str], None], lab: Place, droplet: Host
) -> None:
    """The converge stops behind the data services: a directory stands where the app's next environment is written."""
    former = sha256(secrets_file.read(ENV_FILE)["REDIS_PASSWORD"].encode()).hexdigest()
    hindrance = f"{lab.settings.paths.next_environment}.new"
    droplet.check_output(f"rm -f {hindrance} && mkdir {hindrance}")
    try:
        declare("REDIS_PASSWORD")
        converge.failing_site()
    finally:
        droplet.check_output(f"rmdir {hindrance}")
    droplet.check_output("docker restart toogoodtogo-data-redis-1")
    assert {former, sha256(NEW["REDIS_PASSWORD"].encode()).hexdigest()} <= {*droplet.check_output(ADMITTED).split()}
    health = (
        f"curl -sS --retry 10 --retry-all-errors --fail --unix-socket {lab.settings.paths.active} http://app/health"
    )
    assert '"status": "healthy"' in droplet.check_output(health)
    rotate("REDIS_PASSWORD")
    assert former not in droplet.check_output(ADMITTED)


def test_a_new_redis_password_loses_nothing_and_the_old_one_is_refused(
    rotate: Callable[[str], None], droplet: Host, target: Target, show: Callable[[str], None]
) -> None:
    started = droplet.check_output("docker inspect --format '{{.State.StartedAt}}' toogoodtogo-data-redis-1")
    former = sha256(secrets_file.read(ENV_FILE)["REDIS_PASSWORD"].encode()).hexdigest()
    new = sha256(NEW["REDIS_PASSWORD"].encode()).hexdigest()
    assert former in droplet.check_output(ADMITTED)
    with load(target, clients=20, rate=60) as running:
        rotate("REDIS_PASSWORD")
        time.sleep(2)
    show(running.tally.table())
    assert not running.tally.lost
    admitted = droplet.check_output(ADMITTED)
    assert new in admitted
    assert former not in admitted
    # And it lives on: its files say the same.
    assert droplet.check_output("docker inspect --format '{{.State.StartedAt}}' toogoodtogo-data-redis-1") == started
    droplet.check_output("docker restart toogoodtogo-data-redis-1")
    assert new in droplet.check_output(ADMITTED)
