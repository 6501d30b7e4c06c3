"""A failed connection is reported in one line, with the cause and the file to correct.

The SSH server in these tests is paramiko's.
"""

from __future__ import annotations

import ast
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_FAILED
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors import ssh
from pyinfra.connectors.sshuserclient import client as pyinfras
from pyinfra.connectors.util import CommandOutput, OutputLine

from deploys import internals
from deploys.converge import connection
from deploys.converge.connection import Client

ADDRESS = "127.0.0.1"
HOST_KEY = paramiko.ECDSAKey.generate()


class _Refuses(paramiko.ServerInterface):
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


@pytest.fixture
def sshd() -> Iterator[int]:
    """Run an SSH server that shows HOST_KEY and refuses every login. Yields its port."""
    with socket.create_server((ADDRESS, 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                transport = paramiko.Transport(sock)
                transport.add_server_key(HOST_KEY)
                try:
                    transport.start_server(server=_Refuses())
                except (paramiko.SSHException, EOFError):
                    continue

        threading.Thread(target=serve, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Yield a function that connects to `droplet` with a given key and known hosts, and returns the error."""
    key = tmp_path / "id"
    paramiko.ECDSAKey.generate().write_private_key_file(str(key))

    def said(port: int = 1, address: str = ADDRESS, known: str = "", identity: Path = key) -> str:
        config, hosts = tmp_path / "prod.ssh_config", tmp_path / "prod.known_hosts"
        config.write_text(f"Host droplet\n HostName {address}\n Port {port}\n User deploy\n IdentityFile {identity}\n")
        hosts.write_text(known)
        options = {"_pyinfra_ssh_config_file": str(config), "_pyinfra_ssh_known_hosts_file": str(hosts), "timeout": 5}
        with pytest.raises(ConnectError) as raised:
            Client().connect("droplet", **options, allow_agent=False, look_for_keys=False)
        return str(raised.value).replace(str(tmp_path), "inventories")

    yield said
    for cached in (pyinfras.get_ssh_config, pyinfras.get_host_keys):
        cached.cache.clear()


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    for cached in (pyinfras.get_ssh_config, pyinfras.get_host_keys):
        cached.cache.clear()


def line(key: paramiko.PKey, port: int) -> str:
    return f"[{ADDRESS}]:{port} {key.get_name()} {key.get_base64()}\n"


def test_an_unknown_host_key_is_refused_with_the_file_that_lacks_it(sshd: int, said: Callable[..., str]) -> None:
    told = said(sshd)
    assert f"inventories/prod.known_hosts has no key of [{ADDRESS}]:{sshd}" in told
    assert HOST_KEY.fingerprint in told


def test_a_changed_host_key_names_the_file_that_is_used_and_no_other(
    sshd: int, said: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    told = said(sshd, known=line(paramiko.ECDSAKey.generate(), sshd))
    assert "shows another host key than inventories/prod.known_hosts has" in told
    assert "If the droplet was not rebuilt, stop" in told
    assert "ssh-keygen" not in told + caplog.text


def test_a_refused_login_names_the_user_and_the_key(sshd: int, said: Callable[..., str]) -> None:
    assert f"{ADDRESS} does not let deploy in with inventories/id" in said(sshd, known=line(HOST_KEY, sshd))


def test_a_key_that_is_not_there_is_named_with_the_ssh_config(
    sshd: int, said: Callable[..., str], tmp_path: Path
) -> None:
    told = said(sshd, known=line(HOST_KEY, sshd), identity=tmp_path / "gone")
    assert told.startswith(
        "Cannot connect to droplet: inventories/gone, the IdentityFile in inventories/prod.ssh_config, does not exist."
    )


def test_a_host_that_does_not_answer_is_named_with_address_and_port(said: Callable[..., str]) -> None:
    assert f"no answer from {ADDRESS}, port 1 (" in said(1)


def test_a_name_that_does_not_exist_is_named_with_the_file(said: Callable[..., str]) -> None:
    told = said(address="no-such-host.invalid")
    assert "there is no host named no-such-host.invalid. Next: correct HostName of droplet in inventories/prod" in told


@pytest.mark.parametrize("address", ["203.0.113.10", "192.0.2.1", "198.51.100.7", "2001:db8::1"])
def test_an_address_of_the_example_is_no_address(said: Callable[..., str], address: str) -> None:
    assert f"prod.ssh_config still has the example address {address}" in said(address=address)


def test_where_there_is_no_lab_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConnectError, match=r"\.lab/ssh_config is missing\. There is no lab here\. Next: make lab-up.*Did you mean ENV="
    ):
        Client().connect("droplet1", _pyinfra_ssh_config_file=".lab/ssh_config")


HOST: Any = SimpleNamespace(name="staging-1", data={"operator": "deploy"})


def test_sudo_that_wants_a_password_ends_the_run_instead_of_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyinfra.connectors.util.getpass", lambda _: pytest.fail("nobody can answer the question"))
    wants = CommandOutput([OutputLine("stderr", "sudo: a password is required")])
    with pytest.raises(PyinfraError, match=r"deploy cannot become root .* on staging-1.* /etc/sudoers\.d/deploy"):
        connection.without_a_password(HOST, {}, lambda: (1, wants))
    assert connection.without_a_password(HOST, {}, lambda: (0, wants)) == (0, wants)


def test_another_failure_is_left_to_pyinfra() -> None:
    other = CommandOutput([OutputLine("stderr", "no such file")])
    assert connection.without_a_password(HOST, {}, lambda: (1, other)) == (1, other)


def test_pyinfra_connects_by_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "SSHClient", None)
    monkeypatch.setattr(ssh, "execute_command_with_sudo_retry", None)
    connection.install()
    assert ssh.SSHClient is Client
    assert ssh.execute_command_with_sudo_retry is connection.without_a_password
    assert "connection.install()" in (Path(connection.__file__).parents[2] / "config.py").read_text()


PUBLIC = r"pyinfra(\.api(\.(command|exceptions|operation|state))?|\.facts\.\w+|\.operations)?"
"""pyinfra's documented modules for deploys, facts, operations and state callbacks."""


def test_one_module_alone_knows_pyinfra_s_internals() -> None:
    """Only one module uses pyinfra's internals, so an upgrade of pyinfra can break only that module."""
    own = Path(internals.__file__)
    assert {
        f"{path}: {node.module}"
        for path in own.parent.rglob("*.py")
        if path != own
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyinfra")
        if not re.fullmatch(PUBLIC, node.module or "")
    } == set()
