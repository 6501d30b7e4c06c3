"""dev-sec nginx-baseline, by its numbers. It reads directives; where a value is a site's own to choose, a bound stands
here, and what the client meets is tested in tests/droplet/test_web.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from testinfra.host import Host

from tests.audit.conftest import Control
from tests.audit.files import too_open

pytestmark = pytest.mark.group("edge")

BASELINE = "dev-sec nginx-baseline"


def has(*patterns: str) -> Callable[[str], list[str]]:
    """What of the patterns the configuration lacks."""
    return lambda text: [pattern for pattern in patterns if not re.search(pattern, text, re.MULTILINE)]


def seconds_up_to(most: int, *directives: str) -> Callable[[str], list[str]]:
    """What of the directives is missing, or longer."""

    def wrong(text: str) -> list[str]:
        found = {name: re.search(rf"^\s*{name} (\d+)s?\b", text, re.MULTILINE) for name in directives}
        return [name for name, value in found.items() if not value or int(value[1]) > most]

    return wrong


# A header may stand in a variable, which a map fills; so does a client's address, or network. Where the baseline has a
# figure that can't be ours, it stands by itself, beside a bound that holds.
DIRECTIVES: dict[str, Callable[[str], list[str]]] = {
    "nginx-05": has(r"^\s*server_tokens off;"),
    "nginx-06": has(r"^\s*client_header_buffer_size 1k;"),
    "nginx-06:bound": has(
        r"^\s*client_max_body_size [1-9]\d*[km];",
        r"^\s*client_body_buffer_size \d{1,2}k;",
        r"^\s*large_client_header_buffers \d [1-4]k;",
    ),
    "nginx-06:1k": has(
        r"^\s*client_max_body_size 1k;", r"^\s*client_body_buffer_size 1k;", r"^\s*large_client_header_buffers 2 1k;"
    ),
    "nginx-07": has(r"^\s*limit_conn_zone \$client zone=", r"^\s*limit_conn \w+ \d+;"),
    "nginx-07:5": has(r"^\s*limit_conn \w+ 5;"),
    "nginx-08": has(r"^\s*add_header X-Frame-Options \S+ always;", r"\b(DENY|SAMEORIGIN)\b"),
    "nginx-10": has(r"^\s*add_header X-Content-Type-Options \"?nosniff\"? always;"),
    "nginx-12": has(
        r"^\s*ssl_protocols TLSv1\.2 TLSv1\.3;", r"^\s*ssl_session_tickets off;", r"^\s*ssl_ciphers [A-Z0-9:?-]*GCM"
    ),
    "nginx-13": has(r"^\s*add_header Strict-Transport-Security .+ always;", r"\bmax-age=\d{8,}"),
    "nginx-15": has(r"^\s*add_header Content-Security-Policy .+ always;", r"\bdefault-src 'none'"),
    "nginx-12:DHE": has(r"^\s*ssl_prefer_server_ciphers on;", r"^\s*ssl_dhparam "),
    "nginx-17": seconds_up_to(10, "client_body_timeout", "client_header_timeout", "send_timeout"),
    "nginx-17:keepalive": seconds_up_to(5, "keepalive_timeout"),
    "nginx-09": has(r"^\s*add_header X-XSS-Protection"),
    "nginx-14": has(r"^\s*(limit_except|if \(\$request_method)"),
    "nginx-16": has(r"^\s*(set_cookie_flag|proxy_cookie_flags)"),
}


@pytest.fixture(scope="module")
def configuration(droplet: Host) -> str:
    """All that nginx reads."""
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
