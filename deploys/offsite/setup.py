"""Makes the repository off the droplet: `make offsite ENV=prod`.

By itself: `python -m deploys.offsite.setup inventories/prod.py`.
It runs on the operator's machine, with the operator's keys. Two passwords open the repository, the operator's and the
droplet's: whichever does has the other one added, so that this is also how either is mended. A second run changes
nothing. A new repository begins a new ledger (look.py). Exits 0 done | 1 failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import group_data, place_of
from deploys.config.settings import load_settings
from deploys.offsite import look
from deploys.offsite.look import Ledger
from deploys.offsite.repository import DROPLET, OPERATOR, Repository, RepositoryError
from stackctl.core.printable import printable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploys.offsite.setup")
    parser.add_argument("inventory")
    parser.add_argument("--only-these", action="store_true", help="end every other password")
    arguments = parser.parse_args()
    try:
        settings = load_settings(group_data(place_of(arguments.inventory)))
        repository = Repository.of(settings)
        if made(repository):
            look.save(Path(settings.values.backups_ledger), Ledger(repository.url))
        ended = end_others(repository) if arguments.only_these else 0
    except PyinfraError as error:
        print(printable(f"offsite: {error}"), file=sys.stderr)
        return 1
    told = f", and by no other: {ended} ended" if arguments.only_these else ""
    print(f"{repository.url} opens with the operator's password and with the droplet's{told}.")
    return 0


def made(repository: Repository) -> bool:
    """Have it there, opened by both passwords, and shown by the storage to both keys; whether it is a new one.

    Raises RepositoryError.
    """
    if is_new := not repository.exists(OPERATOR):
        repository.restic("init")
        print(f"{repository.url} is new.")
    opened = [whose for whose in (OPERATOR, DROPLET) if repository.opens(whose)]
    if not opened:
        raise RepositoryError(
            f"{repository.url} opens with neither password of the env file: put the one back that it was made with, or "
            "begin a new one under another offsite_repository"
        )
    for whose in {OPERATOR, DROPLET} - {*opened}:
        repository.add_key(whose, opened_by=opened[0])
        print(f"It opens with {whose}_PASSWORD now.")
    repository.exists(DROPLET)
    return is_new


def end_others(repository: Repository) -> int:
    """Have no other password open it. How many did."""
    ours = {repository.current_key(whose) for whose in (OPERATOR, DROPLET)}
    others = [key["id"] for key in repository.json("key", "list") if key["id"] not in ours]
    for key in others:
        repository.restic("key", "remove", key)
    return len(others)


if __name__ == "__main__":
    sys.exit(main())
