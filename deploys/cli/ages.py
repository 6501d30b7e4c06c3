"""Prints the ages of an environment's secrets: `python -m deploys.cli.ages inventories/prod.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from deploys.config.environments import environment_of, group_data
from deploys.secrets.ledger import ages, read, today
from deploys.secrets.rules import CredentialsError


def main(inventory: str) -> None:
    """Print the ages of the secrets. If the ledger cannot be read, exit with the reason."""
    environment = environment_of(inventory)
    try:
        known = read(Path(group_data(environment)["secrets_ledger"]))
    except CredentialsError as error:
        sys.exit(str(error))
    print("\n".join(ages(known, environment, today())))


if __name__ == "__main__":
    main(*sys.argv[1:])
