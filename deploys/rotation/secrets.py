"""Lists each secret's issuer, the steps of its rotation, and what works during the rotation."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from deploys.secrets import ledger

CONVERGE = "deploys/site.py"
ADD_KEY = "deploys.offsite.setup"
VERIFY_KEY = "deploys/checks/offsite.py"
REVOKE_OTHER_KEYS = "deploys.offsite.setup --only-these"


@dataclass(frozen=True)
class Secret:
    """A kind of secret, and the steps of its rotation."""

    description: str
    """What the secret is, and who issues it."""
    during: str
    """What works during the rotation."""
    after: str
    """What is left for a person to do afterwards."""
    make: Callable[[], str] | None = None
    """Generates a new value. None if somebody else issues the secret."""
    check: str | None = None
    """A deploy that runs before the steps, changes nothing, and fails if the new value is refused where it is used."""
    steps: tuple[str, ...] = (CONVERGE,)
    """The steps that put the new value into use, in order. A step is a deploy, or a program with its options."""
    keep_on_failure: bool = False
    """Keep the new value if the rotation fails: the old value may be dead, and the issuer shows a value only once."""


_REPOSITORY_WARNING = (
    "The old password opens nothing any more. But an intruder who opened the repository with it may have kept the "
    "repository's own key, which does not change. If the password leaked, begin a new repository "
    "(docs/how-to/offsite-backups.md)."
)
SECRETS = {
    "DATABASE_PASSWORD": Secret(
        description="The app's password for PostgreSQL. This command generates a new password.",
        during=(
            "Both passwords work, because each has its own login role. The live tag is released again; no request is "
            "lost."
        ),
        after=(
            "The old password keeps working until you have made two more releases, each with a change, because a kept "
            "release may need that password. If the old password leaked, make those two releases now (make release), "
            "or disable the old password's role by hand (docs/how-to/secrets.md)."
        ),
        make=lambda: secrets.token_urlsafe(32),
    ),
    "REDIS_PASSWORD": Secret(
        description="The app's password for Redis. This command generates a new password.",
        during="Redis accepts both passwords until the new release is live. Redis does not restart, and no request is "
        "lost.",
        after="Redis now refuses the old password. So an earlier release would not become healthy after a rollback.",
        make=lambda: secrets.token_urlsafe(32),
    ),
    "TELEGRAM_WEBHOOK_SECRET": Secret(
        description="The secret that Telegram sends with every update to identify itself. This command generates a new "
        "secret.",
        during=(
            "The new release accepts both secrets, and Telegram gets the new secret once that release is live. No "
            "update is lost."
        ),
        after="The old secret is accepted until the next release. If the old secret leaked, release the live tag once "
        "more.",
        make=lambda: secrets.token_hex(32),
    ),
    "TELEGRAM_BOT_TOKEN": Secret(
        description="The bot's token, issued by @BotFather. /revoke creates a new token and ends the old token "
        "immediately.",
        during=(
            "The two tokens do not overlap. From /revoke until the new release is live, the bot cannot send anything, "
            "but Telegram keeps what users write. So go to @BotFather only when this command asks for the token."
        ),
        after="Telegram has refused the old token since /revoke.",
        check="deploys/checks/telegram.py",
        keep_on_failure=True,
    ),
    "REGISTRY_PASSWORD": Secret(
        description=(
            "The token for pulling the app's image. "
            "At the registry, create the new token with the right to pull and no other."
        ),
        during="Both tokens work until you revoke the old one. Running containers need neither token.",
        after="Revoke the old token at the registry now.",
        check="deploys/checks/registry.py",
    ),
    "OFFSITE_PASSWORD": Secret(
        description="The droplet's password for the off-site restic repository. This command generates a new password.",
        during=(
            "Both passwords open the repository until the droplet has opened the repository with the new password. No "
            "backup fails."
        ),
        after=_REPOSITORY_WARNING,
        make=lambda: secrets.token_urlsafe(32),
        steps=(ADD_KEY, CONVERGE, VERIFY_KEY, REVOKE_OTHER_KEYS),
    ),
    "OFFSITE_OPERATOR_PASSWORD": Secret(
        description="The operator's password for the off-site restic repository. This command generates a new "
        "password.",
        during="Both passwords open the repository until the rotation ends. The droplet uses neither password.",
        after=f"If you also keep the password outside the env file, replace that copy. {_REPOSITORY_WARNING}",
        make=lambda: secrets.token_urlsafe(32),
        steps=(ADD_KEY, CONVERGE, REVOKE_OTHER_KEYS),
    ),
}
APP_SECRET = Secret(
    description="A secret of the app, listed in app_secrets in group_data. Its issuer creates the new value.",
    during=(
        "If the issuer lets two values work at the same time, keep the old value valid for some hours, so that no "
        "request is lost (Stripe: Roll key, with an expiry). The live tag is released again."
    ),
    after="Revoke the old value at its issuer now. After a rollback, an earlier release would start with the old "
    "value.",
    keep_on_failure=True,
)

_KEY_PAIR = """A storage access key is a pair: ID and secret change together, and two pairs work side by side.
1. At the storage, create a second key for the {whose} with the same permissions (docs/how-to/offsite-backups.md).
2. Put both parts into the env file, OFFSITE_{name}KEY_ID and OFFSITE_{name}KEY_SECRET.
3. Run make offsite, which tests the key; {then}
4. Delete the old key at the storage."""
_DROPLET_KEY = _KEY_PAIR.format(
    whose="droplet", name="", then="make site; then sudo stackctl check-offsite on the droplet."
)
_OPERATOR_KEY = _KEY_PAIR.format(whose="operator", name="OPERATOR_", then="make site, which records its age.")
BY_HAND = {
    "OFFSITE_KEY_ID": _DROPLET_KEY,
    "OFFSITE_KEY_SECRET": _DROPLET_KEY,
    "OFFSITE_OPERATOR_KEY_ID": _OPERATOR_KEY,
    "OFFSITE_OPERATOR_KEY_SECRET": _OPERATOR_KEY,
    "CI_KEY": """CI's SSH key. The droplet can accept both keys for a while, so no release has to wait.
1. ssh-keygen -t ed25519 -N "" -C "CI" -f ci_new
2. Add ci_new.pub as a line to the file that ci_authorized_keys of group_data names, and run make site.
3. Put ci_new into the secret CI_KEY of the environment in the bot's repository, then delete ci_new.
4. After a release with the new key, remove the old line and run make site.""",
    "OPERATOR_KEY": """An operator's SSH key. The droplet can accept both keys for a while.
1. ssh-keygen -t ed25519 -f ~/.ssh/id_new
2. Add id_new.pub as a line to the file that authorized_keys of group_data names, and run make site.
3. Use the new key: name it as IdentityFile in the environment's ssh_config, or rename it to the old file's name. Check
   that the new key lets you in with make status. If CI makes plans, put the new key into the secret OPERATOR_KEY.
4. Remove the old line and run make site. If you do not use the new key, make site fails, and the change is
   reverted within two minutes.""",
    ledger.KEY: """The key of the fingerprints in the ledgers. The key opens nothing, so rotate it only after a leak.
1. Put the same new key (openssl rand -hex 32) into the env files of staging and production, and into CI's ENV_FILE.
2. git rm inventories/*.secrets.json: their fingerprints cannot be compared with new ones. All ages start again.
3. Run make site for both environments, and commit the new files.""",
}
