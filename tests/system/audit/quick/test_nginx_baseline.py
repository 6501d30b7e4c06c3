"""Checks the numbered controls of dev-sec nginx-baseline, which are about directives.

This module checks only a bound for a directive whose value each site chooses. tests/droplet/test_web.py tests the
directive's effect on a client.
"""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from tests.system.audit.conftest import Control
from tests.system.audit.files import too_open
from tests.system.audit.judges import DIRECTIVES

pytestmark = pytest.mark.group("edge")

BASELINE = "dev-sec nginx-baseline"


@pytest.fixture(scope="module")
def configuration(droplet: Host) -> str:
    """Return the whole configuration that nginx reads."""
    return str(droplet.check_output("nginx -T 2>/dev/null"))


@pytest.mark.parametrize("number", DIRECTIVES)
def test_directives(configuration: str, control: Control, number: str) -> None:
    control(BASELINE, number, ", ".join(DIRECTIVES[number](configuration)))


def test_workers_are_nobody_s(droplet: Host, control: Control) -> None:
    users = droplet.check_output("ps -C nginx -o user=,args=").splitlines()
    workers = {line.split()[0] for line in users if "worker process" in line}
    control(BASELINE, "nginx-01", "" if workers and workers <= {"www-data", "nginx"} else f"workers are {workers}")


def test_others_read_nothing(droplet: Host, control: Control) -> None:
    control(BASELINE, "nginx-02", too_open(droplet, "/etc/nginx/nginx.conf", "root:root", 0o770))


def test_no_default_site_is_read(configuration: str, control: Control) -> None:
    read = re.findall(r"^# configuration file (\S+):", configuration, re.MULTILINE)
    control(BASELINE, "nginx-03", ", ".join(path for path in read if path != "/etc/nginx/nginx.conf"))


def test_there_is_one(droplet: Host, control: Control) -> None:
    masters = droplet.check_output("ps -C nginx -o args=").count("master process")
    control(BASELINE, "nginx-04", "" if masters == 1 else f"{masters} run")
