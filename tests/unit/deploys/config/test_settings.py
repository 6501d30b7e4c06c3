"""A fault in group_data stops the run before any change. The error message names the faulty value and the remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.components.stackctl import stackctl_config
from deploys.config import settings
from deploys.config.keys import read_authorized_keys, read_certificate, read_ci_keys
from deploys.config.settings import Settings, check_ssh, check_values, load_settings
from deploys.config.values import SettingsError, Values
from deploys.secrets.rules import OFFSITE_RULES, OPERATOR_RULES, RULES, TELEGRAM_RULES
from stackctl.core.config import load as load_config
from stackctl.core.paths import Paths
from tests.support.settings import ROOT, data_of, settings_of

ENVIRONMENTS = ["lab", "vm", "staging", "prod"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_is_accepted_once_its_examples_are_replaced(environment: str) -> None:
    assert check_values(data_of(environment)).app == "toogoodtogo"


@pytest.mark.parametrize("name", ["domain", "acme_email", "app_repository", "registry_user", "offsite_repository"])
def test_an_example_left_in_place_is_refused(name: str) -> None:
    example = {"domain": "bot.example.com", "acme_email": "me@example.com", "app_repository": "ghcr.io/example/bot",
               "registry_user": "example",
               "offsite_repository": "s3:https://ams3.digitaloceanspaces.com/example/bot"}[name]  # fmt: skip
    with pytest.raises(SettingsError, match=f"{name} is still a placeholder"):
        check_values({**data_of("prod"), name: example})


@pytest.mark.parametrize("name", sorted(data_of("prod")))
def test_a_missing_name_is_named(name: str) -> None:
    data = data_of("prod")
    del data[name]
    with pytest.raises(SettingsError, match=rf"\b{name} is missing"):
        check_values(data)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"domian": "x.dev"}, "domian is not known: did you mean domain"),
        (
            {"app_port": 3000},
            r"app_port is not known: the app has to listen on 8080 \(docs/reference/app-contract.md\)",
        ),
        ({"frobnicate": 3000}, r"frobnicate is not known\. Next: remove it"),
        ({"watch_s": "30"}, "watch_s has to be a whole number without quotes: it is '30'"),
        ({"public_paths": ["webhook"]}, r"public_paths\.0 is malformed: 'webhook' has to begin with /"),
        ({"public_paths": "/"}, "public_paths has to be a list in brackets: it is '/'"),
        ({"domain": "https://bot.marketplace.dev"}, "domain is malformed"),
        ({"postgres_image": "postgres:latest"}, "postgres_image .*tag that names the version and the Debian release"),
        ({"postgres_image": "postgres:17"}, "postgres_image .*tag that names the version and the Debian release"),
        ({"postgres_memory_mib": "512"}, "postgres_memory_mib has to be a whole number"),
        ({"postgres_image": "postgres:trixie"}, "postgres_image .*tag that names the version and the Debian release"),
        (
            {"postgres_image": "pgvector/pgvector:0.8.1-trixie"},
            "postgres_image has no version of PostgreSQL in its tag",
        ),
        (
            {"postgres_image": f"postgres@sha256:{'a' * 64}"},
            "postgres_image .*tag that names the version and the Debian release",
        ),
        (
            {"postgres_image": "postgres:17.11-trixie@sha256:abc"},
            "postgres_image .*tag that names the version and the Debian release",
        ),
        (
            {"domain": "бот.маркет.рф"},
            r"domain has letters other than a to z. Next: write the name in punycode: xn--90a0am.xn--80akogvo.xn--p1ai",
        ),
        ({"domain": f"{'a' * 64}.dev"}, "domain is malformed"),
        ({"domain": f"{'a.' * 126}dev"}, "domain is malformed"),
        ({"domain": "bot.marketplace.1"}, "domain is malformed"),
        ({"domain": "bot.xn--p1ai-.xn--p1ai-"}, "domain is malformed"),
        ({"domain": "Bot.marketplace.dev"}, "domain is malformed"),
        *(
            (
                {"app_repository": name},
                "app_repository .* is not a repository. Next: write the repository in lower case, without https://",
            )
            for name in (
                *("ghcr.io/MyTeam/Bot", "ghcr.io/team/bot:latest", "https://ghcr.io/team/bot", "ghcr.io/team/bot/"),
                *(f"ghcr.io/team/bot@sha256:{'a' * 64}", "ghcr.io/team/bot ", "ghcr.io//bot", "ghcr.io/team/-bot"),
            )
        ),
        ({"client_rate": 0}, "client_rate: .*greater than or equal to 1"),
        ({"client_burst": "200"}, "client_burst has to be a whole number"),
        (
            {"app_environment": {"BIG": "x" * 131_069}},
            "BIG is too long, because name and value may have at most 131072 bytes",
        ),
        ({"postgres_memory_mib": 4096}, r"droplet_memory_mib 2048 is too small for .* = 5\d{3}"),
        ({"backup_memory_mib": 512}, r"is too small for .*backup_memory_mib 512 .* = 2\d{3}"),
        (
            {"backup_memory_mib": 100},
            "backup_memory_mib 100 is too small to verify a backup of a full Redis. Next: raise it to 112",
        ),
        ({"backup_at": "2:30"}, "backup_at is malformed"),
        ({"worker_memory_mib": 512}, r"is too small for .*worker_memory_mib 512 = 2\d{3}"),
        ({"app_connections": 43}, "app_connections 43 for each colour .* make 101, but PostgreSQL accepts 100"),
        ({"database_user": "postgres"}, "database_user postgres is reserved for PostgreSQL"),
        ({"database_user": "pg_app"}, "database_user pg_app is reserved for PostgreSQL"),
        ({"database_user": "a" * 55}, "database_user is malformed"),
        ({"sshd_allowed_from": ["0.0.0.0/0"]}, "0.0.0.0/0 means everyone. Next: name networks, or leave the list"),
        ({"sshd_allowed_from": ["192.0.2.1/24"]}, "sshd_allowed_from.*192.0.2.1/24 has host bits set"),
        ({"offsite_repository": "s3:http://ams3.digitaloceanspaces.com/bucket"}, "offsite_repository is malformed"),
        ({"offsite_repository": "s3:https://ams3.digitaloceanspaces.com/"}, "offsite_repository is malformed"),
        ({"offsite_repository": "s3:https://ams3.digitaloceanspaces.com/b"}, "offsite_repository is malformed"),
        (
            {"docker_pool": "10.1.0.0/16"},
            "vpc_network overlaps docker_pool. Next: choose another range for docker_pool",
        ),
        ({"docker_pool": "172.30.1.0/24"}, "docker_pool overlaps app_subnet"),
        ({"app_ip_range": "172.30.9.0/25"}, "app_ip_range lies outside of app_subnet"),
        ({"colours": {"blue": "172.30.1.11"}}, "colours needs blue and green"),
        ({"colours": {"blue": "172.30.1.11", "green": "172.30.1.200"}}, "green has to lie in app_subnet and outside"),
        ({"data_subnet": "172.30.1.0/25"}, "app_subnet overlaps data_subnet"),
        ({"data_ip_range": "172.30.9.0/25"}, "data_ip_range lies outside of data_subnet"),
        ({"data_addresses": {"redis": "172.30.2.12"}}, "data_addresses needs postgres and redis"),
        ({"data_addresses": {"postgres": "172.30.2.11", "redis": "172.30.2.11"}}, "each with its own address"),
        ({"data_addresses": {"postgres": "172.30.2.1x", "redis": "172.30.2.12"}}, "data_addresses.postgres"),
        (
            {"data_addresses": {"postgres": "172.30.2.11", "redis": "172.30.2.130"}},
            "redis has to lie in data_subnet and outs",
        ),
        ({"app_environment": {"DATABASE_URL": "x"}}, "DATABASE_URL is set twice, or set by the site itself"),
        (
            {"app_environment": {"TELEGRAM_WEBHOOK_SECRET_PREVIOUS": "x"}},
            "SECRET_PREVIOUS is set twice, or set by the site",
        ),
        ({"app_environment": {"DOCKER_HOST": "x"}}, "DOCKER_HOST would configure docker"),
        ({"app_environment": {"lower": "x"}}, "lower"),
        ({"public_paths": []}, "public_paths"),
        (
            {"public_paths": ["/other", "/webhook"]},
            "webhook_path /webhook/telegram is not passed to the app. Next: add it",
        ),
        ({"public_paths": ["webhook/telegram"]}, r"public_paths\.0 is malformed"),
        (
            {"public_paths": ["/a", "/webhook/telegram", "/a"]},
            "public_paths names /a twice. Next: remove one of the two",
        ),
        ({"public_paths": ["/webhook/telegram", "/.nginx/refused"]}, "/.nginx/refused is for nginx's own pages"),
        ({"operator": "root"}, "operator root can't be the operator's account"),
        ({"operator": "ci"}, "operator ci can't be the operator's account"),
        ({"webhook_path": "telegram"}, "webhook_path is malformed"),
        ({"webhook_allowed_from": ["149.154.160.1/20"]}, "webhook_allowed_from.0 .*has host bits set"),
        ({"trusted_addresses": ["operator"]}, "trusted_addresses.0 .*does not appear to be"),
        ({"ready_path": None}, "ready_path has to be text in quotes: it is None"),
        ({"watch_s": 0}, "watch_s: .*greater than or equal to 1"),
        ({"reboot_at": "24:00"}, "reboot_at is malformed"),
        ({"app_worker": "yes"}, "app_worker has to be True or False"),
        ({"acme_server": "http://insecure.dev/dir"}, "acme_server is malformed"),
    ],
)
def test_a_fault_is_one_line_that_names_it(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        check_values({**data_of("prod"), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [
    {"public_paths": ["/webhook/"]}, {"public_paths": ["/"]}, {"public_paths": ["/api/"], "webhook_path": None},
    {"app_worker": False, "worker_memory_mib": 512}, {"app_connections": 42}, {"version_path": None},
    {"reboot_at": None}, {"domain": "bot.xn--e1afmkfd.xn--p1ai"}, {"domain": "bazar.xn--j1amh"},
    {"domain": f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 57}.dev"}, {"app_repository": "registry.dev:5000/a/b_c/d-e.f"},
    {"app_repository": "team/bot"}, {"app_environment": {"BIG": "x" * 131_067}},
])  # fmt: skip
def test_what_fits_is_accepted(change: dict[str, Any]) -> None:
    check_values({**data_of("prod"), **change})


@pytest.mark.parametrize(("image", "major"), [
    ("postgres:17.11-trixie", 17), ("r.dev:5000/x/postgres:9-bookworm", 9),
    (f"postgres:17.11-trixie@sha256:{'a' * 64}", 17), ("pgvector/pgvector:0.8.1-pg17-trixie", 17),
    ("pgvector/pgvector:pg16-bookworm", 16), ("imresamu/postgis:17-3.5-trixie", 17),
    ("timescale/timescaledb-ha:2.17.2-pg17.2-bookworm", 17),
])  # fmt: skip
def test_the_major_version_is_the_image_s(image: str, major: int) -> None:
    assert check_values({**data_of("prod"), "postgres_image": image}).postgres_major == major


def test_an_app_without_telegram_gets_nothing_of_it() -> None:
    names = settings_of("prod", {"webhook_path": None, "public_paths": ["/"]}).app_environment().keys()
    assert {name for name in names if name.startswith("TELEGRAM_")} == {"TELEGRAM_API_URL"}  # from app_environment


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("release", {"tag"}), ("rollback", {"tag"}), ("restore", {"id", "yes", "beside", "offsite", "snapshot"})],
)
def test_an_argument_of_a_verb_is_no_name_of_group_data(verb: str, arguments: set[str]) -> None:
    """pyinfra merges arguments and group_data, so a verb would take a missing argument from group_data."""
    read = re.findall(r'host\.data\.get\("(\w+)"', (ROOT / f"deploys/{verb}.py").read_text())
    assert set(read) == arguments
    assert not arguments & Values.model_fields.keys()


def test_a_password_has_a_login_role_of_its_own() -> None:
    one, same, other = (settings_of("prod", database_password=password).login_role for password in ("a", "a", "b"))
    assert one == same != other
    assert re.fullmatch(r"toogoodtogo_[0-9a-f]{8}", one)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_password_survives_its_url(password: str) -> None:
    settings = settings_of("lab", database_password=password, redis_password=password)
    with patch.object(Settings, "login_role", "role"):  # the hash of a role's password is slow on purpose
        environment = settings.app_environment()
    for name, host in (("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")):
        url = urlsplit(environment[name])
        assert (url.hostname, unquote(url.password or "")) == (host, password)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_stackctl_reads_what_the_site_writes(tmp_path: Any, environment: str) -> None:
    paths = Paths("toogoodtogo", tmp_path)
    paths.config.parent.mkdir(parents=True)
    paths.config.write_bytes(stackctl_config(settings_of(environment), ["edge", "app", "data"]))
    config = load_config(paths)
    assert config.repository == data_of(environment)["app_repository"]
    assert config.certificate
    assert config.certificate.domain == data_of(environment)["domain"]
    assert config.data
    assert (config.data.owner, config.data.major) == ("toogoodtogo", 17)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"ssh_strict_host_key_checking": "accept-new"}, "ssh_strict_host_key_checking has to be"),
        ({}, "ssh_strict_host_key_checking has to be"),
        ({"ssh_known_host_file": "x"}, "ssh_known_host_file is not known: did you mean ssh_known_hosts_file"),
    ],
)
def test_a_host_key_that_would_not_be_checked_is_refused(data: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        check_ssh(data)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_group_data_gives_no_secret_a_value(environment: str) -> None:
    """Secrets must not be in group_data, because pyinfra's debug-inventory prints it."""
    data = data_of(environment)
    given = {name.upper() for name in [*data, *data["app_environment"]]}
    assert not given & {*RULES, *TELEGRAM_RULES, *OFFSITE_RULES, *OPERATOR_RULES, *data["app_secrets"]}


KEY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{'A' * 40} anna"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (KEY.encode("utf-16"), "is not UTF-8 .*: save it as UTF-8"),
        (f"{KEY} Zoë\n".encode("latin-1"), "is not UTF-8 .*: save it as UTF-8"),
        (b"# nobody yet\n\n", "has no key, so a converge would lock everyone out"),
        (b"", "has no key, so a converge would lock everyone out"),
        (b"ssh-ed25519 short\n", "key 1 is malformed"),
    ],
)
def test_keys_that_would_let_nobody_in_are_refused_in_one_line_that_names_the_file(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    path = tmp_path / "prod.authorized_keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{path}.*{fault}") as caught:
        read_authorized_keys(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=str(path)):
        read_ci_keys(str(path), b"")


def test_a_key_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(f"# Anna\r\n{KEY}\r\n".encode())
    assert read_authorized_keys(path) == path.read_bytes()
    with pytest.raises(SettingsError, match=r"missing\. Next: put the operators' public keys there"):
        read_authorized_keys(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("ca.crt", None, "is missing. Next: put the PEM file there"),
        ("ca.crt", b"der", "has to be a PEM certificate named"),
        ("ca.pem", b"-----BEGIN CERTIFICATE-----", "has to be a PEM certificate named"),
    ],
)
def test_an_authority_s_certificate_is_looked_at(tmp_path: Path, name: str, content: bytes | None, fault: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"extra_ca_certificates: {path} {fault}"):
        read_certificate(path)


def test_an_authority_s_certificate_has_its_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    assert (read_certificate(path).name, read_certificate(path).pem) == ("ca.crt", path.read_bytes())


def test_a_secret_that_no_program_can_be_started_with_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password of allowed length can make its URL too long, because a URL needs three characters for a `/`."""
    monkeypatch.chdir(tmp_path)
    names = ["DATABASE_PASSWORD", "REDIS_PASSWORD", "REGISTRY_PASSWORD", "FINGERPRINT_KEY", "TELEGRAM_WEBHOOK_SECRET"]
    secrets = {name: f"{name}-is-a-long-made-up-secret".replace("_", "-") for name in names}
    secrets["TELEGRAM_BOT_TOKEN"] = f"110201543:{'A' * 35}"
    Path("keys").write_text(KEY)
    data = {**data_of("prod"), "offsite_repository": None, "authorized_keys": "keys", "env_file": ".env"}
    data |= {"secrets_ledger": "ledger.json", "ssh_strict_host_key_checking": "yes"}
    for name, value, refused in (
        ("STRIPE_API_KEY", "k" * 131_072, "STRIPE_API_KEY"),
        ("DATABASE_PASSWORD", "/" * 44_000, "DATABASE_URL"),
    ):
        Path(".env").write_text(
            "".join(f"{one}='{secret}'\n" for one, secret in {**secrets, "STRIPE_API_KEY": "key", name: value}.items())
        )
        Path(".env").chmod(0o600)
        with pytest.raises(
            SettingsError, match=rf"\.env: {refused} is too long, because name and value may have at most 131072 bytes"
        ):
            load_settings(data)


def test_no_pattern_is_shown_to_a_person() -> None:
    """Messages describe a pattern in words and never show the regular expression."""
    schema = json.dumps(Values.model_json_schema())
    patterns = {match[1] for match in re.finditer(r'"pattern": ("(?:[^"\\]|\\.)*")', schema)}
    assert {json.loads(pattern) for pattern in patterns} <= settings.IN_WORDS.keys()
