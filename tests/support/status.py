"""Helpers that return parts of the fake droplet's `stackctl status`."""

import json
from typing import Any

from tests.support.fakes.droplet import Droplet, stackctl


def web(droplet: Droplet) -> dict[str, Any]:
    return next(c for c in droplet.docker.containers if c["service"] == "web")


def worker(droplet: Droplet) -> dict[str, Any]:
    return next(c for c in droplet.docker.containers if c["service"] == "worker")


def status(droplet: Droplet) -> tuple[int, dict[str, Any]]:
    code, shown = stackctl(droplet, "status", "--json")
    return code, json.loads(shown)
