"""Shows the changes that `make site` would make, with diffs, and counts the changed hosts: `make plan ENV=prod`.

pyinfra's dry run prints each diff on standard error as soon as it finds a difference, and then prints the plan as JSON.
`python -m deploys.converge.plan inventories/prod.py --json` prints JSON instead of a summary: {"hosts": {host:
[operation, …]}, "changed": number of hosts, "foreign": {host: [finding, …]}}. The exit code is 0, even if the plan has
changes. If pyinfra fails, the program exits with pyinfra's exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from deploys.operations.this_run import FOREIGN_LIST
from deploys.terminal.exit_codes import DONE, FAILED

Operations = list[dict[str, Any]]
Foreign = dict[str, list[dict[str, Any]]]
"""The foreign findings of each host, as stackctl lists them."""


def main() -> int:
    """Make the plan, print the plan and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploys.converge.plan")
    parser.add_argument("inventory")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
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
        sys.stderr.write(f"Cannot plan: {arguments.inventory} has no host. Next: name one in each of its groups\n")
        return FAILED
    sys.stdout.write(for_machines(operations, found) if arguments.json else summary(operations, found))
    return DONE


def summary(operations: Operations, found: Foreign) -> str:
    """List the operations that would change something, for each host.

    The last line says how many hosts would change.
    """
    by_host = _changes(operations)
    lines = [line for host, names in by_host.items() for line in (f"\n{host} would change:", *_listed(names))]
    hosts = "1 host" if len(by_host) == 1 else f"{len(by_host)} hosts"
    for host, there in sorted(found.items()):
        if there:
            lines += [f"\n{host} has foreign findings:", *_listed(map(one_line, there))]
    return "\n".join([*lines, f"\n{hosts} would change ({len(operations)} operations looked at).\n"])


def for_machines(operations: Operations, found: Foreign) -> str:
    """Return the content of `summary` as one line of JSON, for programs."""
    by_host = _changes(operations)
    foreign = {host: [one_line(one) for one in there] for host, there in sorted(found.items()) if there}
    return json.dumps({"hosts": by_host, "changed": len(by_host), "foreign": foreign}) + "\n"


def one_line(finding: dict[str, Any]) -> str:
    """Return one finding and its remedy as a line."""
    return f"{finding['name']}: {finding['what']}. Next: {finding['next']}"


def _changes(operations: Operations) -> dict[str, list[str]]:
    by_host: dict[str, list[str]] = {}
    for operation in operations:
        for host in operation["hosts_with_change"]:
            by_host.setdefault(host, []).append(operation["name"])
    return dict(sorted(by_host.items()))


def _listed(names: Iterable[str]) -> list[str]:
    return [f"  - {name}" for name in names]


if __name__ == "__main__":
    sys.exit(main())
