"""Secrets with marker values pass through converges and releases that succeed or fail, with pyinfra's full output.

After these runs, the tests search the changed files on the droplet and on the operator's machine for the markers. As
the control, the same search finds a planted marker.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

import pytest
from testinfra.host import Host

from deploys.secrets.rules import OPERATOR_RULES
from tests.lab import secrets_file
from tests.lab.layout import ENV_FILE
from tests.support import converge
from tests.support.environment import ROOT, Environment
from tests.system.leaks.search import Processes, Search, Secrets, in_text

pytestmark = pytest.mark.group("app")

AWKWARD = """ d $HOME ${X} #c 'd' "e" %41 \\n\\ é☃"""
LOUD = [sys.executable, "-m", "pyinfra", "-y", "-vvv", "--diff", "inventories/lab.py"]


def markers() -> dict[str, str]:
    """Return markers for the secrets that world need not know in advance.

    All other secrets are already unique random values.
    """
    return {
        "DATABASE_PASSWORD": f"canary-{token_hex(8)}{AWKWARD}",
        "REDIS_PASSWORD": f"canary-{token_hex(8)}{AWKWARD}",
        "TELEGRAM_WEBHOOK_SECRET": f"canary-{token_hex(8)}",
        "STRIPE_API_KEY": f"canary-{token_hex(8)}",
        "FINGERPRINT_KEY": f"canary-{token_hex(16)}",
        "OFFSITE_PASSWORD": f"canary-{token_hex(8)}{AWKWARD}",
    }


@dataclass
class Run:
    """The commands that ran with the markers, with their exit codes and all output."""

    search: Search
    secrets: Secrets = field(default_factory=Secrets)
    output: bytes = field(default=b"", repr=False)
    processes: Processes = field(default_factory=Processes, repr=False)
    codes: dict[str, int] = field(default_factory=dict)

    def use(self, values: dict[str, str]) -> None:
        whole = secrets_file.read(ENV_FILE) | values
        self.secrets.update(whole.values())
        ENV_FILE.write_text("".join(secrets_file.line(*item) for item in whole.items()))

    def pyinfra(self, what: str, *arguments: str) -> None:
        self._note(what, [*LOUD, *arguments])

    def program(self, what: str, module: str, *options: str) -> None:
        """Run a Python module that the operator uses."""
        self._note(what, [sys.executable, "-m", module, "inventories/lab.py", *options])

    def _note(self, what: str, command: list[str]) -> None:
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.output += ran.stdout
        self.codes[what] = ran.returncode


@pytest.fixture(scope="module")
def run(lab: Environment) -> Iterator[Run]:
    (name,) = lab.hosts("app")
    droplet = lab.connect(name)
    before = ENV_FILE.read_bytes()
    run = Run(Search(lab, droplet, since=float(droplet.check_output("date +%s"))))
    try:
        with run.processes.watched():
            run.use(markers())
            run.program("the way off the droplet", "deploys.offsite.setup", "--only-these")
            run.pyinfra("converge", "deploys/site.py")
            run.pyinfra("backup", "deploys/backup.py")
            run.program("prune", "deploys.offsite.prune", "--yes")
            run.pyinfra("release", "deploys/release.py", "--data", 'tag="1.1.0"')
            run.pyinfra("release that fails", "deploys/release.py", "--data", 'tag="broken-crash"')
            run.use(markers())
            with refusing_to_write_a_secret(droplet, lab):
                run.pyinfra("converge that can't write a secret", "deploys/site.py")
            with refusing_new_roles(droplet, lab):
                run.pyinfra("converge that can't make a role", "deploys/site.py")
            run.pyinfra("converge again", "deploys/site.py")
            run.pyinfra("status", "deploys/status.py")
            run.pyinfra("backup by a password that doesn't open the repository", "deploys/backup.py")
        yield run
    finally:
        ENV_FILE.write_bytes(before)
        run.program("the way off the droplet as it was", "deploys.offsite.setup", "--only-these")
        converge.site()


@contextmanager
def refusing_to_write_a_secret(droplet: Host, lab: Environment) -> Iterator[None]:
    """Create a directory under the name of the new app environment, so that the app environment cannot be written."""
    hindrance = f"{lab.settings.paths.next_environment}.new"
    droplet.check_output(f"rm -f {hindrance} && mkdir {hindrance}")
    yield
    droplet.check_output(f"rm -r {hindrance}")


@contextmanager
def refusing_new_roles(droplet: Host, lab: Environment) -> Iterator[None]:
    def read_only(state: str) -> None:
        lab.ask_postgres(droplet, f"ALTER SYSTEM SET default_transaction_read_only = {state}")
        lab.ask_postgres(droplet, "SELECT pg_reload_conf()")

    read_only("on")
    yield
    # The setting also makes the session that resets it read-only.
    lab.ask_postgres(droplet, "ALTER SYSTEM RESET default_transaction_read_only")
    lab.ask_postgres(droplet, "SELECT pg_reload_conf()")


def test_what_should_succeed_did_and_what_should_fail_failed(run: Run) -> None:
    """Check the exit codes. Without these runs, the other tests would search nothing."""
    assert {what: code == 0 for what, code in run.codes.items()} == {
        "the way off the droplet": True,
        "converge": True,
        "backup": True,
        "prune": True,
        "release": True,
        "release that fails": False,
        "converge that can't write a secret": False,
        "converge that can't make a role": False,
        "converge again": True,
        "status": True,
        "backup by a password that doesn't open the repository": False,
    }
    assert len(run.secrets) == 2 * len(markers()) + 7
    assert run.output.count(b"Starting operation") > 200


def test_no_output_has_one(run: Run) -> None:
    assert in_text(run.output, run.secrets) == []


def test_no_process_had_one_among_its_arguments(run: Run) -> None:
    assert in_text(b"\n".join(run.processes.seen), run.secrets) == []
    assert any(b"docker\0exec" in seen for seen in run.processes.seen), "the droplet's processes were not seen"


def test_the_journal_has_none(run: Run) -> None:
    assert run.search.journal(run.secrets) == 0


def test_the_droplet_has_them_in_files_that_are_root_s_alone(run: Run, droplet: Host) -> None:
    """Secrets are in their own files, in the registry's login and in Docker's files of a container (decision 8)."""
    own = (f"{run.search.env.settings.paths.secrets}/", "/root/.docker/config.json")
    dockers = ("/var/lib/docker/containers/", "/var/lib/containerd/", "/run/docker/", "/run/containerd/")
    found = run.search.files(run.secrets)
    assert sorted(path for path in found if not path.startswith((*own, *dockers))) == []
    assert str(run.search.env.settings.paths.next_environment) in found
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups cat"
    readable = [path for path in found if droplet.run(f"{nobody} {shlex.quote(path)}").rc == 0]
    assert readable == []
    assert droplet.run(f"{nobody} /etc/hostname").rc == 0


def test_the_droplet_has_none_of_the_operator_s_own(run: Run) -> None:
    """With the operator's own secrets, an intruder could destroy the backups."""
    offsite = run.search.env.settings.credentials.offsite
    own = [value for name, value in offsite.items() if name in OPERATOR_RULES]
    assert len(own) == 3
    assert run.search.files(own) == set()


@pytest.mark.parametrize("user", ["deploy", "ci", "nobody"])
def test_only_root_may_ask_docker(run: Run, droplet: Host, user: str) -> None:
    """`docker inspect` shows the app's environment to root, who can read it anyway."""
    containers = droplet.check_output("docker ps --quiet").split()
    asked = shlex.join(["docker", "inspect", *containers])
    refused = droplet.run(f"runuser -u {user} -- {asked}")
    assert refused.rc != 0
    assert "permission denied" in refused.stderr
    assert in_text(refused.stdout.encode(), run.secrets) == []


def test_the_operator_has_them_in_the_env_file_alone(run: Run) -> None:
    assert run.search.operator(run.secrets) == {str(ENV_FILE)}


# --- controls: the search finds a planted marker ---------------------------------------------------------------------


@pytest.fixture
def planted() -> str:
    return f"planted-{token_hex(8)}{AWKWARD}"


@pytest.fixture
def search(lab: Environment, droplet: Host) -> Search:
    return Search(lab, droplet, since=float(droplet.check_output("date +%s")))


@pytest.mark.parametrize(
    "spelling", ["plain", "percent", "json", "base64", "base64 of more", "base64 of yet more", "sha256"]
)
def test_it_would_be_found_however_it_is_spelt(spelling: str, planted: str) -> None:
    text = {
        "plain": planted,
        "percent": quote(planted, safe=""),
        "json": json.dumps(planted),
        "base64": b64encode(planted.encode()).decode(),
        "base64 of more": b64encode(f"u{planted}".encode()).decode(),
        "base64 of yet more": b64encode(f"u:{planted}".encode()).decode(),
        "sha256": sha256(planted.encode()).hexdigest(),
    }[spelling]
    assert len(in_text(f"before\nsaid: {text} and more\nafter".encode(), [planted])) == 1
    assert in_text(b"said: another", [planted]) == []


def test_it_would_be_found_in_output(run: Run, planted: str) -> None:
    loud = Run(run.search)
    loud.pyinfra("say it", "exec", "--", f"echo {shlex.quote(planted)}")
    assert loud.codes == {"say it": 0}
    assert in_text(loud.output, [planted])


def test_it_would_be_found_among_arguments(droplet: Host, planted: str) -> None:
    processes = Processes()
    with processes.watched():
        droplet.check_output(f"sh -c 'sleep 0.3; true' {shlex.quote(planted)}")
    assert in_text(b"\n".join(processes.seen), [planted])


def test_it_would_be_found_in_the_journal(search: Search, droplet: Host, planted: str) -> None:
    droplet.check_output(f"logger --id -t planted {shlex.quote(planted)} && journalctl --sync")
    assert search.journal([planted]) > 0


PLACES = [
    "/tmp/planted",
    "/var/log/planted.log",
    "/var/lib/toogoodtogo/planted.jsonl",
    "/opt/planted",
    "/home/deploy/.planted_history",
    "/root/.planted_history",
    "/run/planted",
    "/var/lib/docker/planted",
    "/etc/systemd/system/planted.service",
]


def plant(search: Search, droplet: Host, text: str, *paths: str) -> None:
    """Write the text through standard input, because sudo logs a command's arguments to the journal."""
    program = Path(__file__).parent / "plant.py"
    assert search.env.run_python(droplet, program, *paths, stdin=text.encode()).returncode == 0


def test_it_would_be_found_in_files(search: Search, droplet: Host, planted: str) -> None:
    plant(search, droplet, planted, *PLACES)
    try:
        assert search.files([planted]) == {*PLACES}
    finally:
        droplet.check_output(f"rm {shlex.join(PLACES)}")


def test_it_would_be_found_in_an_image_s_layers_and_its_labels(search: Search, droplet: Host, planted: str) -> None:
    plant(search, droplet, planted, "/root/planted/file")
    recipe = f"FROM scratch\nCOPY file /planted\nLABEL secret={json.dumps(planted.replace('$', ''))}\n"
    plant(search, droplet, recipe, "/root/planted/Dockerfile")
    droplet.check_output("docker build --quiet --tag planted /root/planted")
    droplet.check_output("rm -r /root/planted")
    try:
        found = search.files([planted])
        assert any("/var/lib/docker/overlay2/" in path for path in found)
        assert any("/var/lib/docker/image/" in path for path in found)
    finally:
        droplet.check_output("docker rmi planted && docker builder prune --all --force")


def test_it_would_be_found_at_the_operator_s(search: Search, planted: str) -> None:
    paths = [ROOT / "pyinfra-debug.log", Path("/tmp/planted"), Path.home() / ".cache" / "planted"]
    for path in paths:
        path.write_text(planted)
    try:
        assert search.operator([planted]) == {str(path) for path in paths}
    finally:
        for path in paths:
            path.unlink()
