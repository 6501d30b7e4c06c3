"""Tests of those lines in templates and files in which a mistake would be a security hole. These tests need no droplet.

tests/templates checks the files with Debian's own programs, and tests/droplet checks the effect of the files.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploys import build
from deploys.components import (
    app,
    backups,
    data_services,
    docker,
    fail2ban,
    firewall,
    hardening,
    nginx,
    ssh,
    upkeep,
)
from deploys.config.settings import Settings
from deploys.config.values import CI_LOGIN, MAX_CONNECTIONS
from stackctl.backup import verify
from stackctl.services.postgres import PRIVILEGES
from tests.support.settings import settings_of

ENVIRONMENTS = ["lab", "vm", "staging", "prod"]


@pytest.fixture(params=ENVIRONMENTS)
def settings(request: pytest.FixtureRequest) -> Settings:
    return settings_of(request.param)


def lines(content: bytes) -> list[str]:
    """Return the lines without comments and indentation."""
    text = [re.sub(r"(^|\s)#.*", "", line).strip() for line in content.decode().splitlines()]
    return [line for line in text if line]


SSHD = """
PermitRootLogin no · PubkeyAuthentication yes · AuthenticationMethods publickey · PasswordAuthentication no
KbdInteractiveAuthentication no · PermitEmptyPasswords no · HostbasedAuthentication no · GSSAPIAuthentication no
KerberosAuthentication no · AuthorizedKeysFile .ssh/authorized_keys · MaxAuthTries 3 · LoginGraceTime 20
MaxStartups 40:30:60 · PerSourceMaxStartups 5 · PerSourceNetBlockSize 32:64 · AllowTcpForwarding no
AllowStreamLocalForwarding no · AllowAgentForwarding no · PermitTunnel no · GatewayPorts no · X11Forwarding no
PermitUserEnvironment no · PermitUserRC no · LogLevel VERBOSE · AllowUsers deploy
"""


def test_sshd_admits_keys_alone_and_never_root(settings: Settings) -> None:
    """Each setting occurs once, because sshd uses the first value that it reads."""
    there = lines(ssh.configuration(settings))
    assert set(re.split(r"\s*[·\n]\s*", SSHD.strip())) <= set(there)
    words = [line.split()[0] for line in there if not line.startswith("HostKey ")]
    assert sorted(words) == sorted(set(words))
    assert ssh.drop_in(settings) == "/etc/ssh/sshd_config.d/00-toogoodtogo.conf", (
        "sshd must read this file before cloud-init's 50-… file"
    )


def chains(content: bytes) -> dict[str, list[str]]:
    """Return the rules of the site's chains in order, by table and chain."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in lines(content):
        table = line[1:] if line.startswith("*") else table
        if rule := re.match(r"-A (PREROUTING|FORWARD|DOCKER-USER) (.*)", line):
            found.setdefault(f"{table} {rule[1]}", []).append(rule[2])
    return found


METADATA, FINAL = "-d 169.254.169.254/32 -j DROP", "-j DROP"
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


@pytest.mark.parametrize("isolated", [False, True])
def test_the_firewall_lets_in_nothing_for_containers(settings: Settings, *, isolated: bool) -> None:
    there = chains(firewall.after_rules(replace(settings, isolated=isolated)))
    assert set(there) == {"raw PREROUTING", "mangle FORWARD", "filter DOCKER-USER"}
    first = ["-s 172.30.1.0/24 -j DROP"] if isolated else []
    bridges = ["-i docker0 -j RETURN", "-i br-+ -j RETURN"]
    for chain in ("mangle FORWARD", "filter DOCKER-USER"):
        assert there[chain] == [*first, METADATA, ESTABLISHED, *bridges, FINAL], chain
    raw = there["raw PREROUTING"]
    assert raw[:4] == ["-i lo -j ACCEPT", "-d 127.0.0.0/8 -j DROP", "-i docker0 -j ACCEPT", "-i br-+ -j ACCEPT"]
    docker_s = ("172.30.0.0/24", "172.30.128.0/17", "172.30.1.0/24", "172.30.2.0/24")
    assert raw[4:] == [f"-d {network} -j DROP" for network in docker_s]
    assert firewall.after_rules(settings).count(b":DOCKER-USER - [0:0]") == 1


def test_ufw_forwards_nothing_and_lets_in_ssh_and_the_web_alone(settings: Settings) -> None:
    source = Path(firewall.__file__).read_text()
    assert 'policies={"incoming": "deny", "outgoing": "allow", "routed": "deny"}' in source
    assert firewall.WEB == ["80/tcp", "443/tcp"]
    assert firewall.ssh_rules(settings) == ["22/tcp"]


def servers(settings: Settings) -> dict[str, list[str]]:
    """Return the lines of each server in nginx.conf, by port."""
    blocks = re.findall(r"(?m)^    server \{\n(.*?)^    \}", nginx.configuration(settings).decode(), re.DOTALL)
    return {re.search(r"listen ([^;]+);", block)[1]: lines(block.encode()) for block in blocks}  # type: ignore[index]


def test_nginx_listens_limits_and_refuses(settings: Settings) -> None:
    there = servers(settings)
    assert list(there) == ["80 default_server", "443 ssl default_server", "80", "443 ssl"]
    burst, at_once = {"lab": (20, 20)}.get(settings.values.environment, (200, 128))
    for listen, port in (("80", "80"), ("443 ssl", "443 ssl")):
        assert f"listen [::]:{port};" in there[listen]
        assert f"limit_req zone=request_rate burst={burst} nodelay;" in there[listen]
        assert f"limit_conn under_way {at_once};" in there[listen]
        assert f"server_name {settings.values.domain};" in there[listen]
    # Telegram repeats an update after this many seconds.
    seconds = re.findall(r"set \$retry_after (\d+);", nginx.configuration(settings).decode())
    assert seconds == ["5", "30"]
    assert "return 444;" in there["80 default_server"]
    assert "ssl_reject_handshake on;" in there["443 ssl default_server"]
    for port in ("80", "443 ssl"):
        assert f"listen [::]:{port} default_server;" in there[f"{port} default_server"]
    everything = lines(nginx.configuration(settings))
    for line in ("client_max_body_size 1m;", "server_tokens off;", "limit_req_status 429;", "ssl_session_tickets off;"):
        assert line in everything
    assert "limit_req_zone $client zone=request_rate:10m rate=10r/s;" in everything
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in everything
    assert "error_log stderr emerg;" in everything, "nginx's messages would contain the queries of requests"


def test_the_webhook_is_telegram_s_alone(settings: Settings) -> None:
    config = nginx.configuration(settings).decode()
    block = re.search(r"location = /webhook/telegram \{\n(.*?)\}", config, re.DOTALL)
    assert block
    *rules, passed = [line for line in lines(block[1].encode()) if not line.startswith("limit_")]
    allowed = [f"allow {network};" for network in settings.values.webhook_allowed_from]
    assert rules == [*allowed, "deny all;"]
    assert passed.startswith("proxy_pass http://unix:")


PROXY_ONLY = """
Forwarded X-Forwarded-Host X-Forwarded-Port X-Forwarded-Server X-Forwarded-Prefix X-Forwarded-Scheme X-Original-URL
X-Rewrite-URL X-Original-Host X-Host True-Client-IP CF-Connecting-IP Fastly-Client-IP X-Client-IP X-Cluster-Client-IP
Via Proxy
"""


def test_an_app_has_the_time_and_the_room_that_its_contract_promises(settings: Settings) -> None:
    there = servers(settings)["443 ssl"]
    assert {"proxy_read_timeout 30s;", "proxy_buffer_size 16k;"} <= set(there)


def test_the_app_hears_of_a_client_what_nginx_knows_and_nothing_that_only_a_proxy_may_say(settings: Settings) -> None:
    there = servers(settings)["443 ssl"]
    own = ("Host $host", "X-Real-IP $remote_addr", "X-Forwarded-For $remote_addr", "X-Forwarded-Proto https")
    for line in own:
        assert f"proxy_set_header {line};" in there
    for name in PROXY_ONLY.split():
        assert f'proxy_set_header {name} "";' in there
    # A `proxy_set_header` in a location would replace every `proxy_set_header` of the server.
    config = nginx.configuration(settings).decode()
    assert not re.search(r"location [^{]*\{[^}]*proxy_set_header", config)


AMBIGUOUS = re.compile(
    next(
        match[1].replace(r"\x5c", r"\\")
        for match in re.finditer(r'"~\*(\S+)" 1;', nginx.configuration(settings_of("prod")).decode())
    ),
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "path",
    [
        *("/app/../metrics", "/app/..", "/app/./x", "/app/.", "/app/..;/metrics", "/app/%2e%2e/metrics", "/app/.%2E/x"),
        *("/app/..%2fmetrics", "/app%2f..%2fmetrics", "/app/..%5cmetrics", "/app/..\\metrics", "/app/%252e%252e/x"),
        *("/app/..?x=1", "/app/..#x"),
    ],
)
def test_a_path_that_another_parser_would_read_otherwise_is_refused(path: str) -> None:
    assert AMBIGUOUS.search(path)


@pytest.mark.parametrize(
    "path", ["/", "/a.b/c..d/e", "/...", "/.well-known/x", "/x?next=/../y", "/a%2fb", "/v1.2/x.png"]
)
def test_a_path_of_a_page_is_not(path: str) -> None:
    assert not AMBIGUOUS.search(path)


def test_a_status_that_every_location_refuses_has_a_named_error_page(settings: Settings) -> None:
    """The error page of each refused status is a named location. nginx would refuse a redirect to a path again."""
    config = nginx.configuration(settings).decode()
    pages = {
        code: rule.split()[-1]
        for rule in re.findall(r"^ +error_page (.*?);", config, re.MULTILINE)
        for code in rule.split()[:-1]
    }
    refused = re.findall(r"^        if \(\S+.*\) \{\n +return ([0-9]+);", config, re.MULTILINE)
    assert len(refused) == 2
    assert [pages[code][0] for code in refused] == ["@", "@"]


def test_docker_s_daemon(settings: Settings) -> None:
    daemon = json.loads(docker.daemon_configuration(settings))
    assert {name: daemon[name] for name in ("icc", "live-restore", "no-new-privileges", "ip")} == {
        "icc": False,
        "live-restore": True,
        "no-new-privileges": True,
        "ip": "127.0.0.1",
    }
    assert daemon["default-network-opts"] == {
        "bridge": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
    }
    # Containers do not log to the journal, because their lines could displace the lines of sshd, sudo and stackctl.
    assert (daemon["log-driver"], daemon["log-opts"]) == ("local", {"max-size": "10m", "max-file": "5"})
    assert "userland-proxy" not in daemon
    assert "hosts" not in daemon
    assert "LogRateLimitBurst=60" in lines(build.file("docker/journal.conf"))


def services(settings: Settings) -> dict[str, list[str]]:
    """Return the lines of every service in every Compose file.

    A service that uses `x-app` also has the settings of `x-app`.
    """
    found = {}
    for content in (data_services.compose_file(settings, sha256="0"), *app.compose_files(settings).values()):
        text = content.decode()
        shared = re.search(r"(?ms)^x-app: &app\n(.*?)^services:", text)
        listed = re.search(r"(?ms)^services:\n(.*?)^networks:", text)
        assert listed
        for name, block in re.findall(r"(?ms)^  (\w+):\n(.*?)(?=^  \w|\Z)", listed[1]):
            own = lines(block.encode())
            found[name] = own + (lines(shared[1].encode()) if shared and "<<: *app" in own else [])
    return found


LOGGING = '{ driver: local, options: { max-size: 10m, max-file: "5" } }'
OPENS = re.compile(r"(ports|privileged|devices|network_mode|pid|ipc|userns_mode|cap_add):|.*docker\.sock")


def test_a_container_has_nothing_that_it_does_not_need(settings: Settings) -> None:
    there = services(settings)
    assert set(there) == {"postgres", "redis", "web", "migrate", "worker"}
    for name, one in there.items():
        assert {"cap_drop: [ALL]", "security_opt: [no-new-privileges:true]", "read_only: true"} <= set(one), name
        memory = [line.split(": ")[1] for line in one if line.startswith(("mem_limit:", "memswap_limit:"))]
        assert len(memory) == 2, name
        assert memory[0] == memory[1], f"{name} would swap"
        assert any(line.startswith("pids_limit: ") for line in one), name
        opened = [line.split(":")[0] for line in one if OPENS.match(line)]
        assert opened == (["cap_add"] if name in {"postgres", "redis"} else []), name
    for name in ("web", "migrate", "worker"):
        assert f"logging: {LOGGING}" in there[name]
    assert f"x-logging: &logging {LOGGING}\n".encode() in data_services.compose_file(settings, sha256="0")
    for name in ("postgres", "redis"):
        assert "logging: *logging" in there[name]
        mounts = [line for line in there[name] if line.startswith("- { type: bind")]
        assert all("create_host_path: false" in mount for mount in mounts)
        assert ["read_only: true" in mount for mount in mounts] == [False, *[True] * (len(mounts) - 1)]
    assert "POSTGRES_INITDB_ARGS: --data-checksums" in there["postgres"]


def test_redis_refuses_what_it_has_no_room_for_and_deletes_nothing() -> None:
    there = lines(build.file("data_services/redis.conf"))
    assert {"maxmemory-policy noeviction", "protected-mode yes", "stop-writes-on-bgsave-error yes"} <= set(there)


def test_timers_catch_up_on_missed_runs(settings: Settings) -> None:
    units = backups.units(settings) | upkeep.units(settings, data=True)
    # A missed reboot is skipped, because the droplet has just booted.
    timers = [name for name in units if name.endswith(".timer") and name != settings.paths.units.reboot_timer]
    assert len(timers) == 3
    for name in timers:
        assert "Persistent=yes" in lines(units[name]), name


@pytest.mark.parametrize("isolated", [False, True])
def test_the_timers_of_an_isolated_droplet_are_disabled(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, isolated: bool
) -> None:
    """An isolated droplet makes no backups, because it would send the backups to the original droplet's storage."""
    asked = {}
    monkeypatch.setattr(backups, "private_directory", lambda **_: None)
    told = lambda *, unit, running, enabled, **_: asked.update({unit: (running, enabled)})  # noqa: E731
    for component in (backups, upkeep):
        monkeypatch.setattr(component, "systemd_units", lambda **_: None)
        monkeypatch.setattr(component, "service", told)
    monkeypatch.setattr(upkeep, "host", SimpleNamespace(loop=lambda items: items, groups=["data"]))
    for deploy in (backups.backups, upkeep.upkeep):
        deploy._inner(replace(settings, isolated=isolated))
    timers = ("toogoodtogo-backup.timer", "toogoodtogo-amcheck.timer")
    others = ("apt-daily-upgrade.timer", "toogoodtogo-integrity.timer", "toogoodtogo-reboot.timer")
    assert asked == dict.fromkeys(timers, (not isolated, not isolated)) | dict.fromkeys(others, (True, True))


def test_postgresql_s_files_are_checked_where_postgresql_is(settings: Settings) -> None:
    paths = settings.paths
    there, elsewhere = (upkeep.units(settings, data=data) for data in (True, False))
    assert there.keys() - elsewhere.keys() == {paths.units.amcheck_service, paths.units.amcheck_timer}


def test_a_throwaway_container_gains_nothing_by_a_program_that_it_runs() -> None:
    """A throwaway container loads untrusted data, so its command sets no-new-privileges, just like daemon.json."""
    assert "--security-opt=no-new-privileges:true" in verify.CLOSED
    assert "--cap-drop=ALL" in verify.CLOSED


def test_the_daily_upgrade_holds_stackctl_s_locks(settings: Settings) -> None:
    unit = upkeep.units(settings, data=False)["apt-daily-upgrade.service.d/toogoodtogo.conf"]
    starts = [line for line in lines(unit) if line.startswith("ExecStart=")]
    assert starts == ["ExecStart=", "ExecStart=/usr/local/bin/stackctl upgrade"]


def test_fail2ban_counts_guesses_soon_and_a_page_of_many_files_late(settings: Settings) -> None:
    jail = lines(fail2ban.configuration(settings, edge=True)["jail.local"])
    starts = [number for number, line in enumerate(jail) if line.startswith("[")]
    jails = {
        jail[start]: dict(line.split(" = ", 1) for line in jail[start + 1 : end])
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    }
    counts = {name: (one["maxretry"], one["findtime"]) for name, one in jails.items() if name != "[DEFAULT]"}
    assert counts == {"[sshd]": ("10", "10m"), "[nginx-refusals]": ("100", "1m"), "[nginx-floods]": ("1000", "1m")}
    assert all(one["enabled"] == "true" for name, one in jails.items() if name != "[DEFAULT]")
    assert jails["[DEFAULT]"]["bantime.maxtime"] == "7d"


def test_root_s_rules() -> None:
    gate = "ci ALL=(root) NOPASSWD: /usr/local/bin/stackctl gate -- *"
    # Debian's own sudoers file also resets the environment. The line for CI is needed in case Debian's file changes.
    assert lines(build.file("ci/sudoers")) == ["Defaults:ci env_reset, !setenv", gate]
    keys = build.template("ci/authorized_keys.j2", keys=["ssh-ed25519 AAAA ci"])
    line = 'restrict,command="sudo -n /usr/local/bin/stackctl gate -- \\"$SSH_ORIGINAL_COMMAND\\"" ssh-ed25519 AAAA ci'
    assert lines(keys) == [line]
    assert "Defaults use_pty" in lines(build.file("hardening/sudoers"))
    assert CI_LOGIN == "ci"


SYSCTLS = """
net.ipv4.conf.all.rp_filter = 1 · net.ipv4.conf.all.accept_source_route = 0 · net.ipv4.conf.all.accept_redirects = 0
net.ipv4.tcp_syncookies = 1 · net.ipv6.conf.all.forwarding = 0 · net.ipv6.conf.all.accept_ra = 0
kernel.kptr_restrict = 2 · kernel.yama.ptrace_scope = 2 · kernel.unprivileged_bpf_disabled = 1
kernel.unprivileged_userns_clone = 0 · kernel.kexec_load_disabled = 1 · kernel.io_uring_disabled = 2
kernel.core_pattern = |/bin/false · fs.suid_dumpable = 0 · fs.protected_symlinks = 1 · fs.protected_hardlinks = 1
"""


def test_the_kernel_s_parameters() -> None:
    there = lines(build.file("hardening/sysctl.conf"))
    assert set(re.split(r"\s*[·\n]\s*", SYSCTLS.strip())) <= set(there)
    assert all(re.fullmatch(r"[a-z][a-z0-9_.*-]+ = \S+.*", line) for line in there)


def test_no_module_is_blocked_that_docker_or_a_cloud_image_needs() -> None:
    barred = {line.split()[1] for line in lines(build.file("hardening/modprobe.conf"))}
    assert {"sctp", "dccp", "rds", "tipc", "algif_aead", "vsock", "can", "ax25", "n_hdlc", "cifs", "rxrpc"} <= barred
    needed = {"overlay", "br_netfilter", "bridge", "veth", "nf_tables", "xt_conntrack", "iptable_nat", "ip_tables"}
    needed |= {"vfat", "isofs", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng", "ext4", "fuse", "nf_conntrack"}
    assert not barred & needed


def test_the_values_behind_droplet_tests_are_complete() -> None:
    """tests/droplet tests each value in these lists, so a value that is removed from a list would lose its test."""
    root_s = {"/boot": "700", "/etc/crontab": "600", "/etc/sudoers.d": "750", "/etc/ssh/sshd_config": "600"}
    cron = {f"/etc/cron.{often}": "700" for often in ("d", "hourly", "daily", "weekly", "monthly")}
    assert root_s | cron == hardening.ROOT_ONLY
    clear_text = {
        "telnet",
        "rsh-client",
        "rsh-server",
        "talk",
        "nis",
        "tftpd-hpa",
        "inetutils-inetd",
        "xinetd",
        "rpcbind",
    }
    assert clear_text == set(hardening.UNWANTED)
    assert {"debsums", "needrestart", "libpam-pwquality", "apt-listchanges"} == set(hardening.WATCHING)
    assert set(fail2ban.TELEGRAM) == {"149.154.160.0/20", "91.108.4.0/22"}
    assert nginx.HEADERS == {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
    assert (data_services.UID, MAX_CONNECTIONS, PRIVILEGES) == (999, 100, ("CREATE", "CONNECT", "TEMPORARY"))
