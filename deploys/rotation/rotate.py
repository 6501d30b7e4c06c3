"""Rotates a secret: `make rotate KEY=REDIS_PASSWORD ENV=prod`.

By itself: `python -m deploys.rotation.rotate inventories/prod.py REDIS_PASSWORD`.
It says what the secret is, asks, puts the new value into the env file, has it tried where that can be done, converges
(which releases anew), looks at what runs, and says what is left to do. What fails is undone: the old value back in the
file, and on the droplet; unless the new one is in use by then, or the old one may be dead.
A value is never an argument: we make it, or it is typed without echo, or it is the first line of standard input.
Exits 0 done | 1 failed, and undone | 2 refused, nothing changed | 3 somebody else is at work, nothing changed
| 4 needs a person.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import group_data, place_of
from deploys.config.settings import Settings, checked_credentials, load_settings
from deploys.converge.session import LOCKED
from deploys.secrets import ledger
from deploys.secrets.env_file import values_in, with_value
from deploys.terminal.prompt import refusal
from stackctl.core import durable

DONE, UNDONE, REFUSED, BUSY, NEEDS_A_PERSON = 0, 1, 2, 3, 4

CONVERGE = "deploys/site.py"
OPEN_WITH_BOTH = "deploys.offsite.setup"
SHOW_THE_NEW_ONE = "deploys/checks/offsite.py"
END_THE_OTHERS = "deploys.offsite.setup --only-these"


class RefusedError(Exception):
    """Nothing was changed. One line: why, and the remedy."""


class BusyError(Exception):
    """Nothing was changed, since somebody else is at work. One line: who, or where."""


@dataclass(frozen=True)
class Secret:
    """What an operator has to know of one."""

    what: str
    """It is, and who issues it."""
    meanwhile: str
    """What goes on with the old one, and what doesn't."""
    afterwards: str
    """What is left to a person."""
    make: Callable[[], str] | None = None
    """For what we issue ourselves."""
    proof: str | None = None
    """A deploy that fails when the new one is refused where it counts, and changes nothing. It comes first."""
    steps: tuple[str, ...] = (CONVERGE,)
    """What has the new one used, in order: a deploy each, or a program with its options."""
    stays: bool = False
    """The new one is kept when the rotation fails: by then the old one may be dead, and the new one shown once only."""


OF_THE_REPOSITORY = (
    "The old one opens nothing any more. But whoever opened the repository with it can have kept the repository's own "
    "key, which stays: if it leaked, begin a new repository (docs/how-to/offsite-backups.md)."
)
SECRETS = {
    "DATABASE_PASSWORD": Secret(
        what="PostgreSQL's password of the app. We make it ourselves.",
        meanwhile="Both work: each has a login role of its own. The live tag is released anew; no request is lost.",
        afterwards=(
            "The old one works until no kept release needs it: after two more releases that differ. If it leaked, make "
            "them now (make release, twice with a change), or drop its role by hand (docs/how-to/secrets.md)."
        ),
        make=lambda: secrets.token_urlsafe(32),
    ),
    "REDIS_PASSWORD": Secret(
        what="Redis's password of the app. We make it ourselves.",
        meanwhile="Redis admits both until the new release serves. Nothing restarts; no request is lost.",
        afterwards="Redis refuses the old one now. A rollback to a release from before would not become healthy.",
        make=lambda: secrets.token_urlsafe(32),
    ),
    "TELEGRAM_WEBHOOK_SECRET": Secret(
        what="What Telegram sends with every update, to prove that it is Telegram. We make it ourselves.",
        meanwhile="The new release takes both; Telegram is told the new one once it serves. No update is lost.",
        afterwards="The old one is taken until the next release. If it leaked, release the live tag once more.",
        make=lambda: secrets.token_hex(32),
    ),
    "TELEGRAM_BOT_TOKEN": Secret(
        what="The bot's token. @BotFather issues it: /revoke gives a new one, and ends the old one at that moment.",
        meanwhile=(
            "Nothing overlaps. From /revoke until the new release serves the bot can send nothing; what users write is "
            "kept by Telegram. So begin here, and go to @BotFather when the value is asked for."
        ),
        afterwards="Telegram has refused the old one since /revoke.",
        proof="deploys/checks/telegram.py",
        stays=True,
    ),
    "REGISTRY_PASSWORD": Secret(
        what="The token that may pull the app's image. The registry issues it; make a new one that may pull, no more.",
        meanwhile="Both work until you revoke the old one. What runs needs neither.",
        afterwards="Revoke the old token at the registry now.",
        proof="deploys/checks/registry.py",
    ),
    "OFFSITE_PASSWORD": Secret(
        what="What opens the restic repository off the droplet for the droplet. We make it ourselves.",
        meanwhile="Both open it until the droplet has shown that the new one does. No backup fails.",
        afterwards=OF_THE_REPOSITORY,
        make=lambda: secrets.token_urlsafe(32),
        steps=(OPEN_WITH_BOTH, CONVERGE, SHOW_THE_NEW_ONE, END_THE_OTHERS),
    ),
    "OFFSITE_OPERATOR_PASSWORD": Secret(
        what="What opens the restic repository off the droplet for the operator. We make it ourselves.",
        meanwhile="Both open it until the end. The droplet isn't concerned.",
        afterwards=f"Put the new one where you keep it besides the env file. {OF_THE_REPOSITORY}",
        make=lambda: secrets.token_urlsafe(32),
        steps=(OPEN_WITH_BOTH, CONVERGE, END_THE_OTHERS),
    ),
}
OF_THE_APP = Secret(
    what="A secret of the app's own (group_data's app_secrets). Whoever issued it issues a new one.",
    meanwhile=(
        "Make a new one beside the old one, where the issuer lets both work for a while (Stripe: Roll key, with an "
        "expiry of some hours): then no request is lost. The live tag is released anew."
    ),
    afterwards="Revoke the old one at its issuer now. A rollback to a release from before would start with it.",
    stays=True,
)
KEY_PAIR = """An access key at the storage is a pair: id and secret change at once, and two pairs work side by side.
1. At the storage, create a second key for the {whose} with the same permissions (docs/how-to/offsite-backups.md).
2. Put both halves into the env file, OFFSITE_{name}KEY_ID and OFFSITE_{name}KEY_SECRET.
3. make offsite, which tries it; {then}
4. Delete the old key at the storage."""
OF_THE_DROPLET = KEY_PAIR.format(whose="droplet", name="", then="make site; on the droplet sudo stackctl offsite.")
OF_THE_OPERATOR = KEY_PAIR.format(whose="operator", name="OPERATOR_", then="make site, which records its age.")
BY_HAND = {
    "OFFSITE_KEY_ID": OF_THE_DROPLET,
    "OFFSITE_KEY_SECRET": OF_THE_DROPLET,
    "OFFSITE_OPERATOR_KEY_ID": OF_THE_OPERATOR,
    "OFFSITE_OPERATOR_KEY_SECRET": OF_THE_OPERATOR,
    "CI_KEY": """CI's SSH key. Both can be admitted at once, so nothing waits.
1. ssh-keygen -t ed25519 -N "" -C "CI" -f ci_new
2. Add ci_new.pub as a line to the file that ci_authorized_keys of group_data names; make site.
3. Put ci_new into the secret CI_KEY of the environment in the bot's repository, then delete ci_new.
4. When a release went through, remove the old line; make site.""",
    "OPERATOR_KEY": """An operator's SSH key. Both can be admitted at once, so nobody is locked out.
1. ssh-keygen -t ed25519 -f ~/.ssh/id_new
2. Add id_new.pub as a line to the file that authorized_keys of group_data names; make site.
3. Have the place's ssh_config use it (IdentityFile; or the new files take the place of the old ones), and see that it
   lets you in: make status. Put it into the secret OPERATOR_KEY, where CI plans.
4. Remove the old line; make site. Were the new key not used, this would fail, and be undone within two minutes.""",
    ledger.KEY: """The key of the fingerprints in the ledgers. It opens nothing, and needs no rotation unless it leaked.
1. Put the same new one (openssl rand -hex 32) into the env files of staging and production, and into CI's ENV_FILE.
2. git rm inventories/*.secrets.json: what they hold can't be compared with the new. The ages begin anew.
3. make site for both, and commit the new files.""",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploys.rotation.rotate")
    parser.add_argument("inventory")
    parser.add_argument("key", nargs="?", default="")
    parser.add_argument("--yes", action="store_true", help="don't ask whether")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return rotate(place_of(arguments.inventory), arguments.key, sure=arguments.yes)
    except (RefusedError, PyinfraError) as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
    except BusyError as error:
        print(f"Nothing was changed: {error}", file=sys.stderr)
        return BUSY
    except KeyboardInterrupt:
        print("\nNothing was changed: interrupted.", file=sys.stderr)
    return REFUSED


def rotate(place: str, key: str, *, sure: bool) -> int:
    """Raises RefusedError, BusyError, PyinfraError or KeyboardInterrupt only when nothing is changed."""
    if key in BY_HAND:
        print(f"{key} is rotated by hand. {BY_HAND[key]}")
        return DONE
    data = group_data(place)
    with alone(Path(data["env_file"])):
        return _rotate(place, load_settings(data), key, sure=sure)


@contextmanager
def alone(env_file: Path) -> Iterator[None]:
    """No other rotation meanwhile: of two, one would write back what it read before the other's value was there.

    By the file's directory: the file itself is replaced, and its lock with it.
    """
    directory = env_file.resolve().parent
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RefusedError(f"{directory}, where {env_file.name} should be: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another rotation is under way in {directory}: wait for it, then run this again") from None
        yield
    finally:
        os.close(descriptor)


def _rotate(place: str, settings: Settings, key: str, *, sure: bool) -> int:
    if key not in settings.credentials.by_name:
        known = ", ".join([*settings.credentials.by_name, *(name for name in BY_HAND if name != ledger.KEY)])
        raise RefusedError(f"which secret? KEY= is one of {known}")
    secret = SECRETS.get(key, OF_THE_APP)
    print(f"{key} of {place}\n  {secret.what}\n  Meanwhile: {secret.meanwhile}", flush=True)
    if not sure and (why := refusal("Rotate it now?", ": YES=1 (--yes) says yes beforehand")):
        raise RefusedError(why)
    value = secret.make() if secret.make else asked(key)
    undertaking = Undertaking(place, settings, key, secret)
    return undertaking.carry_out(changed(settings, undertaking.before, key, value))


def asked(key: str) -> str:
    """The value that somebody else issued."""
    if sys.stdin and sys.stdin.isatty():
        try:
            value = getpass.getpass(f"The new {key} (it isn't shown): ")
        except EOFError:  # Ctrl-D
            value = ""
    else:
        value = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
    if not value:
        raise RefusedError(f"no new {key} came: type it, or hand it over on standard input")
    return value


def changed(settings: Settings, before: str, key: str, value: str) -> str:
    """The env file's text with the new value, as sound as the old one. Raises CredentialsError or RefusedError."""
    path = Path(settings.values.env_file)
    if value == settings.credentials.by_name[key]:
        raise RefusedError(f"that is the {key} that {path} has already: make site puts it in use, where it isn't")
    if key == "TELEGRAM_BOT_TOKEN" and value.partition(":")[0] != settings.credentials.app[key].partition(":")[0]:
        raise RefusedError("that token is another bot's: its digits before the colon differ")
    after = with_value(before, key, value)
    values = values_in(after, path)
    checked_credentials(settings.values, values, "the new value")
    if values != {**values_in(before, path), key: value}:
        raise RefusedError(f"the line of {key} in {path} is written in a way that can't be changed: write it anew")
    return after


class Undertaking:
    """The new value into the file and onto the droplet; back to the old one when that fails, if that still counts."""

    def __init__(self, place: str, settings: Settings, key: str, secret: Secret) -> None:
        self.place, self.key, self.secret = place, key, secret
        self.env_file = Path(settings.values.env_file).resolve()
        self.ledger_file = Path(settings.values.secrets_ledger)
        self.before = self.env_file.read_bytes().decode()
        self.ages_before = ledger.read(self.ledger_file)

    def carry_out(self, after: str) -> int:
        step, converged = self.secret.steps[0], True
        try:
            write(self.env_file, after)
            if self.secret.proof and run(self.place, self.secret.proof) != 0:
                return self._refuse()
            for step in self.secret.steps:
                if (ended := run(self.place, step)) == 0:
                    continue
                if self._used(step):
                    converged = False
                elif self._stays(step):
                    return self._keep(step, after, "That failed, see above")
                else:
                    return self._withdraw() if (ended, step) == (LOCKED, CONVERGE) else self._undo()
        except BaseException as error:
            cause = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
            if self._stays(step) or self._used(step):
                return self._keep(step, after, cause)
            self._take_back()
            print(
                f"\n{cause}. {self.env_file.name} has the old value again, the droplet may have the new one: "
                f"{self._converge} brings it back, or rotate again."
            )
            return NEEDS_A_PERSON
        return self._conclude(converged=converged)

    def _stays(self, step: str) -> bool:
        """Whether the old one may be dead by now. Of the repository's, one after the other is ended."""
        return self.secret.stays or step == END_THE_OTHERS

    def _used(self, step: str) -> bool:
        """Whether a converge has recorded the new one, as it does once that is in use: it failed at something else."""
        return step == CONVERGE and ledger.read(self.ledger_file).get(self.key) != self.ages_before.get(self.key)

    def _conclude(self, *, converged: bool) -> int:
        """The look comes first: what is left to do shall be the last that is read. Nothing is undone any more."""
        print("\nThe new value is in use. Now a look at what runs.", flush=True)
        try:
            well = run(self.place, "deploys/status.py") == 0
        except KeyboardInterrupt:
            well = False
        print(f"\nRotated. {self.secret.afterwards}\n{self.ledger_file} has the new age: commit it.")
        if not converged:
            print(f"But the converge failed at something else, see above. Mend the cause, then: {self._converge}")
        if not well:
            print(f"But what runs wasn't found to be well, see above: make status ENV={self.place}")
        return DONE if converged and well else NEEDS_A_PERSON

    def _refuse(self) -> int:
        self._take_back()
        print(
            "\nNothing was changed: the new value was tried, and that failed, see above. Rotate again with the right "
            "one; with the same, where something else was the cause."
        )
        return REFUSED

    def _keep(self, step: str, after: str, cause: str) -> int:
        write(self.env_file, after)  # an interruption may have come before it was
        print(
            f"\n{cause}. The new value stays in {self.env_file.name}: it may be in use already, or the old one dead. "
            f"Mend the cause, then: {self._rest(step)}. If the value itself is wrong, rotate once more instead."
        )
        return NEEDS_A_PERSON

    def _withdraw(self) -> int:
        self._take_back()
        print("\nNothing was changed on the droplet, which is locked, see above. Wait for it, then rotate again.")
        if OPEN_WITH_BOTH in self.secret.steps:
            print("The repository opens with a password that nobody has: the next rotation ends it.")
        return BUSY

    def _undo(self) -> int:
        print(
            f"\nThat failed, see above. Back to the old value, in {self.env_file.name} and on the droplet.", flush=True
        )
        self._take_back()
        if run(self.place, CONVERGE) == 0:
            print("\nUndone: the old value is in use. Mend the cause, then rotate again.")
            return UNDONE
        print(f"\nThe old value is back in {self.env_file.name}, but not everywhere on the droplet: {self._converge}")
        return NEEDS_A_PERSON

    def _take_back(self) -> None:
        write(self.env_file, self.before)
        # Or an old secret would count as one of today.
        ledger.write(self.ledger_file, self.ages_before)

    def _rest(self, step: str) -> str:
        """What is to be typed for a step, and for those after it."""
        left = self.secret.steps[self.secret.steps.index(step) :]
        typed = {one: " ".join([".venv/bin/python", *command(self.place, one)[1:]]) for one in left}
        return ", ".join({**typed, CONVERGE: self._converge}[one] for one in left)

    @property
    def _converge(self) -> str:
        return f"make site ENV={self.place}"


def write(path: Path, text: str) -> None:
    """Atomically, readable by its owner alone, who stays the same when root does it. No copy is left."""
    owner = path.stat()
    durable.write(path, text.encode())
    os.chown(path, owner.st_uid, owner.st_gid)


def run(place: str, step: str) -> int:
    """Its output on the terminal: how it ended. It reads nothing: standard input may hold the value."""
    return subprocess.run(command(place, step), stdin=subprocess.DEVNULL, check=False).returncode


def command(place: str, step: str) -> list[str]:
    module, *options = ["pyinfra", step, "-y"] if step.endswith(".py") else step.split()
    return [sys.executable, "-m", module, f"inventories/{place}.py", *options]


if __name__ == "__main__":
    sys.exit(main())
