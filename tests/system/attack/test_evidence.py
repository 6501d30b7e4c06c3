"""The journal keeps the lines of sshd, sudo and stackctl, even if a container floods the log."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from testinfra.host import Host

from tests.system.attack.conftest import Serving

pytestmark = pytest.mark.group("app")

LINES, LINE_BYTES, JOURNAL_MIB = 9000, 6000, 24
"""The flood is twice the size of the small journal, with fewer lines than journald's limit of 10,000 per service."""
FLOOD = (
    f"l=$(head -c {LINE_BYTES} /dev/urandom | base64 -w0 | head -c {LINE_BYTES}); i=0; "
    f'while [ $i -lt {LINES} ]; do echo "$i $l"; i=$((i+1)); done'
)
SMALL = "/run/systemd/journald.conf.d/zz-attack.conf"
LIMITS, ASIDE = "/run/systemd/units/log-rate-limit-*:docker.service", "/run/attack-aside"
RESTART = "systemctl restart systemd-journald.service && journalctl --sync"


def test_a_container_that_floods_the_log(droplet: Host, serving: Serving, result: Callable[..., None]) -> None:
    """The test makes the journal small, because a flood of the usual 512 MiB takes minutes."""
    with small_journal(droplet):
        for _ in serving.attacks():
            mark = said_by_root(droplet)
            flood(droplet)
            got = is_there(droplet, mark)
            assert got
        with serving.defence_out(), no_limit_of_the_daemon(droplet):
            flood(droplet, "--log-driver journald")
            control = is_there(droplet, mark)
        assert not control
    result("a flood of a container's output", got="root's line is there", control="root's line is gone")


def test_a_container_s_log_is_bounded_and_can_be_read_once_it_has_ended(droplet: Host) -> None:
    """`docker logs` shows the last lines of a container that has ended. The log takes at most 50 MB of the disk."""
    name = f"flooded-{uuid4().hex[:8]}"
    try:
        flood(droplet, f"--name {name}", rounds=3, remove=False)
        last = droplet.check_output(f"docker logs --tail 1 {name} | cut -c1-10")
        assert last.startswith(f"{LINES - 1} ")
        folder = droplet.check_output(f"docker inspect --format '/var/lib/docker/containers/{{{{.Id}}}}' {name}")
        kept = int(droplet.check_output(f"du -sm {folder}").split()[0])
        assert 1 <= kept <= 51, "the log is empty or larger than 50 MB, after 162 MB were written"
    finally:
        droplet.run(f"docker rm --force {name}")


def flood(droplet: Host, options: str = "", *, rounds: int = 1, remove: bool = True) -> None:
    web = "docker ps --quiet --filter label=com.docker.compose.service=web"
    image = droplet.check_output(f"docker inspect --format '{{{{.Image}}}}' $({web} | head -n1)")
    program = " ".join([FLOOD + ";"] * rounds)
    once = "--rm " if remove else ""
    run = f"docker run {once}{options} --network none --memory 64m --entrypoint sh {image} -c {shlex.quote(program)}"
    droplet.check_output(f"{run} > /dev/null && journalctl --sync")


def said_by_root(droplet: Host) -> str:
    """Log a line from a program of root, as sshd and stackctl do. Return its mark."""
    mark = uuid4().hex
    droplet.check_output(f"logger -t evidence {mark} && journalctl --sync")
    assert is_there(droplet, mark)
    return mark


def is_there(droplet: Host, mark: str) -> bool:
    """Return whether the journal has the line.

    Search by the tag, because sudo also logs the command of this search, which contains the text.
    """
    return mark in droplet.check_output("journalctl -t evidence --no-pager --output=cat")


@contextmanager
def small_journal(droplet: Host) -> Iterator[None]:
    conf = f"[Journal]\\nSystemMaxUse={JOURNAL_MIB}M\\nSystemMaxFileSize=4M\\n"
    droplet.check_output(f"mkdir -p $(dirname {SMALL}) && printf '{conf}' > {SMALL} && {RESTART}")
    try:
        yield
    finally:
        droplet.check_output(f"rm {SMALL} && {RESTART}")


@contextmanager
def no_limit_of_the_daemon(droplet: Host) -> Iterator[None]:
    """Remove journald's limit for Docker's service, by moving aside the file that passes the limit to journald."""
    droplet.check_output(f"mkdir -p {ASIDE} && mv {LIMITS} {ASIDE} && {RESTART}")
    time.sleep(1)
    try:
        yield
    finally:
        droplet.check_output(f"mv {ASIDE}/* /run/systemd/units && rmdir {ASIDE} && {RESTART}")
