"""Tells what `make site` would change, with differences, and on how many hosts: `make plan ENV=prod`.

pyinfra's dry run shows the differences as it meets them (on standard error) and gives the rest as JSON.
`python -m deploys.converge.plan inventories/prod.py --json` gives
{"hosts": {host: [operation, …]}, "changed": how many hosts} instead of a summary for people.
Exits 0 whether there are changes or not, and with pyinfra's own code when it could not look.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from deploys.operations.this_run import FOREIGN_LIST

Operations = list[dict[str, Any]]
Foreign = dict[str, list[dict[str, Any]]]
"""What is foreign on each host, as stackctl lists it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploys.converge.plan")
    parser.add_argument("inventory")
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "pyinfra", arguments.inventory, "deploys/site.py", "--dry", "--diff", "--json"]
    with tempfile.NamedTemporaryFile() as listed:
        environment = os.environ | {FOREIGN_LIST: listed.name}
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
        found: Foreign = json.loads(listed.read() or b"{}")
    if run.returncode:
        return run.returncode
    operations = json.loads(run.stdout)["plan"]
    if not operations:
        sys.stderr.write(f"{arguments.inventory} has no host: nothing was looked at\n")
        return 1
    sys.stdout.write(for_machines(operations, found) if arguments.json else summary(operations, found))
    return 0


def summary(operations: Operations, found: Foreign) -> str:
    """The operations that would change something by host, and the count of hosts in the last line."""
    by_host = _changes(operations)
    lines = [line for host, names in by_host.items() for line in (f"\n{host} would change:", *_listed(names))]
    hosts = "1 host" if len(by_host) == 1 else f"{len(by_host)} hosts"
    for host, there in sorted(found.items()):
        if there:
            lines += [f"\n{host} has what nobody declared:", *(f"  - {told(one)}" for one in there)]
    return "\n".join([*lines, f"\n{hosts} would change ({len(operations)} operations looked at).\n"])


def for_machines(operations: Operations, found: Foreign) -> str:
    """The same in one line of JSON."""
    by_host = _changes(operations)
    foreign = {host: [told(one) for one in there] for host, there in sorted(found.items()) if there}
    return json.dumps({"hosts": by_host, "changed": len(by_host), "foreign": foreign}) + "\n"


def told(one: dict[str, Any]) -> str:
    """One finding with its remedy, in a line."""
    return f"{one['name']}: {one['what']}: {one['next']}"


def _changes(operations: Operations) -> dict[str, list[str]]:
    by_host: dict[str, list[str]] = {}
    for operation in operations:
        for host in operation["hosts_with_change"]:
            by_host.setdefault(host, []).append(operation["name"])
    return dict(sorted(by_host.items()))


def _listed(names: list[str]) -> list[str]:
    return [f"  - {name}" for name in names]


if __name__ == "__main__":
    sys.exit(main())
