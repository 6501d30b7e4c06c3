"""CI's account. Through the gate, CI's keys can release, roll back and read the status.

If no key for CI is declared, CI's account is removed.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import CI_LOGIN
from deploys.operations.accounts import sudoers, system_user
from deploys.operations.files import atomic_file

HOME = f"/home/{CI_LOGIN}"
KEYS = f"{HOME}/.ssh/authorized_keys"
SUDOERS = f"/etc/sudoers.d/{CI_LOGIN}"


@deploy("ci")
def ci(settings: Settings) -> None:
    if not settings.ci_keys:
        files.file(name="Remove CI's sudo rule", path=SUDOERS, present=False)
        files.directory(name="Remove CI's keys", path=HOME, present=False)
        system_user(name="Remove CI's account", login=CI_LOGIN, home=HOME, present=False)
        return
    system_user(name="Create CI's account", login=CI_LOGIN, home=HOME)
    sudoers(name="Allow CI's account to run the gate as root", login=CI_LOGIN, content=build.file("ci/sudoers"))
    # Root owns both directories, because an account that can write authorized_keys can add a key that bypasses the
    # gate.
    for path in host.loop((HOME, f"{HOME}/.ssh")):
        files.directory(name=f"Create {path} for root", path=path, user="root", group="root", mode="755")
    atomic_file(
        name="Install CI's keys, each of which can only run the gate",
        dest=KEYS,
        content=authorized_keys(settings),
        validate="ssh-keygen -l -f %s",
    )


def authorized_keys(settings: Settings) -> bytes:
    """Render authorized_keys. Each key may only run the gate, without forwarding, terminal or rc file."""
    return build.template("ci/authorized_keys.j2", keys=settings.ci_keys)
