"""Operations for the accounts of people and of programs, and for sudo rules."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts.accounts import LoginShell, SystemAccount, SystemUser
from deploys.operations import Commands, declared
from deploys.operations.files import atomic_file


@operation()
def user(login: str) -> Commands:
    """Create a person's account with a home directory, bash and no password.

    pyinfra's server.user takes 0.4 s longer, because it reads all accounts.
    """
    declared.of(host).logins.add(login)
    match host.get_fact(LoginShell, login=login):
        case "/bin/bash":
            host.noop(f"{login} exists")
        case None:
            yield StringCommand("useradd --create-home --shell /bin/bash", QuoteString(login))
        case _:
            yield StringCommand("usermod --shell /bin/bash", QuoteString(login))


@operation()
def system_user(login: str, *, home: str, present: bool = True) -> Commands:
    """Create a program's account without a password. The account's only group is its own group.

    No home directory is created here, because root creates and fills the home directory elsewhere. With
    `present=False`, the account is deleted even if somebody is logged in. Programs that the account has started as root
    continue to run.
    """
    found = host.get_fact(SystemUser, login=login)
    if not present:
        if found:
            yield StringCommand("userdel --force", QuoteString(login))
        else:
            host.noop(f"{login} does not exist")
        return
    declared.of(host).logins.add(login)
    wanted = SystemAccount(home, "/bin/sh", frozenset({login}))
    if found == wanted:
        host.noop(f"{login} exists")
        return
    properties = ("--shell", wanted.shell, "-d", QuoteString(home), QuoteString(login))
    yield StringCommand("usermod --groups ''" if found else "useradd --system --no-create-home", *properties)


@operation()
def sudoers(login: str, content: bytes) -> Commands:
    """Write the sudo rules of `login`.

    First test the file with visudo, because an invalid file would break sudo for everybody.
    """
    dest = f"/etc/sudoers.d/{login}"
    yield from atomic_file._inner(  # noqa: SLF001
        dest=dest, content=content, mode="440", validate="visudo --check --strict --file=%s"
    )
