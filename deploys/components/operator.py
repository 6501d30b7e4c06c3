"""The operator's account and its sudo rule."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.accounts import sudoers, user


@deploy("operator")
def operator(settings: Settings) -> None:
    """Create the operator's account.

    The operator's keys are installed by ssh.py, on trial together with sshd's configuration.
    """
    login = settings.values.operator
    user(name="Create the operator's account", login=login)
    sudoers(
        name="Allow the operator to become root",
        login=login,
        content=build.template("operator/sudoers.j2", operator=login),
    )
