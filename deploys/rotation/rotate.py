"""Rotates a secret: `make rotate KEY=REDIS_PASSWORD ENV=prod`.

Without make, use `python -m deploys.rotation.rotate inventories/prod.py REDIS_PASSWORD`. The program describes the
secret and asks for confirmation. Then the program writes the new value into the env file, tests the new value if
possible, converges (which releases the live tag again), and runs status. At the end, the program prints the work that
is left for the operator. If a step fails, the program usually restores the old value in the env file and on the
droplet. However, the new value stays if the new value is already in use, or if the old value may no longer be valid.
The new value is generated, typed without echo, or read from standard input, but never given as an argument. The program
has the same exit codes as stackctl (docs/reference/exit-codes.md).
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import environment_of, group_data
from deploys.config.settings import Settings, checked_credentials, load_settings
from deploys.rotation.secrets import ADD_KEY, APP_SECRET, BY_HAND, CONVERGE, REVOKE_OTHER_KEYS, SECRETS, Secret
from deploys.secrets import ledger
from deploys.secrets.env_file import values_in, with_value
from deploys.terminal.exit_codes import DONE, FAILED, LOCKED, NEEDS_A_PERSON, REFUSED
from deploys.terminal.prompt import confirm
from stackctl.core import durable
from stackctl.core.errors import LockedError, RefusedError, StackError


def main() -> int:
    """Rotate the secret named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploys.rotation.rotate")
    parser.add_argument("inventory")
    parser.add_argument("key", nargs="?", default="")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return rotate(environment_of(arguments.inventory), arguments.key, sure=arguments.yes)
    except (StackError, PyinfraError) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return error.code if isinstance(error, StackError) else REFUSED
    except KeyboardInterrupt:
        print("\nNothing was changed: interrupted.", file=sys.stderr)
        return REFUSED


def rotate(environment: str, key: str, *, sure: bool) -> int:
    """Rotate a secret and return the exit code.

    Raises RefusedError, LockedError, PyinfraError or KeyboardInterrupt, but only before the first change.
    """
    if key in BY_HAND:
        print(f"{key} is rotated by hand. {BY_HAND[key]}")
        return DONE
    data = group_data(environment)
    with only_rotation(Path(data["env_file"])):
        return _rotate(environment, load_settings(data), key, sure=sure)


@contextmanager
def only_rotation(env_file: Path) -> Iterator[None]:
    """Refuse a second rotation at the same time.

    If one of two rotations failed, the failed rotation would undo the other rotation's change of the env file. The lock
    is on the directory of the env file, because a lock on the file would be lost when the file is replaced.
    """
    directory = env_file.resolve().parent
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RefusedError(f"cannot open {directory}, where {env_file.name} should be: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"another rotation is running in {directory}. Next: wait until that rotation ends, then run the "
                "same command again"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _rotate(environment: str, settings: Settings, key: str, *, sure: bool) -> int:
    if key not in settings.credentials.by_name:
        known = ", ".join([*settings.credentials.by_name, *(name for name in BY_HAND if name != ledger.KEY)])
        cause = f"{key} is no secret of {environment}" if key else "no KEY was given"
        raise RefusedError(f"{cause}. Next: set KEY to one of {known}")
    secret = SECRETS.get(key, APP_SECRET)
    print(f"{key} of {environment}\n  {secret.description}\n  During the rotation: {secret.during}", flush=True)
    if not sure:
        confirm("Rotate it now?", ". Next: confirm in advance with YES=1 (--yes)")
    value = secret.make() if secret.make else read_value(key)
    rotation = Rotation(environment, settings, key, secret)
    return rotation.run(changed(settings, rotation.before, key, value))


def read_value(key: str) -> str:
    """Read a new value that somebody else issued, from the terminal or from standard input. Raises RefusedError."""
    if sys.stdin and sys.stdin.isatty():
        try:
            value = getpass.getpass(f"The new {key} (not shown): ")
        except EOFError:  # Ctrl-D
            value = ""
    else:
        value = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
    if not value:
        raise RefusedError(f"no new {key} was given. Next: type the new value, or pass the value on standard input")
    return value


def changed(settings: Settings, before: str, key: str, value: str) -> str:
    """Return the env file's text with the new value, and check the result. Raises CredentialsError or RefusedError."""
    path = Path(settings.values.env_file)
    if value == settings.credentials.by_name[key]:
        raise RefusedError(
            f"{path} already has this value of {key}. Next: make site, if the droplet does not use the value yet"
        )
    if key == "TELEGRAM_BOT_TOKEN" and value.partition(":")[0] != settings.credentials.app[key].partition(":")[0]:
        raise RefusedError("the new token belongs to another bot, because the digits before the colon differ")
    after = with_value(before, key, value)
    values = values_in(after, path)
    checked_credentials(settings.values, values, "the new value")
    if values != {**values_in(before, path), key: value}:
        raise RefusedError(
            f"the form of the line of {key} in {path} is not supported. Next: write the line as {key}='value'"
        )
    return after


class Rotation:
    """Writes the new value into the env file, and runs the steps that put the new value into use.

    If a step fails, the old value is restored, unless the old value may no longer be valid.
    """

    def __init__(self, environment: str, settings: Settings, key: str, secret: Secret) -> None:
        self.environment, self.key, self.secret = environment, key, secret
        self.env_file = Path(settings.values.env_file).resolve()
        self.ledger_file = Path(settings.values.secrets_ledger)
        self.before = self.env_file.read_bytes().decode()
        self.ages_before = ledger.read(self.ledger_file)
        self.converge = f"make site ENV={environment}"

    def run(self, after: str) -> int:
        """Write `after` into the env file, run the steps of the rotation and return the exit code."""
        step, converged = self.secret.steps[0], True
        try:
            write(self.env_file, after)
            if self.secret.check and run(self.environment, self.secret.check) != DONE:
                return self._refuse()
            for step in self.secret.steps:
                code = run(self.environment, step)
                if code != DONE and not self._in_use(step):
                    return self._fail(step, code, after)
                converged = converged and code == DONE
        except BaseException as error:
            cause = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
            if self._keeps(step) or self._in_use(step):
                return self._keep(step, after, cause)
            self._restore_files()
            print(
                f"\n{cause}. {self.env_file.name} has the old value again, but the droplet may have the new value. "
                f"Next: {self.converge}, which restores the old value there, or rotate again."
            )
            return NEEDS_A_PERSON
        return self._conclude(converged=converged)

    def _in_use(self, step: str) -> bool:
        """Tell whether a failed converge recorded the new value. A converge only records a value that is in use."""
        return step == CONVERGE and ledger.read(self.ledger_file).get(self.key) != self.ages_before.get(self.key)

    def _keeps(self, step: str) -> bool:
        """Tell whether the old value may no longer be valid.

        A failed revocation may have revoked some old passwords.
        """
        return self.secret.keep_on_failure or step == REVOKE_OTHER_KEYS

    def _conclude(self, *, converged: bool) -> int:
        """Run status, then print the remaining work at the end, because operators read the end of the output."""
        print("\nThe new value is in use. The status follows.", flush=True)
        try:
            well = run(self.environment, "deploys/status.py") == DONE
        except KeyboardInterrupt:
            well = False
        print(f"\nRotated. {self.secret.after}\n{self.ledger_file} has the new age. Commit this file.")
        if not converged:
            print(f"But another part of the converge failed, see above. Next: fix the cause, then {self.converge}")
        if not well:
            print(f"But status reports a problem, see above. Next: make status ENV={self.environment}")
        return DONE if converged and well else NEEDS_A_PERSON

    def _refuse(self) -> int:
        self._restore_files()
        print(
            "\nThe test of the new value failed, see above. Nothing was changed. Next: rotate again with the right "
            "value, or with the same value if something else was the cause."
        )
        return REFUSED

    def _fail(self, step: str, code: int, after: str) -> int:
        if self._keeps(step):
            return self._keep(step, after, "A step failed, see above")
        if (step, code) == (CONVERGE, LOCKED):
            return self._withdraw()
        return self._undo()

    def _keep(self, step: str, after: str, cause: str) -> int:
        write(self.env_file, after)  # the interruption may have prevented the first write
        print(
            f"\n{cause}. The new value stays in {self.env_file.name}, because the new value may be in use already, "
            f"or the old value may no longer work. Next: fix the cause, then {self._rest(step)}. If the new value is "
            "wrong, rotate again instead."
        )
        return NEEDS_A_PERSON

    def _withdraw(self) -> int:
        self._restore_files()
        print("\nThe droplet is locked, see above. Nothing was changed on it. Next: wait, then rotate again.")
        if ADD_KEY in self.secret.steps:
            print("The repository also accepts a password that is now lost. The next rotation revokes that password.")
        return LOCKED

    def _undo(self) -> int:
        print(
            f"\nA step failed, see above. Restoring the old value in {self.env_file.name} and on the droplet.",
            flush=True,
        )
        self._restore_files()
        if run(self.environment, CONVERGE) == DONE:
            print("\nUndone: the old value is in use. Next: fix the cause, then rotate again.")
            return FAILED
        print(
            f"\n{self.env_file.name} has the old value again, but parts of the droplet may use the new value. "
            f"Next: {self.converge}"
        )
        return NEEDS_A_PERSON

    def _restore_files(self) -> None:
        write(self.env_file, self.before)
        # Also restore the ledger, because otherwise the restored secret would count as new today.
        ledger.write(self.ledger_file, self.ages_before)

    def _rest(self, step: str) -> str:
        """Return the commands for the given step and all later steps."""
        left = self.secret.steps[self.secret.steps.index(step) :]
        typed = {one: " ".join([".venv/bin/python", *command(self.environment, one)[1:]]) for one in left}
        return ", ".join({**typed, CONVERGE: self.converge}[one] for one in left)


def write(path: Path, text: str) -> None:
    """Replace a file atomically. Only the file's owner can read the file, and root does not change the owner."""
    owner = path.stat()
    durable.write(path, text.encode())
    os.chown(path, owner.st_uid, owner.st_gid)


def run(environment: str, step: str) -> int:
    """Run a step with its output on the terminal and return its exit code.

    The step does not get this program's standard input, which may still hold the new value.
    """
    return subprocess.run(command(environment, step), stdin=subprocess.DEVNULL, check=False).returncode


def command(environment: str, step: str) -> list[str]:
    """Return the command of a step. A step is a deploy, or a program with options."""
    module, *options = ["pyinfra", step, "-y"] if step.endswith(".py") else step.split()
    return [sys.executable, "-m", module, f"inventories/{environment}.py", *options]


if __name__ == "__main__":
    sys.exit(main())
