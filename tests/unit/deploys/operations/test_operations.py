"""The operations against given facts: the commands they run, and that they run none if nothing differs."""

from __future__ import annotations

import getpass
import grp
import importlib
import inspect
import json
import os
import pkgutil
import re
import shlex
import subprocess
from base64 import b64decode, b64encode
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from pyinfra import host
from pyinfra import state as pyinfra_state
from pyinfra.api import OperationError, StringCommand
from pyinfra.api.arguments import all_global_arguments
from pyinfra.context import ctx_host
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File, FileContents, FindInFile, Sha256File

import deploys.operations
from deploys.facts.accounts import LoginShell
from deploys.facts.data import LINK, DirectoryState, RedisUser, RedisUsers, RolesAsDeclared
from deploys.facts.docker import ComposeServices, DockerNetworks, Network
from deploys.facts.files import FileState, PendingHandlers
from deploys.facts.machine import CloudInitStatus, Container, HalfInstalled, Modes, SwapfileMib, Swaps
from deploys.facts.stackctl import Status
from deploys.facts.ufw import Chain, Firewall, Ufw
from deploys.operations import declared, foreign, this_run, ufw
from deploys.operations.accounts import user
from deploys.operations.certificate import acme_certificate, self_signed_certificate
from deploys.operations.data import APP, RULES, data_directory, generated_secret, postgres_roles, redis_password
from deploys.operations.docker import compose_up, network
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.machine import permissions, swapfile, wait_for_cloud_init
from deploys.operations.packages import packages, repair_interrupted_dpkg
from deploys.operations.release import current_release
from deploys.operations.units import systemd_units
from stackctl.services import docker
from stackctl.services.compose import stack_sha256
from tests.support.operations import CONTENT, PLACED, Facts, commands, droplet


def change(*, will_change: bool) -> Any:
    return SimpleNamespace(will_change=will_change)


HANDLER = Handler("x", ["reload"])
MARKER = "/var/lib/app/owed/x"


def placed(facts: Facts, **arguments: Any) -> list[str]:
    return commands(atomic_file, facts, dest="/etc/x/y", content=CONTENT, mode="600", **arguments)


def test_a_file_as_declared_is_left_alone() -> None:
    assert placed({FileState: PLACED}, notify=HANDLER) == []


@pytest.mark.parametrize("difference", [{"mode": "644"}, {"owner": "nobody"}, {"group": "adm"}, {"sha256": "0"}])
def test_a_file_that_differs_is_placed_after_its_handler_is_pending(difference: dict[str, str]) -> None:
    notify, write = placed({FileState: {**PLACED, **difference}}, notify=HANDLER)
    assert notify == f"install -D -m 600 /dev/null {MARKER}"
    assert "mv -fT /etc/x/y.new /etc/x/y" in write


@pytest.mark.parametrize("sent", [b"", b64encode(CONTENT)[:4], b64encode(CONTENT)])
def test_a_file_that_is_cut_short_does_not_take_the_place_of_the_old_one(tmp_path: Path, sent: bytes) -> None:
    """The droplet's own command is run here, as if the client had died while it sends."""
    target = tmp_path / "file"
    target.write_text("old")
    me = getpass.getuser()
    with droplet({FileState: None}):
        (write,) = atomic_file._inner(
            dest=str(target), content=CONTENT, owner=me, group=grp.getgrgid(os.getgid()).gr_name
        )
    subprocess.run(["sh", "-c", str(write)], input=sent, check=False, capture_output=True)
    assert target.read_bytes() == (CONTENT if sent == b64encode(CONTENT) else b"old")


def test_content_travels_on_standard_input_alone() -> None:
    with droplet({FileState: None}):
        (write,) = atomic_file._inner(dest="/etc/x/y", content=CONTENT, secret=True)
    assert write.connector_arguments["_stdin"] == b64encode(CONTENT).decode()
    assert "content" not in str(write)


def test_a_pending_handler_runs_and_is_pending_no_more() -> None:
    done = commands(run_handler, {PendingHandlers: frozenset({"x"})}, handler=HANDLER, after=[])
    assert done == ["reload", f"rm -f {MARKER}"]


def test_a_handler_that_is_not_pending_does_not_run() -> None:
    changed, unchanged = change(will_change=True), change(will_change=False)
    other: Facts = {PendingHandlers: frozenset({"other"})}
    assert commands(run_handler, other, handler=HANDLER, after=[changed]) == []
    assert commands(run_handler, other, executing=False, handler=HANDLER, after=[unchanged]) == []


def test_a_plan_shows_the_reload_of_a_change_to_come() -> None:
    arguments: dict[str, Any] = {"handler": HANDLER, "after": [change(will_change=True)]}
    ran = commands(run_handler, {PendingHandlers: frozenset()}, executing=False, **arguments)
    assert ran == ["reload", f"rm -f {MARKER}"]


UNIT: dict[str, Any] = {"units": {"x.service": CONTENT}, "handler": "x", "restart": ["x.service", "[y].service"]}
UNIT_PLACED = {**PLACED, "mode": "644"}
READ = ["systemctl daemon-reload", "systemctl try-restart x.service '[y].service'", f"rm -f {MARKER}"]


def test_units_that_systemd_has_read_are_left_alone() -> None:
    assert commands(systemd_units, {FileState: UNIT_PLACED, PendingHandlers: frozenset({"other"})}, **UNIT) == []


@pytest.mark.parametrize("executing", [False, True])
def test_a_unit_that_differs_is_read_and_restarted_if_it_runs(*, executing: bool) -> None:
    notify, write, *read = commands(
        systemd_units, {FileState: None, PendingHandlers: frozenset()}, executing=executing, **UNIT
    )
    assert notify == f"install -D -m 600 /dev/null {MARKER}"
    assert write.endswith("mv -fT /etc/systemd/system/x.service.new /etc/systemd/system/x.service")
    assert read == READ


def test_a_unit_that_systemd_has_yet_to_read_is_read() -> None:
    assert commands(systemd_units, {FileState: UNIT_PLACED, PendingHandlers: frozenset({"x"})}, **UNIT) == READ


AFTER = b"*filter\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -j DROP\nCOMMIT\n"
AFTER_PLACED = {"sha256": sha256(AFTER).hexdigest(), "mode": "640", "owner": "root", "group": "root"}
RESTORE = ["iptables-restore --noflush /etc/ufw/after.rules"]
INPUT, FORWARD = (Chain("iptables", "filter", name) for name in ("INPUT", "FORWARD"))
INPUT6, PREROUTING = Chain("ip6tables", "filter", "INPUT"), Chain("iptables", "raw", "PREROUTING")
CHAINS = {
    FORWARD: ("DROP", "-A FORWARD -j ufw-before-forward"),
    INPUT: ("DROP", "-A INPUT -j ufw-before-input"),
    PREROUTING: ("ACCEPT", "-A PREROUTING -d 127.0.0.0/8 -j DROP"),
    INPUT6: ("DROP", "-A INPUT -j ufw6-before-input"),
}
ALLOWED = Firewall(
    active=True,
    policies={"incoming": "deny"},
    rules=("allow 22/tcp", "allow 80/tcp"),
    declared=CHAINS,
    loaded=CHAINS,
)


def firewall(there: Firewall, placed: dict[str, str] | None = AFTER_PLACED) -> list[str]:
    """Return the commands between the beginning of a trial and its confirmation. Without commands there is no trial."""
    facts: Facts = {Ufw: there, FileState: placed}
    arguments: dict[str, Any] = {"allow": ["22/tcp", "80/tcp"], "policies": {"incoming": "deny"}, "after": AFTER}
    if not (ran := commands(ufw.rules, facts, **arguments)):
        return []
    assert len(ran) > 2, "a trial of nothing"
    return [shlex.split(line)[-1] for line in ran[1:-1]]


def test_a_firewall_as_declared_is_left_alone() -> None:
    assert firewall(ALLOWED) == []


def test_a_new_firewall_allows_before_it_denies_and_is_enabled_last() -> None:
    assert firewall(Firewall()) == [
        "ufw allow 22/tcp",
        "ufw allow 80/tcp",
        "ufw default deny incoming",
        "ufw --force enable",
    ]


def test_a_foreign_rule_goes_after_a_missing_one_came() -> None:
    there = replace(ALLOWED, rules=("allow 22/tcp", "allow 9999/tcp"))
    assert firewall(there) == ["ufw allow 80/tcp", "ufw --force delete allow 9999/tcp"]


def test_a_rule_that_holds_for_one_family_only_is_made_whole() -> None:
    assert firewall(replace(ALLOWED, single_family_rules=frozenset({"allow 80/tcp"}))) == ["ufw allow 80/tcp"]


def test_a_foreign_route_rule_is_deleted_as_one() -> None:
    there = replace(ALLOWED, rules=(*ALLOWED.rules, "route allow in on eth1"))
    assert firewall(there) == ["ufw --force route delete allow in on eth1"]


def test_a_firewall_that_is_off_is_enabled() -> None:
    assert firewall(replace(ALLOWED, active=False)) == ["ufw --force enable"]


def test_rules_after_ufw_s_own_are_placed_before_the_firewall_is_enabled() -> None:
    said = firewall(Firewall(), placed=None)
    assert "/etc/ufw/after.rules.new" in said[-2]
    assert "--test" not in said[-2], "the chains that it leads to come with ufw's first start"
    assert said[-1] == "ufw --force enable"


def test_rules_that_changed_are_tested_then_loaded_whole() -> None:
    placing, *rest = firewall(ALLOWED, placed={**AFTER_PLACED, "sha256": "another"})
    test, placed = "iptables-restore --noflush --test /etc/ufw/after.rules.new", "mv -fT /etc/ufw/after.rules.new"
    assert 0 < placing.index(test) < placing.index(placed)
    assert rest == RESTORE


ACCEPT, RAW_EMPTY = ("ACCEPT", "-A INPUT -j ACCEPT"), ("ACCEPT",)
INPUT_BACK = "*filter\n:INPUT DROP [0:0]\n-F INPUT\n-A INPUT -j ufw-before-input\nCOMMIT\n"
RAW_BACK = "*raw\n:PREROUTING ACCEPT [0:0]\n-F PREROUTING\n-A PREROUTING -d 127.0.0.0/8 -j DROP\nCOMMIT\n"
FORWARD_BACK = """\
*filter
:FORWARD DROP [0:0]
:INPUT DROP [0:0]
-D FORWARD -j ACCEPT
-D FORWARD -j ufw-before-forward
-A FORWARD -j ufw-before-forward
-F INPUT
-A INPUT -j ufw-before-input
COMMIT
"""


@pytest.mark.parametrize(
    ("changed", "restored"),
    [
        ({INPUT: ACCEPT}, {"iptables": [INPUT_BACK]}),
        ({INPUT6: ()}, {"ip6tables": [INPUT_BACK.replace("ufw-", "ufw6-")]}),
        ({INPUT: ACCEPT, PREROUTING: RAW_EMPTY}, {"iptables": [INPUT_BACK, RAW_BACK]}),
        # Docker's rules in FORWARD, which the fact leaves out, stay: the chain is not flushed.
        (
            {FORWARD: ("DROP", "-A FORWARD -j ACCEPT", *CHAINS[FORWARD][1:]), INPUT: ACCEPT},
            {"iptables": [FORWARD_BACK]},
        ),
    ],
)
def test_what_somebody_changed_in_the_kernel_is_mended_a_table_at_once(
    changed: dict[Chain, tuple[str, ...]], restored: dict[str, list[str]]
) -> None:
    there = replace(ALLOWED, loaded=CHAINS | changed)
    with droplet({Ufw: there, FileState: AFTER_PLACED}):
        ran = list(ufw._changes(["22/tcp", "80/tcp"], {"incoming": "deny"}, AFTER))
    found: dict[str, list[str]] = {}
    for command in ran:
        assert isinstance(command, StringCommand)
        program = str(command).removesuffix("-restore --noflush")
        found.setdefault(program, []).append(str(command.connector_arguments["_stdin"]))
    assert found == restored


def test_files_that_ufw_can_t_load_are_no_measure() -> None:
    """Except for the file that is written again."""
    there = replace(ALLOWED, faults=("Problem running '/etc/ufw/after.rules'",), loaded=CHAINS | {INPUT: ACCEPT})
    with pytest.raises(OperationError, match=r"Problem running '/etc/ufw/after\.rules'"):
        firewall(there)
    assert firewall(there, placed=None)[1:] == RESTORE


RUNNING = docker.Container("f1", "postgres:17.11-trixie", "running", "healthy", 0, 0, {"app.sha256": "1"})
UP: dict[str, Any] = {
    "project": "app-data",
    "file": "/opt/app/data.yaml",
    "images": {"postgres": "postgres:17.11-trixie"},
    "label": "app.sha256",
    "sha256": "1",
}


def test_a_project_as_declared_is_left_alone() -> None:
    assert commands(compose_up, {ComposeServices: {"postgres": RUNNING}}, **UP) == []


@pytest.mark.parametrize(
    "there",
    [
        {},
        {"postgres": replace(RUNNING, image="postgres:16.1-trixie")},
        {"postgres": replace(RUNNING, state="exited")},
        {"postgres": replace(RUNNING, health="unhealthy")},
        {"postgres": replace(RUNNING, health=None)},
        {"postgres": replace(RUNNING, labels={"app.sha256": "2"})},
        {"postgres": replace(RUNNING, labels={})},
    ],
)
def test_a_project_that_differs_is_brought_up(there: dict[str, docker.Container]) -> None:
    (up,) = commands(compose_up, {ComposeServices: there}, **UP)
    assert "--project-name app-data --file /opt/app/data.yaml up --detach" in up
    assert up.endswith(" postgres")
    assert "--force-recreate" in up


DATA = Network(internal=True, subnet="172.30.2.0/24", ip_range="172.30.2.128/25")


def test_a_network_is_made_once() -> None:
    arguments: dict[str, Any] = {"network_name": "app-data", "unit": "app.service", **asdict(DATA)}
    assert commands(network, {DockerNetworks: {"app-data": DATA}}, **arguments) == []
    (create,) = commands(network, {DockerNetworks: {}}, **arguments)
    assert create == "docker network create --subnet 172.30.2.0/24 --ip-range 172.30.2.128/25 --internal app-data"


@pytest.mark.parametrize("wanted", [{"internal": False}, {"subnet": "172.30.1.0/24"}, {"ip_range": "172.30.2.0/25"}])
def test_a_network_that_differs_is_refused_with_the_remedy(wanted: dict[str, Any]) -> None:
    arguments = {"network_name": "app-data", "unit": "app.service", **asdict(DATA), **wanted}
    (refused,) = commands(network, {DockerNetworks: {"app-data": DATA}}, **arguments)
    assert "systemctl stop app.service, docker network rm app-data" in refused
    assert refused.endswith("false")


def test_a_lost_data_directory_is_not_created_again() -> None:
    arguments: dict[str, Any] = {"path": "/data/postgres", "uid": 999, "installed": "/opt/app/data.yaml"}
    (refused,) = commands(data_directory, {DirectoryState: None, File: {"mode": 644}}, **arguments)
    assert "mount the volume" in refused
    assert refused.endswith("false")
    (made,) = commands(data_directory, {DirectoryState: None, File: None}, **arguments)
    assert made == "install -d -m 700 -o 999 -g 999 /data/postgres"
    assert commands(data_directory, {DirectoryState: "700 999 999"}, **arguments) == []
    (mended,) = commands(data_directory, {DirectoryState: "755 0 0"}, **arguments)
    assert mended.startswith("chown 999:999")


def test_a_data_directory_that_is_a_link_is_given_to_nobody() -> None:
    arguments: dict[str, Any] = {"path": "/data/redis", "uid": 999, "installed": "/opt/data.yaml"}
    (refused,) = commands(data_directory, {DirectoryState: LINK}, **arguments)
    assert "is a symbolic link. Next: mount the volume there instead" in refused
    assert refused.endswith(">&2; false")


ROLES: dict[str, Any] = {
    "container": "app-data-postgres-1",
    "database": "shop",
    "owner": "app",
    "login": "app_01234567",
    "password": "it's \\ secret",
}


def test_roles_as_declared_are_left_alone() -> None:
    assert commands(postgres_roles, {RolesAsDeclared: True}, **ROLES) == []


def test_a_password_reaches_postgresql_by_standard_input_and_stays_out_of_its_log() -> None:
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    assert "secret" not in str(alter)
    statements = alter.connector_arguments["_stdin"]
    (secret,) = (number for number, line in enumerate(statements) if "PASSWORD 'it''s \\ secret';" in line)
    assert "SET log_min_error_statement = 'panic';" in statements[:secret]
    reset, acts = (statements.index(f'ALTER ROLE "app_01234567" {what};') for what in ("RESET ALL", 'SET role = "app"'))
    assert reset < acts
    assert "ALTER ROLE postgres PASSWORD NULL;" in statements


def test_the_app_owns_neither_the_database_nor_its_settings() -> None:
    """S1. The owner may still create schemas and trusted extensions, for which CREATE is enough."""
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    statements = alter.connector_arguments["_stdin"]
    assert 'ALTER DATABASE "shop" OWNER TO postgres;' in statements
    assert 'GRANT CREATE, CONNECT, TEMPORARY ON DATABASE "shop" TO "app";' in statements


def test_roles_are_made_in_a_session_that_the_app_cannot_influence() -> None:
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    line, statements = str(alter), alter.connector_arguments["_stdin"]
    assert "PGOPTIONS=-c search_path=pg_catalog,pg_temp -c role=none" in line
    assert "lock_timeout=10s" in line
    assert "--dbname=postgres" in line
    moved = statements.index('\\connect "shop"')
    assert [one for one in statements[moved:] if "SCHEMA" not in one] == ['\\connect "shop"']


def test_who_owns_what_is_asked_where_the_app_cannot_lie() -> None:
    """Both sessions have our settings, and the superuser uses only the database `postgres`."""
    told = {"container": "c", "owner": "app", "login": "app_01234567", "database": "shop"}
    line = str(RolesAsDeclared().command(**told))
    by_login, by_superuser = line.split("; psql")
    assert by_login.startswith("docker exec --env 'PGOPTIONS=-c search_path=pg_catalog,pg_temp -c role=none")
    assert "-d shop -h" in by_login
    assert by_login.count("search_path=pg_catalog,pg_temp") == 2
    assert by_login.count("role=none") == 1, "the login role is asked as whom it acts"
    assert "-d postgres -U postgres" in by_superuser
    assert "--no-psqlrc" in by_superuser
    assert all(word in by_superuser for word in ("datdba =", "CREATE", "CONNECT", "TEMPORARY"))


MADE = stack_sha256(b"app.yaml", b"{}\n", "bot@sha256:1")


LOST = {"active": "blue", "release": None}
LINK_LOST = {"active": None, "release": None, "colours": {"blue": {"tag": "1.0.0"}, "green": None}}


def live(made_from: str = MADE, drift: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "active": "blue",
        "release": {"tag": "1.0.0", "image": "bot@sha256:1"},
        "colours": {"blue": {"containers": [{"sha256": made_from}]}},
        "worker": {"containers": [{"sha256": MADE}]},
        "drift": list(drift),
    }


def released(
    status: Any,
    compose_files: bytes = b"app.yaml",
    environment: bytes = b"{}\n",
    *,
    worker: bool = True,
    executing: bool = True,
) -> list[str]:
    declared = {"compose_files": compose_files, "environment": environment, "worker": worker}
    return commands(current_release, {Status: status}, executing=executing, **declared)


def test_a_release_as_declared_is_left_alone() -> None:
    assert released(live()) == []
    assert released({**live(), "worker": None}, worker=False) == []


def test_without_a_release_none_is_made_up() -> None:
    assert released({"active": None, "release": None, "colours": {"blue": None, "green": None}}) == []
    assert released(None, executing=False) == []


@pytest.mark.parametrize("status", [None, LOST, LINK_LOST])
def test_a_state_that_is_lost_is_not_taken_for_no_release(status: Any) -> None:
    """stackctl's own message fails the converge."""
    assert released(status) == ["stackctl status"]


@pytest.mark.parametrize(
    "differs",
    [
        (live(drift=("web is exited",)),),
        (live(made_from="something else"),),
        ({**live(), "worker": {"containers": [{"sha256": "something else"}]}},),
        ({**live(), "worker": {"containers": []}},),
        ({**live(), "worker": None},),
        (live(), b"another app.yaml"),
        (live(), b"app.yaml", b'{"A":"1"}\n'),
    ],
)
def test_the_live_tag_is_released_anew_when_anything_differs(differs: tuple[Any, ...]) -> None:
    (release,) = released(*differs)
    assert release.endswith("release 1.0.0")


def test_cloud_init_is_waited_for_only_while_it_runs() -> None:
    assert commands(wait_for_cloud_init, {CloudInitStatus: "done"}) == []
    assert commands(wait_for_cloud_init, {CloudInitStatus: None}) == []
    assert commands(wait_for_cloud_init, {CloudInitStatus: "running"}) == ["timeout 600 cloud-init status --wait"]


def test_a_swap_file_is_made_whole_and_swapped_on() -> None:
    there: Facts = {Container: False, SwapfileMib: 1024, Swaps: frozenset({"/swapfile"}), FindInFile: ["x"]}
    assert commands(swapfile, there, mib=1024) == []
    assert commands(swapfile, {**there, Swaps: frozenset()}, mib=1024) == ["swapon /swapfile"]
    assert commands(swapfile, {Container: True}, mib=1024) == []
    made = commands(swapfile, {**there, SwapfileMib: 0}, mib=1024)
    assert [one.split()[0] for one in made] == ["swapoff", "fallocate", "mkswap", "swapon"]


def test_packages_are_installed_only_when_one_is_missing() -> None:
    assert commands(packages, {DebPackages: {"ufw": {"1"}}}, packages=["ufw"]) == []


def test_packages_are_removed_only_when_they_are_there() -> None:
    there: Facts = {DebPackages: {"telnet": {"1"}, "curl": {"1"}}}
    assert commands(packages, there, present=False, packages=["nis"]) == []
    waits, purge = commands(packages, there, present=False, packages=["nis", "telnet"])
    assert waits == "timeout 600 python3 -"
    assert purge.endswith("apt-get --yes purge telnet")


def test_modes_are_mended_of_what_is_there() -> None:
    there: Facts = {Modes: {"/boot": "755", "/etc/cron.d": "700"}}
    wanted = {"/boot": "700", "/etc/cron.d": "700", "/etc/crontab": "600"}
    assert commands(permissions, there, wanted=wanted) == ["chmod 700 /boot"]
    assert commands(permissions, {Modes: {"/boot": "700"}}, wanted=wanted) == []


def test_an_account_is_made_once() -> None:
    assert commands(user, {LoginShell: "/bin/bash"}, login="deploy") == []
    assert commands(user, {LoginShell: None}, login="deploy") == ["useradd --create-home --shell /bin/bash deploy"]
    assert commands(user, {LoginShell: "/bin/sh"}, login="deploy") == ["usermod --shell /bin/bash deploy"]


def test_a_half_installed_package_is_finished() -> None:
    assert commands(repair_interrupted_dpkg, {HalfInstalled: False}) == []
    wait, configure, fix = commands(repair_interrupted_dpkg, {HalfInstalled: True})
    assert wait == "timeout 600 python3 -", "who is at it may finish it"
    assert "--configure --pending" in configure
    assert "--fix-broken" in fix


NGINX_S = {"mode": "640", "group": "www-data"}


@pytest.mark.parametrize("key", [None, PLACED, PLACED | NGINX_S | {"mode": "600"}])
def test_a_certificate_that_nginx_s_workers_cannot_read_gives_way_to_a_placeholder(key: Any) -> None:
    make, link = commands(self_signed_certificate, {FileState: key}, tls="/tls", domain="d")
    assert make.startswith("install -d -m 750 -g www-data /tls/placeholder && openssl req ")
    assert make.endswith("chmod 640 /tls/placeholder/privkey.pem /tls/placeholder/fullchain.pem")
    assert link == "ln -sfn /tls/placeholder /tls/current"


def test_a_placeholder_is_made_for_the_longest_name(tmp_path: Path) -> None:
    """openssl itself is run: it refuses a common name of more than 64 characters."""
    domain = ".".join([*("x" * 63 for _ in range(3)), "y" * 57, "dev"])
    make, _ = commands(self_signed_certificate, {FileState: None}, tls="/tls", domain=domain)
    (openssl,) = [part for part in make.split("&&") if part.strip().startswith("openssl")]
    ran = subprocess.run(
        ["sh", "-c", openssl.replace("/tls/placeholder", str(tmp_path))], capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "fullchain.pem").exists()


def test_a_certificate_is_neither_replaced_nor_asked_for_twice() -> None:
    assert commands(self_signed_certificate, {FileState: PLACED | NGINX_S}, tls="/tls", domain="d") == []
    assert commands(acme_certificate, {Status: {"certificate": {"as_declared": True}}}, domain="d", server="s") == []
    for status in (None, {"certificate": None}, {"certificate": {"as_declared": False}}):
        (asked,) = commands(acme_certificate, {Status: status}, domain="d", server="s")
        assert asked.startswith("stackctl certificate || { code=$?; echo 'Everything else is done. Next")
        assert asked.endswith("exit $code; }")


def test_no_parameter_shadows_a_global_of_pyinfra() -> None:
    """pyinfra would use it as a global argument and not pass it on."""
    reserved = {key for key, _ in all_global_arguments()} | {"name"}
    assert {"_sudo", "_stdin", "_if"} < reserved
    for module in pkgutil.iter_modules(deploys.operations.__path__, "deploys.operations."):
        for name, operation in inspect.getmembers(
            importlib.import_module(module.name), lambda one: hasattr(one, "_inner")
        ):
            assert not reserved & set(inspect.signature(operation._inner).parameters), f"{module.name}.{name}"


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
        (["old", "new"], 0, 1),  # an interrupted converge
        ([], 0, 1),  # not there yet
    ],
)
def test_redis_takes_a_new_password_beside_the_old_one_and_then_alone(
    admitted: list[str], beside: int, alone: int
) -> None:
    both = ("new", "old") if "old" in admitted else ("new",)
    assert len(redis(admitting(*admitted), starts_with=both, exclusive=False)) == beside
    assert len(redis(admitting(*admitted), starts_with=("new",), exclusive=True)) == alone


@pytest.mark.parametrize(("alone", "wanted"), [(False, ("new", "old")), (True, ("new",))])
def test_redis_starts_anew_with_what_it_admits_at_the_moment(alone: bool, wanted: tuple[str, ...]) -> None:  # noqa: FBT001
    """Otherwise a Redis that restarts before the next release serves would reject the live one."""
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
    """Both users are set by one command: the app keeps its connections and its password."""
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
    assert len(set(found)) == made, "what is there stays"
    assert all(re.fullmatch(b"[0-9a-f]{64}", one) for one in found)


def test_redis_is_told_on_standard_input() -> None:
    facts: Facts = {RedisUsers: admitting("old"), FileState: None, Sha256File: ADMIN}
    with droplet(facts):
        write, command = redis_password._inner(**REDIS, exclusive=True)
    assert NEW not in f"{write} {command}"
    assert command.connector_arguments["_stdin"][1] == f"ACL SETUSER default resetpass #{NEW} {APP}"


# what a plan shows


def planned(facts: Facts, act: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines of `--diff` without colours."""
    shown: list[str] = []
    logger = SimpleNamespace(info=lambda message, *words: shown.append(message % words if words else message))
    monkeypatch.setattr("deploys.operations.files.logger", logger)
    with droplet(facts, executing=False):
        cast("Any", pyinfra_state).config.DIFF = True
        cast("Any", host).log = lambda message, log: log(message)
        list(act())
    return [click.unstyle(line).strip() for line in shown]


ARGUMENTS: dict[str, Any] = {
    "allow": ["22/tcp", "80/tcp"],
    "policies": {"incoming": "deny"},
    "after": AFTER,
}


@pytest.mark.parametrize(
    ("there", "lines"),
    [
        (replace(ALLOWED, rules=(*ALLOWED.rules, "allow 5432")), ["- allow 5432"]),
        (replace(ALLOWED, rules=("allow 22/tcp",)), ["+ allow 80/tcp"]),
        (replace(ALLOWED, policies={"incoming": "allow"}), ["- default allow incoming", "+ default deny incoming"]),
        (replace(ALLOWED, active=False), ["- off", "+ on, now and at boot"]),
        (
            replace(ALLOWED, single_family_rules=frozenset({"allow 80/tcp"})),
            ["- allow 80/tcp (IPv4 or IPv6 only)", "+ allow 80/tcp"],
        ),
        (
            replace(ALLOWED, loaded=CHAINS | {INPUT: ("DROP", "-A INPUT -j ACCEPT")}),
            ["- iptables -t filter -A INPUT -j ACCEPT", "+ iptables -t filter -A INPUT -j ufw-before-input"],
        ),
        (replace(ALLOWED, loaded=CHAINS | {INPUT6: ()}), ["+ ip6tables -t filter -P INPUT DROP"]),
    ],
)
def test_a_firewall_that_differs_is_shown_rule_by_rule(
    monkeypatch: pytest.MonkeyPatch, there: Firewall, lines: list[str]
) -> None:
    shown = planned({Ufw: there, FileState: AFTER_PLACED}, lambda: ufw._changes(**ARGUMENTS), monkeypatch)
    assert shown[0] == "The firewall differs:"
    assert {*lines} <= {line for line in shown[1:] if line[:1] in "+-"}


def test_a_firewall_as_declared_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which its rules were added does not matter."""
    there = replace(ALLOWED, rules=ALLOWED.rules[::-1])
    assert planned({Ufw: there, FileState: AFTER_PLACED}, lambda: ufw._changes(**ARGUMENTS), monkeypatch) == []


def test_a_file_that_differs_is_shown_made_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: Facts = {FileState: PLACED | {"sha256": "another"}, FileContents: ["\x1b]0;PWNED\x07\x1b[31m", "x"]}
    shown = planned(facts, lambda: atomic_file._inner(dest="/etc/x", content=CONTENT), monkeypatch)
    assert r"- \x1b]0;PWNED\x07\x1b[31m" in shown


def test_a_service_is_placed_before_the_socket_or_timer_that_starts_it() -> None:
    """systemd-analyze refuses a socket whose service does not exist: a bare droplet could not be converged."""
    units = {"x.socket": CONTENT, "x.timer": CONTENT, "x.service": CONTENT}
    ran = commands(systemd_units, {FileState: None, PendingHandlers: frozenset()}, units=units, handler="x")
    written = [command.rpartition("/")[2].strip() for command in ran if "mv -fT" in command]
    assert written == ["x.service", "x.socket", "x.timer"]


def seen(*found: dict[str, Any]) -> Facts:
    return {Status: {"foreign": list(found)}}


def finding(name: str, remedy: str, path: str | None = None) -> dict[str, Any]:
    return {"name": name, "what": "x", "remedy": remedy, "path": path, "next": "make site"}


MASK = finding("/run/systemd/system/x.service", "site", "/run/systemd/system/x.service")
SYSCTL = finding("sysctl:vm.swappiness", "site")
JOB = finding("/etc/cron.d/job", "remove", "/etc/cron.d/job")
OVERRIDE = finding("/etc/ssh/sshd_config.d/00-a.conf", "remove", "/etc/ssh/sshd_config.d/00-a.conf")


@pytest.mark.parametrize("status", [None, {}, {"foreign": None}, {"foreign": []}, {"foreign": [JOB]}])
def test_nothing_is_switched_off(status: Any) -> None:
    assert commands(foreign.undo_overrides, {Status: status}, sysctls="/etc/sysctl.d/60-app.conf") == []


@pytest.mark.parametrize("executing", [True, False])
def test_a_mask_goes_and_parameters_are_set_by_our_file_alone(*, executing: bool) -> None:
    arguments: dict[str, Any] = {"executing": executing, "sysctls": "/etc/sysctl.d/60-app.conf"}
    assert commands(foreign.undo_overrides, seen(MASK, SYSCTL, JOB), **arguments) == [
        "rm -f /run/systemd/system/x.service",
        "systemctl daemon-reload",
        "/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-app.conf",
    ]


def test_only_what_is_there_and_named_is_removed() -> None:
    names = ["/etc/cron.d/job", "/etc/cron.d/gone", MASK["name"]]
    assert commands(foreign.remove, seen(JOB, MASK, OVERRIDE), names=names, sshd=Handler("ssh", ["restart"])) == [
        "/usr/local/bin/stackctl remove-foreign /etc/cron.d/job"
    ]
    assert commands(foreign.remove, seen(JOB), names=[], sshd=Handler("ssh", ["restart"])) == []


def test_a_file_of_sshd_s_is_removed_on_trial() -> None:
    begin, remove, restart, confirm = commands(
        foreign.remove, seen(OVERRIDE), names=[OVERRIDE["name"]], sshd=Handler("ssh", ["restart"])
    )
    assert "trial begin ssh" in begin
    assert "remove-foreign /etc/ssh/sshd_config.d/00-a.conf" in remove
    assert "trial change ssh restart" in restart
    assert "confirm_by_new_login" in confirm


def test_a_converge_that_sshd_would_not_obey_ends_before_its_first_change(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(this_run, "refuse_to_begin", lambda _, cause: refused.append(cause))
    monkeypatch.setattr(this_run, "tell_foreign", lambda *_: None)
    overridden = {**finding("sshd:passwordauthentication", "refuse", OVERRIDE["path"]), "next": "make site REMOVE=x"}
    with droplet(seen(JOB, overridden)):
        foreign.report([OVERRIDE["path"]])
        assert refused == []
        foreign.report([])
    assert refused == ["x. Next: make site REMOVE=x. Nothing was changed"]


def test_the_site_tells_what_its_operations_were_asked_for() -> None:
    with droplet({FileState: None, LoginShell: "/bin/bash", Ufw: Firewall()}):
        known = declared.of(ctx_host.get())
        for told in (known.files, known.logins, known.ports):
            told.clear()
        list(atomic_file._inner(dest="/etc/x/y", content=b""))
        list(user._inner(login="me"))
        list(ufw.rules._inner(allow=["80/tcp", "from 192.0.2.1 to any port 22 proto tcp"], policies={}, after=b""))
    assert known.files == {"/etc/x/y", "/etc/ufw/after.rules"}
    assert (known.logins, known.ports) == ({"me"}, {22, 80})
    document = json.loads(declared.document(known, {"/etc/z": "why"}))
    assert (document["files"], document["accepted"]) == (["/etc/ufw/after.rules", "/etc/x/y"], {"/etc/z": "why"})
