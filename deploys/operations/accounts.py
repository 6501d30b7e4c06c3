"""A person's account, those that no person has, and what sudo lets an account do."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts.accounts import Account, Service, ServiceAccount
from deploys.operations import Commands, declared
from deploys.operations.files import atomic_file


@operation()
def account(login: str) -> Commands:
    """A person's account with a home, bash and no password. (pyinfra's server.user reads all accounts: 0.4 s.)"""
    declared.of(host).logins.add(login)
    match host.get_fact(Account, login=login):
        case "/bin/bash":
            host.noop(f"{login} is there")
        case None:
            yield StringCommand("useradd --create-home --shell /bin/bash", QuoteString(login))
        case _:
            yield StringCommand("usermod --shell /bin/bash", QuoteString(login))


@operation()
def service_account(login: str, *, home: str) -> Commands:
    """An account without a password, in no group but its own. Its home is not made: that is root's to fill."""
    declared.of(host).logins.add(login)
    wanted = Service(home, "/bin/sh", frozenset({login}))
    there = host.get_fact(ServiceAccount, login=login)
    if there == wanted:
        host.noop(f"{login} is there")
        return
    properties = ("--shell", wanted.shell, "-d", QuoteString(home), QuoteString(login))
    yield StringCommand("usermod --groups ''" if there else "useradd --system --no-create-home", *properties)


@operation()
def no_account(login: str) -> Commands:
    """No such account, even while it is logged in; what it started as root goes on."""
    if host.get_fact(ServiceAccount, login=login) is None:
        host.noop(f"{login} is not there")
        return
    yield StringCommand("userdel --force", QuoteString(login))


@operation()
def sudoers(login: str, content: bytes) -> Commands:
    """What `login` may do as root, once visudo accepts it: a file that is wrong would lock everybody out."""
    dest = f"/etc/sudoers.d/{login}"
    yield from atomic_file._inner(  # noqa: SLF001
        dest=dest, content=content, mode="440", validate="visudo --check --strict --file=%s"
    )
