"""After drift the plan tells the truth and the site mends exactly that; a second converge changes nothing."""

from __future__ import annotations

import pytest
from stackctl.paths import Paths
from testinfra.host import Host

from tests import converge
from tests.lab.demo import WEBHOOK
from tests.places import Place

pytestmark = pytest.mark.group("app")

FEWEST_OPERATIONS = 60
"""What a converge looks at, at least: a site that lost its components would change nothing either."""

PATHS = Paths("toogoodtogo")
DATA = f"docker compose --env-file /dev/null -p {PATHS.data_project} -f"
OTHER_REDIS = "registry.lab.test/redis:of-another-time"

DRIFT: dict[str, tuple[str, set[str]]] = {
    "changed file": (
        "sed -i 's/MaxAuthTries 3/MaxAuthTries 30/' /etc/ssh/sshd_config.d/00-toogoodtogo.conf",
        {"ssh | Admit keys only, and never root"},
    ),
    "wrong mode": (f"chmod 644 {PATHS.secrets}/redis/password", {"data_services | Place Redis's password"}),
    "stopped container": (
        f"docker stop {PATHS.data_project}-redis-1",
        {"data_services | Run PostgreSQL and Redis"},
    ),
    "stopped app": (
        "docker stop $(docker ps -q --filter label=toogoodtogo.release)",
        {"app | Release the live tag anew, when what runs is not what is declared"},
    ),
    "container of another image": (
        f"docker tag registry.lab.test/redis:8-trixie {OTHER_REDIS} && "
        f"sed 's#image: .*/redis:.*#image: {OTHER_REDIS}#' {PATHS.data_yaml} > /tmp/other.yaml && "
        f"{DATA} /tmp/other.yaml up --detach redis && rm /tmp/other.yaml",
        {"data_services | Run PostgreSQL and Redis"},
    ),
    "edited unit": (
        f"echo OnActiveSec=1h >> /etc/systemd/system/{PATHS.trial_timer('')}",
        {"ssh | Install what undoes a change"},
    ),
    "disabled unit": (
        f"systemctl disable {PATHS.unit}",
        {"app | Bring the stack up at boot, and down in order"},
    ),
    "removed firewall rule": (
        "ufw delete allow 443/tcp",
        {"firewall | Let SSH, HTTP and HTTPS in, and nothing else"},
    ),
    "foreign firewall rule": (
        "ufw allow 5432/tcp",
        {"firewall | Let SSH, HTTP and HTTPS in, and nothing else"},
    ),
    "firewall rule removed for IPv6 alone": (
        "ufw --force delete $(ufw status numbered | sed -n 's/^\\[ *\\([0-9]*\\)\\] 443.tcp (v6).*/\\1/p')",
        {"firewall | Let SSH, HTTP and HTTPS in, and nothing else"},
    ),
    "foreign route through the firewall": (
        "ufw route allow in on eth9",
        {"firewall | Let SSH, HTTP and HTTPS in, and nothing else"},
    ),
    "edited daemon.json": (
        'sed -i \'s/"live-restore": true/"live-restore": false/\' /etc/docker/daemon.json',
        {"docker | Configure the daemon", "docker | Restart the daemon (containers live on)"},
    ),
    "foreign key": (
        "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF mallory' "
        ">> /home/deploy/.ssh/authorized_keys",
        {"ssh | Admit keys only, and never root"},
    ),
    "another environment": (
        f"sed -i 's/INFO/DEBUG/' {PATHS.next_environment}",
        {"app | Place the app's next environment"},
    ),
}


@pytest.mark.parametrize("kind", DRIFT)
def test_drift_is_planned_and_mended(lab: Place, droplet: Host, kind: str) -> None:
    break_it, operations = DRIFT[kind]
    droplet.check_output(break_it)
    planned = converge.planned()
    changed = converge.changed(converge.site())  # whatever was planned, or the next test would meet this drift, too
    assert (planned, changed) == (operations, operations)


def test_a_second_converge_changes_nothing_even_days_later(lab: Place, droplet: Host) -> None:
    droplet.check_output("find /var/lib/apt/lists /var/lib/apt/periodic -exec touch -d '3 days ago' {} +")
    results = converge.site()
    assert converge.changed(results) == set()
    assert results["totals"]["success"] == 0
    assert results["totals"]["error"] == 0
    assert results["totals"]["no_change"] >= FEWEST_OPERATIONS


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("domian=bot.lab.test", "group_data: domian is not known: did you mean domain?"),
        ("postgres_memory_mib=4096", "is too small for"),
        ("env_file=.env.nowhere", ".env.nowhere is missing: copy .env.production.template"),
        ("authorized_keys=.lab/nobody.pub", "authorized_keys: .lab/nobody.pub is missing"),
    ],
)
def test_a_wrong_value_stops_the_run_before_the_first_change(lab: Place, option: str, line: str) -> None:
    said = converge.failing_site("--data", option)
    assert [line in one for one in said.splitlines()].count(True) == 1
    assert "Starting operation" not in said
    assert "Traceback" not in said


def test_a_converge_waits_for_whoever_uses_apt(lab: Place, droplet: Host) -> None:
    droplet.check_output("apt-get remove -qq -y logrotate")
    hold = "import fcntl, time; fcntl.lockf(open('/var/lib/apt/lists/lock', 'w'), fcntl.LOCK_EX); time.sleep(8)"
    droplet.check_output(f'systemd-run --quiet --unit=holds-apt python3 -c "{hold}"')
    assert converge.changed(converge.site()) == {"nginx | Install nginx"}
    assert droplet.package("logrotate").is_installed


def test_a_dead_app_is_answered_for(lab: Place, droplet: Host) -> None:
    """Telegram backs off for long after a 502; a 503 with Retry-After brings it back soon.

    Soon after a container was stopped its address is still remembered: nginx gives it 30 s, to start again perhaps.
    """
    web = droplet.check_output("docker ps --quiet --filter label=com.docker.compose.service=web")
    droplet.check_output(f"docker stop {web}")
    try:
        answer = lab.ask_as_telegram(WEBHOOK, "-X POST --max-time 40")
        assert answer.startswith("HTTP/2 503")
        assert "retry-after: 5" in answer
        assert "strict-transport-security" in answer
    finally:
        converge.site()
