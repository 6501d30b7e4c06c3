"""Tests with the judges lynis, testssl.sh and nmap over all ports, which need a minute each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.support.ports import OPEN, open_ports
from tests.system.audit.conftest import Verdict
from tests.system.audit.judges import index, items_of
from tests.system.audit.verdicts import waived

INDEX = 85
LYNIS = "/run/lynis"
"""Lynis's directory during its test, in memory and only for root."""
PACK = "tar -c -C /usr/share/lynis . -C /usr/sbin lynis -C /etc/lynis default.prf plugins | base64 -w 0"

MOZILLA = {
    "supportedciphers_TLSv1_2": "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 "
    "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 "
    "ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305",
    "supportedciphers_TLSv1_3": "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256",
    "FS_ECDHE_curves": "X25519 prime256v1 secp384r1",
    "FS_KEMs": "X25519MLKEM768",
}
"""The values that Mozilla's "intermediate" profile allows (guideline 6.0), by testssl.sh's names."""


@pytest.fixture
def lynis(droplet: Host, outside: Host) -> Iterator[str]:
    """Copy lynis's directory from outside to the droplet, and remove it afterwards."""
    packed = outside.check_output(PACK)
    droplet.check_output(f"install -d -m 0700 {LYNIS}")
    try:
        for start in range(0, len(packed), 100_000):  # Linux limits the length of an argument
            droplet.check_output(f"printf %s {packed[start : start + 100_000]} >> {LYNIS}/packed")
        droplet.check_output(f"base64 -d {LYNIS}/packed | tar -x -C {LYNIS} --no-same-owner")
        yield LYNIS
    finally:
        droplet.check_output(f"rm -r {LYNIS}")


@pytest.fixture
def upgraded(droplet: Host, env: Environment) -> None:
    """Upgrade the packages, as the droplet does each morning. The lab's droplet may lack Debian's latest fixes."""
    if env.in_lab:
        droplet.check_output("apt-get update -qq && unattended-upgrade")


@pytest.mark.group("everywhere")
@pytest.mark.usefixtures("upgraded")
def test_lynis(droplet: Host, env: Environment, lynis: str, verdict: Verdict) -> None:
    """Lynis gives no warning.

    The table shows lynis's index, with and without the tests that this machine cannot pass.
    """
    files = f"--plugindir {lynis}/plugins --logfile {lynis}/log --report-file {lynis}/report"
    droplet.run(f"cd {lynis} && sh lynis audit system --cronjob --profile {lynis}/default.prf {files}")
    report = droplet.file(f"{lynis}/report").content_string
    items = items_of(droplet.file(f"{lynis}/log").content_string)
    assert f"hardening_index={index(items)}\n" in report, "lynis counts points in a new way"
    warnings = set(re.findall(r"^warning\[\]=([^|]+)", report, re.MULTILINE))
    lost = {item.test for item in items if item.got < item.of}
    known = waived("lynis", env.name)
    without = index([item for item in items if item.test not in known])
    complaints = warnings | (lost & known) | ({f"index {without}"} if without < INDEX else set())
    figure = f"{len(warnings)} warnings, index {index(items)} raw, {without} waived"
    verdict("lynis", complaints, figure=figure, goal=f"0 warnings, index ≥ {INDEX}")


@pytest.mark.group("edge")
def test_testssl(outside: Host, env: Environment, verdict: Verdict) -> None:
    """The grade is A+, and nginx offers nothing beyond Mozilla's intermediate profile."""
    trust = env.trust.replace("--cacert", "--add-ca")
    told = f"--quiet --color 0 --warnings off {trust} --jsonfile /dev/stderr --overwrite"
    found = json.loads(outside.run(f"testssl {told} {env.settings.values.domain}:443 >/dev/null").stderr)
    said = {one["id"].split(" ")[0]: one["finding"] for one in found}
    grave = {one["id"] for one in found if one["severity"] in {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}}
    beyond = {
        f"{kind}: {extra}"
        for kind, allowed in MOZILLA.items()
        for extra in set(said.get(kind, "nothing said").split()) - set(allowed.split())
    }
    grade = said.get("overall_grade", "none")
    complaints = grave | beyond | (set() if grade == "A+" else {f"grade {grade}"})
    verdict(
        "testssl.sh",
        complaints,
        figure=f"{grade}, {said.get('final_score')} points, {len(beyond)} beyond Mozilla's",
        goal="A+, 0 beyond",
    )


@pytest.mark.group("edge")
def test_nmap_finds_three_ports(outside: Host, env: Environment, family: str, verdict: Verdict) -> None:
    """nmap probes every TCP port twice."""
    domain = env.settings.values.domain
    found = open_ports(outside, domain, family, "-p- --min-rate 10000 --max-retries 1")
    complaints = {f"{port} is open" for port in found - OPEN} | {f"{port} doesn't answer" for port in OPEN - found}
    verdict(f"nmap {family}", complaints, figure=f"open: {', '.join(sorted(found, key=int))}", goal="22, 80, 443")
