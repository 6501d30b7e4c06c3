"""Reads the output of the judges, the audit programs that others wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def bad(algorithm: dict[str, Any]) -> bool:
    return bool({"fail", "warn"} & algorithm["notes"].keys())


POINTS = re.compile(
    r"Hardening: .* \((?P<got>\d+)(?: of (?P<of>\d+))?\)\. "
    r"Currently having (?P<sum>\d+) points \(out of (?P<total>\d+)\)"
)


@dataclass(frozen=True)
class Item:
    """A test of lynis that gives points."""

    test: str
    got: int
    of: int


def index(items: list[Item]) -> int:
    """Compute the hardening index as lynis does."""
    return sum(item.got for item in items) * 100 // sum(item.of for item in items)


def items_of(log: str) -> list[Item]:
    """Return the points of each test from lynis's log. A test of many settings has one item per setting.

    lynis loses the points that it counts in a subshell, because lynis's next line starts from the sum before the
    subshell. This function also drops these points.
    """
    found: list[tuple[Item, tuple[int, int]]] = []  # each item with lynis's sum after that item
    test, detail = "", ""
    for line in log.splitlines():
        if begun := re.search(r"Performing test ID (\S+)", line):
            test, detail = begun[1], ""
        elif setting := re.search(r"(?:Result: (?:sysctl key|Option)|File system:) +(\S+)", line):
            detail = f":{setting[1]}"
        elif points := POINTS.search(line):
            got, of = int(points["got"]), int(points["of"] or points["got"])
            after = int(points["sum"]), int(points["total"])
            while found and found[-1][1] != (after[0] - got, after[1] - of):
                found.pop()
            found.append((Item(f"{test}{detail}", got, of), after))
    return [item for item, _ in found]


def has(*patterns: str) -> Callable[[str], list[str]]:
    """Return a function that lists the patterns missing from a configuration."""
    return lambda text: [pattern for pattern in patterns if not re.search(pattern, text, re.MULTILINE)]


def seconds_up_to(most: int, *directives: str) -> Callable[[str], list[str]]:
    """Return a function that lists the directives that are missing or longer than `most` seconds."""

    def wrong(text: str) -> list[str]:
        found = {name: re.search(rf"^\s*{name} (\d+)s?\b", text, re.MULTILINE) for name in directives}
        return [name for name, value in found.items() if not value or int(value[1]) > most]

    return wrong


# A map may set a header, a client's address or its network through a variable. If a site cannot use the baseline's
# figure, one control checks that figure, and a separate control checks a bound.
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
