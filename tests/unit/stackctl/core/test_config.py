"""stackctl reads stackctl.json strictly. An error message names the faulty key."""

import json
from typing import Any

import pytest

from stackctl.core import config
from stackctl.core.errors import RefusedError
from stackctl.core.paths import Paths
from tests.support.fakes.droplet import CONFIG

DATA = CONFIG["data"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 2}, "version must be 1, but is 2"),
        ({"repositry": "x"}, "repositry is unknown"),
        ({"watch": "30"}, "watch must be a whole number"),
        ({"watch": True}, "watch must be a whole number"),
        ({"stop_grace": 0}, "stop_grace must be a whole number above 0"),
        ({"repository": ""}, "repository must be text"),
        ({"app": "other"}, "app must be 'bot'"),
        *(({key: 0}, f"{key} must be a whole number above 0") for key in ("worker_grace", "watch", "connections")),
        *(({key: "3"}, f"{key} must be a whole number above 0") for key in ("worker_grace", "watch", "connections")),
        ({"migrate": None}, "migrate must be true or false"),
        ({"worker": 1}, "worker must be true or false"),
        ({"ready_path": None}, "ready_path must be a path that begins with /"),
        ({"ready_path": "ready"}, "ready_path must be a path that begins with /"),
        ({"version_path": ""}, "version_path must be null or a path that begins with /"),
        ({"webhook_path": "https://x/"}, "webhook_path must be null or a path that begins with /"),
        ({"data": True}, "data must be null or an object"),
        ({"data": {"database": "app", "owner": "owner"}}, "data.backup_memory_mib is missing, data.major is missing"),
        ({"data": DATA | {"owner": ""}}, "data.owner must be text that is not empty"),
        ({"data": DATA | {"major": "17"}}, "data.major must be a whole number above 0"),
        ({"data": DATA | {"backup_memory_mib": 0}}, "data.backup_memory_mib must be a whole number above 0"),
        ({"data": DATA | {"port": 1}}, "data.port is unknown"),
        ({"colours": {"blue": "172.31.0.11"}}, "colours must be an address for blue and one for green"),
        ({"colours": {"blue": "", "green": "172.31.0.12"}}, "colours.blue must be text that is not empty"),
        ({"certificate": {"domain": "x"}}, "certificate.email is missing, certificate.server is missing"),
        (
            {"certificate": {"domain": "x", "server": "https://x", "email": ""}},
            "certificate.email must be text that is not empty",
        ),
        ({"watch": 0, "worker": 1}, "watch must be a whole number above 0, worker must be true or false"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(paths: Paths, change: dict[str, Any], fault: str) -> None:
    paths.config.write_text(json.dumps(CONFIG | change))
    with pytest.raises(RefusedError, match=fault):
        config.load(paths)


@pytest.mark.parametrize("key", [key for key in CONFIG if key != "version"])
def test_a_missing_key_is_named(paths: Paths, key: str) -> None:
    paths.config.write_text(json.dumps({k: v for k, v in CONFIG.items() if k != key}))
    with pytest.raises(RefusedError, match=f"{key} is missing"):
        config.load(paths)


def test_the_configuration_as_declared(paths: Paths) -> None:
    certificate = {"domain": "bot.lab.test", "server": "https://acme", "email": "ops@lab.test"}
    paths.config.write_text(json.dumps(CONFIG | {"certificate": certificate, "migrate": False}))
    loaded = config.load(paths)
    assert loaded.certificate == config.Certificate("bot.lab.test", "https://acme", "ops@lab.test")
    assert loaded.data == config.Data("app", "owner", 17, 128, "/data")
    assert (loaded.migrate, loaded.worker, loaded.watch) == (False, True, 3)
    assert (loaded.worker_grace, loaded.watch, loaded.connections) == (7, 3, 12)
    assert (loaded.ready_path, loaded.version_path, loaded.webhook_path) == ("/ready", "/health", "/webhook")


@pytest.mark.parametrize("key", ["certificate", "data", "version_path", "webhook_path"])
def test_what_an_app_may_do_without_is_null(paths: Paths, key: str) -> None:
    paths.config.write_text(json.dumps(CONFIG | {key: None}))
    assert getattr(config.load(paths), key) is None
