"""A placeholder certificate is created, and a real one is requested."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploys.facts.files import FileState
from deploys.facts.stackctl import Status
from deploys.operations.certificate import acme_certificate, self_signed_certificate
from tests.support.operations import PLACED, commands

NGINX_S = {"mode": "640", "group": "www-data"}


@pytest.mark.parametrize("key", [None, PLACED, PLACED | NGINX_S | {"mode": "600"}])
def test_a_placeholder_replaces_a_certificate_that_nginx_s_workers_cannot_read(key: Any) -> None:
    make, link = commands(self_signed_certificate, {FileState: key}, tls="/tls", domain="d")
    assert make.startswith("install -d -m 750 -g www-data /tls/placeholder && openssl req ")
    assert make.endswith("chmod 640 /tls/placeholder/privkey.pem /tls/placeholder/fullchain.pem")
    assert link == "ln -sfn /tls/placeholder /tls/current"


def test_a_placeholder_is_made_for_the_longest_name(tmp_path: Path) -> None:
    """The test runs openssl itself, which refuses a common name of more than 64 characters."""
    domain = ".".join([*("x" * 63 for _ in range(3)), "y" * 57, "dev"])
    make, _ = commands(self_signed_certificate, {FileState: None}, tls="/tls", domain=domain)
    (openssl,) = [part for part in make.split("&&") if part.strip().startswith("openssl")]
    ran = subprocess.run(
        ["sh", "-c", openssl.replace("/tls/placeholder", str(tmp_path))], capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "fullchain.pem").exists()


def test_a_certificate_is_neither_replaced_nor_asked_for_twice() -> None:
    assert commands(self_signed_certificate, {FileState: PLACED | NGINX_S}, tls="/tls", domain="d") == []
    assert commands(acme_certificate, {Status: {"certificate": {"as_declared": True}}}, domain="d", server="s") == []
    for status in (None, {"certificate": None}, {"certificate": {"as_declared": False}}):
        (asked,) = commands(acme_certificate, {Status: status}, domain="d", server="s")
        assert asked.startswith("stackctl certificate || { code=$?; echo 'Everything else is done. Next")
        assert asked.endswith("exit $code; }")
