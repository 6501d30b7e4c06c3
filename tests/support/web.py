"""Requests to the public address with curl."""

from __future__ import annotations

import re

from testinfra.host import Host

from tests.support.environment import Environment

ASK = "curl -sS -o /dev/null -D - --max-time 10"


def curl(outside: Host, env: Environment, url: str, options: str = "") -> str:
    """Return the status line and headers over a verified chain, or "" if there was no answer."""
    return str(outside.run(f"{ASK} {env.trust} {options} {url}").stdout)


def status_of(answer: str) -> int:
    found = re.match(r"HTTP/\S+ (\d+)", answer)
    return int(found[1]) if found else 0


def site(env: Environment, path: str = "") -> str:
    return f"https://{env.settings.values.domain}{path or the_apps_own(env)}"


def the_apps_own(env: Environment) -> str:
    """Return a path at which nginx passes requests to the app."""
    values = env.settings.values
    return values.webhook_path or values.public_paths[0]


def is_public(env: Environment, path: str) -> bool:
    public = env.settings.values.public_paths
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in public)


TOO_MUCH = {
    "a body": (413, "-X POST --data-binary @-", "head -c 1100000 /dev/zero"),
    "a header": (431, "--http1.1 -H @-", "printf 'X-A: '; head -c 5000 /dev/zero | tr '\\0' a"),
    "headers": (
        431,
        "--http1.1 -H @-",
        "for n in $(seq 30); do printf 'X-%s: %0900d\\n' $n 1; done",
    ),
    "a path": (414, "--http1.1 --url-query @-", "head -c 5000 /dev/zero | tr '\\0' a"),
}


def send_too_much(outside: Host, env: Environment, what: str) -> str:
    _, options, program = TOO_MUCH[what]
    return str(outside.run(f"({program}) | {ASK} {env.trust} {options} {site(env, '/nothing')}").stdout)
