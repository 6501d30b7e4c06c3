"""What `make site` would change, with differences, and how many hosts: `python -m deploys.plan inventories/prod.py`.

pyinfra's dry run shows the differences as it meets them (on standard error) and gives the rest as JSON.
Exits 0 whether there are changes or not, and with pyinfra's own code when it could not look.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main(inventory: str) -> int:
    command = [sys.executable, "-m", "pyinfra", inventory, "deploys/site.py", "--dry", "--diff", "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        return run.returncode
    operations = json.loads(run.stdout)["plan"]
    if not operations:
        sys.stderr.write(f"{inventory} has no host: nothing was looked at\n")
        return 1
    sys.stdout.write(summary(operations))
    return 0


def summary(operations: list[dict[str, Any]]) -> str:
    """The operations that would change something by host, and the count of hosts in the last line."""
    by_host: dict[str, list[str]] = {}
    for operation in operations:
        for host in operation["hosts_with_change"]:
            by_host.setdefault(host, []).append(operation["name"])
    lines = [line for host, names in sorted(by_host.items()) for line in (f"\n{host} would change:", *_listed(names))]
    hosts = "1 host" if len(by_host) == 1 else f"{len(by_host)} hosts"
    return "\n".join([*lines, f"\n{hosts} would change ({len(operations)} operations looked at).\n"])


def _listed(names: list[str]) -> list[str]:
    return [f"  - {name}" for name in names]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
