"""After drift, the plan shows exactly what the next converge corrects. A second converge changes nothing."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from stackctl.core.paths import Paths
from tests.lab.demo import WEBHOOK
from tests.support import converge
from tests.support.environment import Environment

pytestmark = pytest.mark.group("app")

FEWEST_OPERATIONS = 60
"""The fewest operations of a converge. A site without components would also change nothing."""

PATHS = Paths("toogoodtogo")
DATA = f"docker compose --env-file /dev/null -p {PATHS.docker.data_project} -f"
OTHER_REDIS = "registry.lab.test/redis:of-another-time"

SSH = "ssh | Configure SSH: keys only, no root"
FIREWALL = "firewall | Allow only SSH, HTTP and HTTPS"
DATA_SERVICES = "data_services | Start PostgreSQL and Redis"

DRIFT: dict[str, tuple[str, set[str]]] = {
    "changed file": ("sed -i 's/MaxAuthTries 3/MaxAuthTries 30/' /etc/ssh/sshd_config.d/00-toogoodtogo.conf", {SSH}),
    "foreign key": (
        "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF mallory' "
        ">> /home/deploy/.ssh/authorized_keys",
        {SSH},
    ),
    "wrong mode": (f"chmod 644 {PATHS.secrets}/redis/password", {"data_services | Write Redis's password"}),
    "stopped container": (f"docker stop {PATHS.docker.data_container('redis')}", {DATA_SERVICES}),
    "container of another image": (
        f"docker tag registry.lab.test/redis:8-trixie {OTHER_REDIS} && "
        f"sed 's#image: .*/redis:.*#image: {OTHER_REDIS}#' {PATHS.data_yaml} > /tmp/other.yaml && "
        f"{DATA} /tmp/other.yaml up --detach redis && rm /tmp/other.yaml",
        {DATA_SERVICES},
    ),
    "stopped app": (
        "docker stop $(docker ps -q --filter label=toogoodtogo.release)",
        {"app | Release the live tag again if it does not run as declared"},
    ),
    "another environment": (
        f"sed -i 's/INFO/DEBUG/' {PATHS.next_environment}",
        {"app | Write the app environment for the next release"},
    ),
    "edited unit": (
        f"echo OnActiveSec=1h >> /etc/systemd/system/{PATHS.units.trial_timer('')}",
        {"ssh | Install the systemd units that revert a change"},
    ),
    "disabled unit": (
        f"systemctl disable {PATHS.units.app}",
        {"app | Start the stack now and at boot"},
    ),
    "removed firewall rule": ("ufw delete allow 443/tcp", {FIREWALL}),
    "foreign firewall rule": ("ufw allow 5432/tcp", {FIREWALL}),
    "firewall rule removed for IPv6 alone": (
        "ufw --force delete $(ufw status numbered | sed -n 's/^\\[ *\\([0-9]*\\)\\] 443.tcp (v6).*/\\1/p')",
        {FIREWALL},
    ),
    "foreign route through the firewall": ("ufw route allow in on eth9", {FIREWALL}),
    "edited daemon.json": (
        'sed -i \'s/"live-restore": true/"live-restore": false/\' /etc/docker/daemon.json',
        {"docker | Configure Docker", "docker | Restart Docker (containers keep running)"},
    ),
}

ROUNDS = [
    ["removed firewall rule", "changed file"],
    ["foreign firewall rule", "foreign key", "container of another image", "another environment"],
    ["firewall rule removed for IPv6 alone", "stopped app", "edited unit"],
    ["foreign route through the firewall", "edited daemon.json", "wrong mode"],
    ["stopped container", "disabled unit"],
]
"""Kinds of drift that are caused together, because a converge takes the same time for any number of them.

In one round, no operation corrects two kinds and no kind hides another. So the app is not stopped in a round that also
breaks its data or the daemon. A slow kind is not in the round with a stopped Redis, because the app becomes unhealthy
30 s after Redis stops.
"""
OF_NO_KIND = "of no kind that was broken"


def by_kind(kinds: list[str], operations: set[str]) -> dict[str, set[str]]:
    """Group the operations by the kind of drift that is expected to cause them."""
    found = {kind: operations & DRIFT[kind][1] for kind in kinds}
    return {**found, OF_NO_KIND: operations.difference(*found.values())}


def test_a_round_breaks_each_kind_once_and_tells_its_kinds_apart() -> None:
    assert sorted(kind for kinds in ROUNDS for kind in kinds) == sorted(DRIFT)
    for kinds in ROUNDS:
        expected = [operation for kind in kinds for operation in DRIFT[kind][1]]
        assert len(expected) == len(set(expected)), kinds


@pytest.mark.parametrize("kinds", ROUNDS, ids=", ".join)
def test_drift_is_planned_and_mended(lab: Environment, droplet: Host, kinds: list[str]) -> None:
    for kind in kinds:
        droplet.check_output(DRIFT[kind][0])
    planned = converge.planned()
    # Converge even if the plan was wrong, so that the next test starts without drift.
    changed = converge.changed(converge.site())
    expected = {**{kind: DRIFT[kind][1] for kind in kinds}, OF_NO_KIND: set()}
    assert {"planned": by_kind(kinds, planned), "changed": by_kind(kinds, changed)} == {
        "planned": expected,
        "changed": expected,
    }


def test_a_second_converge_changes_nothing_even_days_later(lab: Environment, droplet: Host) -> None:
    droplet.check_output("find /var/lib/apt/lists /var/lib/apt/periodic -exec touch -d '3 days ago' {} +")
    results = converge.site()
    assert converge.changed(results) == set()
    assert results["totals"]["success"] == 0
    assert results["totals"]["error"] == 0
    assert results["totals"]["no_change"] >= FEWEST_OPERATIONS


def test_an_image_that_is_pinned_by_its_digest_is_brought_once(lab: Environment, droplet: Host) -> None:
    image, container = lab.settings.values.redis_image, PATHS.docker.data_container("redis")
    there = droplet.check_output(f"docker image inspect --format '{{{{index .RepoDigests 0}}}}' {image}")
    pinned = f"{image}@{there.partition('@')[2]}"
    option = ("--data", f"redis_image={pinned}")
    try:
        assert DATA_SERVICES in converge.changed(converge.site(*option))
        assert droplet.check_output(f"docker inspect --format '{{{{.Config.Image}}}}' {container}") == pinned
        assert converge.planned(*option) == set()
        assert converge.changed(converge.site(*option)) == set()
    finally:
        converge.site()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("domian=bot.lab.test", "group_data: domian is not known: did you mean domain?"),
        ("postgres_memory_mib=4096", "is too small for"),
        ("env_file=.env.nowhere", ".env.nowhere is missing. Next: copy .env.production.template"),
        ("authorized_keys=.lab/nobody.pub", "authorized_keys: .lab/nobody.pub is missing"),
    ],
)
def test_a_wrong_value_stops_the_run_before_the_first_change(lab: Environment, option: str, line: str) -> None:
    said = converge.failing_site("--data", option)
    assert [line in one for one in said.splitlines()].count(True) == 1
    assert "Starting operation" not in said
    assert "Traceback" not in said


def test_a_converge_waits_for_another_use_of_apt(lab: Environment, droplet: Host) -> None:
    droplet.check_output("apt-get remove -qq -y logrotate")
    hold = "import fcntl, time; fcntl.lockf(open('/var/lib/apt/lists/lock', 'w'), fcntl.LOCK_EX); time.sleep(8)"
    droplet.check_output(f'systemd-run --quiet --unit=holds-apt python3 -c "{hold}"')
    assert converge.changed(converge.site()) == {"nginx | Install nginx"}
    assert droplet.package("logrotate").is_installed


def test_nginx_answers_503_for_an_app_that_is_down(lab: Environment, droplet: Host) -> None:
    """nginx answers 503 with Retry-After, so that Telegram repeats its request soon.

    After a 502, Telegram would wait long.

    nginx waits up to 30 s for a stopped container whose address nginx remembers.
    """
    web = droplet.check_output("docker ps --quiet --filter label=com.docker.compose.service=web")
    droplet.check_output(f"docker stop {web}")
    try:
        answer = lab.ask_as_telegram(WEBHOOK, "-X POST --max-time 40")
        assert answer.startswith("HTTP/2 503")
        assert "retry-after: 5" in answer
        assert "strict-transport-security" in answer
    finally:
        droplet.check_output(f"docker start {web}")
        droplet.check_output("timeout 60 sh -c 'until stackctl status; do sleep 0.5; done'")
