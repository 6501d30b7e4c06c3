"""PostgreSQL and Redis are healthy, limited, closed to others, and durable."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host

from deploys.components.data_services import UID
from deploys.config.values import MAX_CONNECTIONS
from stackctl.services.postgres import PRIVILEGES
from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")


def container(droplet: Host, env: Environment, service: str) -> Any:
    name = env.settings.paths.docker.data_container(service)
    # Leave out the environment, because a failing assertion would print it.
    inspected = json.loads(droplet.check_output(f"docker inspect {name}"))[0]
    inspected["Config"].pop("Env")
    return inspected


@pytest.mark.parametrize("service", ["postgres", "redis"])
def test_a_data_service_is_healthy_and_limited(droplet: Host, env: Environment, service: str) -> None:
    inspected, values = container(droplet, env, service), env.settings.values
    memory = {"postgres": values.postgres_memory_mib, "redis": values.redis_memory_mib}[service]
    cpus = {"postgres": values.postgres_cpus, "redis": values.redis_cpus}[service]
    image = {"postgres": values.postgres_image, "redis": values.redis_image}[service]
    assert inspected["State"]["Health"]["Status"] == "healthy"
    assert inspected["Config"]["Image"] == image
    assert inspected["HostConfig"]["Memory"] == memory * 2**20
    assert inspected["HostConfig"]["MemorySwap"] == memory * 2**20, (
        "MemorySwap counts memory and swap together. If it is larger than Memory, the container may swap"
    )
    assert inspected["HostConfig"]["NanoCpus"] == cpus * 1e9
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert inspected["HostConfig"]["CapDrop"] == ["ALL"]


def test_the_kernel_enforces_the_memory_limit(droplet: Host, env: Environment) -> None:
    """The limit is in the container's cgroup, and not only in Docker's report."""
    limit = env.settings.values.redis_memory_mib * 2**20
    name = env.settings.paths.docker.data_container("redis")
    read = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert int(droplet.check_output(f"docker exec {name} sh -c {shlex.quote(read)}")) == limit


@pytest.mark.parametrize("service", ["postgres", "redis"])
def test_a_data_server_runs_unprivileged(droplet: Host, env: Environment, service: str) -> None:
    """Check only the server's process, because a health check may run as root at the same time."""
    pid = container(droplet, env, service)["State"]["Pid"]
    assert droplet.check_output(f"stat -c %u /proc/{pid}") == str(UID)


@pytest.mark.parametrize("service", ["postgres", "redis"])
def test_the_data_is_in_the_declared_directory(droplet: Host, env: Environment, service: str) -> None:
    directory = f"{env.settings.values.data_root}/{service}"
    assert droplet.check_output(f"stat -c '%a %u' {directory}") == f"700 {UID}"
    mounts = container(droplet, env, service)["HostConfig"]["Mounts"]
    assert directory in [mount["Source"] for mount in mounts]
    assert all(not mount.get("BindOptions", {}).get("CreateMountpoint") for mount in mounts)


def test_postgresql_has_the_declared_version_and_checksums(droplet: Host, env: Environment) -> None:
    assert env.ask_postgres(droplet, "SHOW server_version").startswith(f"{env.settings.values.postgres_major}.")
    assert env.ask_postgres(droplet, "SHOW data_checksums") == "on"
    encoding = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
    assert env.ask_postgres(droplet, encoding) == "UTF8"


def over_the_network(env: Environment, role: str, query: str, *, given: str = "$(cat /run/secrets/password)") -> str:
    """Return a command that logs in as `role` over the container's network address and runs `query`."""
    psql = f'psql -tA -h "$(hostname -i)" -U {role} -d {env.settings.values.database}'
    ask = f'PGPASSWORD="{given}" {psql} -c "{query}"'
    return f"docker exec {env.settings.paths.docker.data_container('postgres')} sh -c {shlex.quote(ask)}"


def test_postgresql_admits_only_the_login_role_with_its_password(droplet: Host, env: Environment) -> None:
    login, owner = env.settings.login_role, env.settings.values.database_user
    refused = [over_the_network(env, role, "SELECT 1") for role in (owner, "postgres")]
    refused += [over_the_network(env, login, "SELECT 1", given=password) for password in ("", "wrong")]
    for command in refused:
        assert droplet.run(command).rc == 2, command
    assert droplet.run(over_the_network(env, login, "SELECT 1")).rc == 0


def test_objects_of_the_login_role_belong_to_the_owner(droplet: Host, env: Environment) -> None:
    """A rotation of the password creates another login role, which must be able to use these objects."""
    values = env.settings.values
    acts_as = droplet.check_output(over_the_network(env, env.settings.login_role, "SELECT current_user"))
    assert acts_as == values.database_user
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert env.ask_postgres(droplet, owners) in {"", values.database_user}
    superusers = env.ask_postgres(droplet, "SELECT rolname FROM pg_roles WHERE rolsuper")
    assert superusers == "postgres"


def test_the_database_and_its_settings_belong_to_the_superuser(droplet: Host, env: Environment) -> None:
    values = env.settings.values
    owner = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{values.database}'"  # noqa: S608
    assert env.ask_postgres(droplet, owner) == "postgres"
    may = ", ".join(
        f"has_database_privilege('{values.database_user}', '{values.database}', '{one}')" for one in PRIVILEGES
    )
    assert env.ask_postgres(droplet, f"SELECT {may}") == "t|t|t"


def test_the_role_that_verifies_backups_can_only_read(droplet: Host, env: Environment) -> None:
    """The role has no password, so it can log in only at the container's socket."""
    rows = env.ask_postgres(
        droplet,
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolpassword IS NULL, rolvaliduntil "
        "FROM pg_authid WHERE rolname = 'stackctl_reader'",
    )
    assert rows in {"", "f|f|f|f|t|-infinity"}, "the role exists with other attributes"
    assert droplet.run(over_the_network(env, "stackctl_reader", "SELECT 1")).rc == 2


@pytest.mark.parametrize(
    ("setting", "value"), [("max_connections", str(MAX_CONNECTIONS)), ("client_connection_check_interval", "10s")]
)
def test_postgresql_is_set_up_as_declared(droplet: Host, env: Environment, setting: str, value: str) -> None:
    assert env.ask_postgres(droplet, f"SHOW {setting}") == value


def test_redis_admits_nobody_without_the_password(droplet: Host, env: Environment) -> None:
    name = env.settings.paths.docker.data_container("redis")
    assert "NOAUTH" in droplet.check_output(f"docker exec {name} redis-cli ping")
    assert env.ask_redis(droplet, "ping") == "PONG"


def test_redis_admits_one_password(droplet: Host, env: Environment) -> None:
    """Redis has a second password only during a rotation."""
    counted = env.ask_redis(droplet, "ACL GETUSER default | grep -cE '^[0-9a-f]{64}$'")
    assert counted == "1"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("maxmemory-policy", "noeviction"),
        ("stop-writes-on-bgsave-error", "yes"),
        ("rdbcompression", "yes"),
        ("rdbchecksum", "yes"),
        ("dbfilename", "dump.rdb"),
        ("appendfsync", "everysec"),
        ("dir", "/data"),
    ],
)
def test_redis_persists_its_data(droplet: Host, env: Environment, setting: str, value: str) -> None:
    assert env.ask_redis(droplet, f"config get {setting}").split()[1] == value


def test_redis_appends_to_a_file_if_that_is_declared(droplet: Host, env: Environment) -> None:
    wanted = "yes" if env.settings.values.redis_append_only else "no"
    assert env.ask_redis(droplet, "config get appendonly").split()[1] == wanted


def test_redis_saves_at_least_as_often_as_the_seed_asks(droplet: Host, env: Environment) -> None:
    """With `save 300 1`, Redis saves even a single change.

    With the seed's `300 10`, nine changes would never be saved (docs/explanation/differences.md).
    """
    saves = env.ask_redis(droplet, "config get save").split()[1:]
    pairs = {f"{seconds} {changes}" for seconds, changes in zip(saves[::2], saves[1::2], strict=True)}
    assert {"300 1", "60 10000"} <= pairs


def test_redis_leaves_memory_for_the_copy_of_a_save(droplet: Host, env: Environment) -> None:
    maximum = int(env.ask_redis(droplet, "config get maxmemory").split()[1])
    assert maximum == env.settings.values.redis_memory_mib // 2 * 2**20


@pytest.mark.parametrize("port", [5432, 6379])
def test_the_droplet_listens_on_no_port_of_a_data_service(droplet: Host, port: int) -> None:
    listening = {line.split()[3].rsplit(":", 1)[1] for line in droplet.check_output("ss -Htln").splitlines()}
    assert str(port) not in listening
    assert "22" in listening  # control: the list has SSH, so the scan worked
