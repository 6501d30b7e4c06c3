"""Creates the off-site repository, or repairs its passwords: `make offsite ENV=prod`.

Without make, use `python -m deploys.offsite.setup inventories/prod.py`. The program runs on the operator's machine with
the operator's keys. Afterwards, both the operator's password and the droplet's password open the repository. If only
one of the two passwords opens the repository, the program uses that password to add the other password. A second run of
the program changes nothing. A new repository gets a new ledger (look.py). The exit code is 0 after success, and 1 after
a failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import environment_of, group_data
from deploys.config.settings import load_settings
from deploys.offsite import look
from deploys.offsite.look import Ledger
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED
from stackctl.core.printable import printable


def main() -> int:
    """Set up the repository of the environment named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploys.offsite.setup")
    parser.add_argument("inventory")
    parser.add_argument("--only-these", action="store_true", help="revoke every password except those in the env file")
    arguments = parser.parse_args()
    try:
        settings = load_settings(group_data(environment_of(arguments.inventory)))
        repository = Repository.of(settings)
        if made(repository):
            look.save(Path(settings.values.backups_ledger), Ledger(repository.url))
        revoked = revoke_others(repository) if arguments.only_these else 0
    except PyinfraError as error:
        print(printable(f"offsite: {error}"), file=sys.stderr)
        return FAILED
    others = f", and with no other password ({revoked} revoked)" if arguments.only_these else ""
    print(f"{repository.url} opens with the operator's password and with the droplet's password{others}.")
    return DONE


def made(repository: Repository) -> bool:
    """Create the repository if needed, and add a missing password. Return whether the repository is new.

    Raises RepositoryError if a step fails, or if the storage refuses one of the two access keys.
    """
    if is_new := not repository.exists(OPERATOR):
        repository.restic("init")
        print(f"{repository.url} is new.")
    opened = [whose for whose in (OPERATOR, DROPLET) if repository.opens(whose)]
    if not opened:
        raise RepositoryError(
            f"{repository.url} opens with neither password of the env file. Nothing was changed. Next: put back the "
            "password that the repository was created with, or set offsite_repository to a new repository"
        )
    for whose in {OPERATOR, DROPLET} - {*opened}:
        repository.add_key(whose, opened_by=opened[0])
        print(f"The repository now opens with {whose}_PASSWORD.")
    repository.exists(DROPLET)
    return is_new


def revoke_others(repository: Repository) -> int:
    """Revoke all other passwords and return their number."""
    ours = {repository.current_key(whose) for whose in (OPERATOR, DROPLET)}
    others = [key["id"] for key in repository.json("key", "list") if key["id"] not in ours]
    for key in others:
        repository.restic("key", "remove", key)
    return len(others)


if __name__ == "__main__":
    sys.exit(main())
