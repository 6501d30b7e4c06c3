"""Runs one Compose project behind nginx and releases by `docker compose up -d`, as a small team does.

    python3 plain.py up 1.0.0      run the project in a scratch folder, with the app's own environment and networks
    python3 plain.py serve         let nginx pass requests to the project instead of to the live colour
    python3 plain.py down          remove the project and restore nginx

This program runs on the droplet as root. After a kill before `down`, nginx.conf stays changed until the next converge.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

APP = "toogoodtogo"
SCRATCH = Path("/root/plain-compose")
NGINX_CONF = Path("/etc/nginx/nginx.conf")
NGINX_CONF_BEFORE = SCRATCH / "nginx.conf"
ADDRESS = "127.0.0.1:18080"
READY_WITHIN_S = 60


def up(tag: str) -> None:
    values: dict[str, str] = json.loads(Path(f"/etc/{APP}/secrets/next.json").read_bytes())
    repository = json.loads(Path(f"/etc/{APP}/stackctl.json").read_bytes())["repository"]
    web = {
        "image": f"{repository}:{tag}",
        "command": ["web"],
        "restart": "unless-stopped",
        "ports": [f"{ADDRESS}:8080"],
        "environment": list(values),
        "networks": ["app", "data"],
    }
    networks = {name: {"name": f"{APP}-{name}", "external": True} for name in ("app", "data")}
    SCRATCH.mkdir(exist_ok=True)
    (SCRATCH / "compose.yaml").write_text(json.dumps({"services": {"web": web}, "networks": networks}))
    for command in (["pull", "--quiet"], ["up", "-d"]):
        subprocess.run(["docker", "compose", *command], cwd=SCRATCH, env={**os.environ, **values}, check=True)
    deadline = time.monotonic() + READY_WITHIN_S
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"{repository}:{tag} is not ready after {READY_WITHIN_S} s")
        time.sleep(0.2)


def ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://{ADDRESS}/ready", timeout=2):
            return True
    except OSError:
        return False


def serve() -> None:
    shutil.copy2(NGINX_CONF, NGINX_CONF_BEFORE)
    ours = NGINX_CONF.read_text()
    plain, times = re.subn(r"proxy_pass http://unix:[^;]*;", f"proxy_pass http://{ADDRESS};", ours)
    if not times:
        sys.exit(f"{NGINX_CONF} passes to no unix socket: look at this program's pattern")
    NGINX_CONF.write_text(plain)
    subprocess.run(["systemctl", "reload", "nginx"], check=True)


def down() -> None:
    if NGINX_CONF_BEFORE.exists():
        # The file is written in place, so that its owner and mode stay.
        NGINX_CONF.write_bytes(NGINX_CONF_BEFORE.read_bytes())
        subprocess.run(["systemctl", "reload", "nginx"], check=True)
    label = f"label=com.docker.compose.project={SCRATCH.name}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], check=True, capture_output=True, text=True)
    for container in listed.stdout.split():
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)
    shutil.rmtree(SCRATCH, ignore_errors=True)


match sys.argv[1:]:
    case ["up", tag]:
        up(tag)
    case ["serve"]:
        serve()
    case ["down"]:
        down()
    case _:
        sys.exit(__doc__)
