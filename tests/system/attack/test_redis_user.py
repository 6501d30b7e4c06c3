"""An attacker with uid 999 in Redis's container, or with the app's password, can change only Redis's keys."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from deploys.facts.data import redis_cli
from tests.support.data import backups, problems
from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")

TARGET = "/etc/modprobe.d/zz-attack.conf"
PAYLOAD = "\ninstall net-pf-21 /bin/sh -c 'id > /root/attacked'\n"
KEY = "attack"


@pytest.fixture
def inside(lab: Environment) -> str:
    """Return a command that runs a shell as uid 999 in Redis's container."""
    return f"docker exec --user 999 {lab.settings.paths.docker.data_container('redis')} sh -c"


@pytest.fixture
def planted(droplet: Host, lab: Environment, inside: str) -> Iterator[str]:
    """Plant the payload as a Redis key, and plant a link to a file of the host under the name that a restore writes."""
    assert not droplet.file(TARGET).exists
    lab.ask_redis(droplet, f"set {KEY} {shlex.quote(PAYLOAD)}")
    droplet.check_output(f"{inside} {shlex.quote(f'ln -sfn {TARGET} /data/dump.rdb.new')}")
    yield f"{lab.settings.values.data_root}/redis/dump.rdb.new"
    droplet.check_output(f"{inside} 'rm -f /data/dump.rdb.new'")
    lab.ask_redis(droplet, f"del {KEY}")
    droplet.check_output(f"rm -f {TARGET}")


def test_a_link_that_redis_lays_leads_a_restore_nowhere(droplet: Host, lab: Environment, planted: str) -> None:
    """In attack S2, root followed the link and overwrote a file of the host with a dump that the attacker controls."""
    droplet.check_output("stackctl backup")
    id_ = backups(droplet)[-1]["id"]
    droplet.check_output(f"stackctl restore {id_} --yes {id_}")
    assert not droplet.file(TARGET).exists
    assert not droplet.file(planted).exists, "the restore left the planted link"
    assert "install net-pf-21" in lab.ask_redis(droplet, f"get {KEY}"), "Redis lacks the backup's key"
    assert problems(droplet) == []


def test_the_control_a_file_that_is_written_by_its_name_goes_through_the_link(
    droplet: Host, planted: str, lab: Environment
) -> None:
    """As the control, this test writes to the path as root, as a restore did until November 2026."""
    droplet.check_output("stackctl backup")
    id_ = backups(droplet)[-1]["id"]
    rdb = lab.settings.paths.backup(id_) / "redis.rdb"
    droplet.check_output(f'python3 -c \'import shutil; shutil.copyfile("{rdb}", "{planted}")\'')
    assert "install net-pf-21" in droplet.check_output(f"cat {TARGET} | tr -cd '[:print:]'")


ADMINISTRATORS = [
    *("config set dir /tmp", "config get requirepass", "module load /data/x.so", "replicaof 10.77.0.9 6379"),
    *("slaveof 10.77.0.9 6379", "debug sleep 10", "acl setuser x on nopass", "acl list", "shutdown nosave", "save"),
    *("bgsave", "bgrewriteaof", "monitor", "client kill id 1", "client pause 10000", "failover", "swapdb 0 1", "sync"),
    *("psync '?' -1", "replconf capa eof", "migrate 10.77.0.9 6379 x 0 10", "restore x 0 y", "function restore x"),
    *("cluster meet 10.77.0.9 6379", "slowlog get", "latency reset"),
]
THE_APP_S = [
    *(
        "get x",
        "set x 1 ex 60",
        "incr x",
        "keys 'x*'",
        "scan 0",
        "info",
        "client setname x",
        "client list",
        "command count",
    ),
    *("eval x 0", "evalsha x 0", "script load x", "function list", "publish x y", "subscribe x", "multi", "flushdb"),
    *("flushall", "xadd x '*' a b", "sort x", "object freq x", "memory usage x", "select 1", "hello 3", "acl whoami"),
]


@pytest.mark.parametrize("command", ADMINISTRATORS)
def test_the_app_s_password_makes_nobody_redis_s_administrator(droplet: Host, lab: Environment, command: str) -> None:
    """Ask Redis with DRYRUN, which changes nothing. The control shows that the administrator may run the command."""
    assert "has no permissions" in lab.ask_redis(droplet, f"ACL DRYRUN default {command}")
    assert lab.ask_redis(droplet, f"ACL DRYRUN stackctl {command}") == "OK"


@pytest.mark.parametrize("command", THE_APP_S)
def test_what_libraries_ask_for_is_the_app_s(droplet: Host, lab: Environment, command: str) -> None:
    assert lab.ask_redis(droplet, f"ACL DRYRUN default {command}") == "OK"


@pytest.mark.parametrize("command", ["slowlog len", "eval \"return redis.call('slowlog', 'len')\" 0"])
def test_what_dryrun_says_is_what_happens(droplet: Host, lab: Environment, command: str) -> None:
    """Redis refuses the commands with the app's password, both directly and in a script."""
    container = lab.settings.paths.docker.data_container("redis")
    asked = shlex.quote(f"{redis_cli('password')} {command}")
    assert "has no permissions" in droplet.check_output(f"docker exec {container} sh -c {asked}")
    assert lab.ask_redis(droplet, command).isdecimal()


def test_the_administrator_s_password_is_root_s_alone(droplet: Host, lab: Environment, inside: str) -> None:
    """Neither the app nor uid 999 can read the password.

    The password is not in the environment or the arguments of any container.
    """
    file = droplet.file(str(lab.settings.paths.redis_administrator))
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    refused = droplet.run(f"{inside} 'cat /run/secrets/administrator'")
    assert (refused.rc, "Permission denied" in refused.stderr) == (1, True)
    container = lab.settings.paths.docker.data_container("redis")
    assert droplet.check_output(f"docker exec {container} cat /run/secrets/administrator")
