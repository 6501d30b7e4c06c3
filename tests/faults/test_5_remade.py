"""A droplet destroyed and remade, with all against it: converges killed at random, and no certificate to be had."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from tests import converge
from tests.lab import demo
from tests.lab import lab as machines
from tests.lab.layout import by_name
from tests.places import Place

KILLS = 3
SEED = 20261123
RELOAD_TIMEOUT_S = 10
TRUSTED = "Obtain the certificate"


@contextmanager
def authority_out_of_reach(lab: Place) -> Iterator[None]:
    """Pebble itself goes on: it would have another root after a restart."""
    world = lab.connect("world", sudo=False)
    rule = "INPUT -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
    for program in ("iptables", "ip6tables"):
        world.check_output(f"{program} -I {rule}")
    try:
        yield
    finally:
        for program in ("iptables", "ip6tables"):
            world.check_output(f"{program} -D {rule}")


def test_killed_at_random_it_ends_in_the_same_state(lab: Place) -> None:
    """Without an authority at first: the site is finished with a placeholder, and says so."""
    with authority_out_of_reach(lab):
        machines.recreate(by_name("droplet1"))
        moments = random.Random(SEED)
        for _ in range(KILLS):
            running = converge.start()
            time.sleep(moments.uniform(3, 20))
            running.kill()
            running.wait()
        said = converge.failing_site()
        assert TRUSTED in said.splitlines()[-1] or "no certificate for bot.lab.test" in said
    droplet = lab.reconnect("droplet1")
    assert converge.planned() == {f"tls | {TRUSTED}"}

    status = droplet.run("stackctl status --json")
    assert status.rc == 4
    certificate = json.loads(status.stdout)["certificate"]
    assert certificate["placeholder"] is True
    assert certificate["cause"]
    answer = lab.ask_as_telegram("https://bot.lab.test/webhook/telegram", "--insecure")
    assert answer.startswith("HTTP/2 503"), "no release yet"
    assert "retry-after: 5" in answer

    # What the hourly timer starts.
    timer = "systemctl list-timers --all --output=json toogoodtogo-certificate.timer"
    assert json.loads(droplet.check_output(timer))[0]["activates"] == "toogoodtogo-certificate.service"
    droplet.check_output("systemctl start toogoodtogo-certificate.service")
    assert converge.planned() == set()


def test_the_remade_droplet_passes_every_check(lab: Place) -> None:
    demo.release(demo.TAG)
    converge.checks()
    assert converge.changed(converge.site()) == set()


def served_serial(droplet: Host) -> str:
    """Of the certificate that nginx serves, as it runs."""
    served = "openssl s_client -connect 127.0.0.1:443 -servername bot.lab.test </dev/null 2>/dev/null"
    return str(droplet.check_output(f"{served} | openssl x509 -noout -serial"))


def test_a_renewed_certificate_is_taken_up_by_nginx(lab: Place) -> None:
    """By certbot's deploy hook alone. A reload starts new workers and returns before the old ones have gone."""
    droplet = lab.reconnect("droplet1")
    before = served_serial(droplet)
    droplet.check_output("certbot renew --force-renewal --no-random-sleep-on-renew")
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while served_serial(droplet) == before:
        assert time.monotonic() < deadline, "nginx still serves the certificate from before its renewal"
        time.sleep(0.2)
    assert droplet.run("stackctl status").rc == 0
    assert converge.planned() == set()


def test_an_old_certificate_is_not_given_up_for_a_failed_new_one(lab: Place) -> None:
    droplet = lab.reconnect("droplet1")
    before = served_serial(droplet)
    said = converge.failing_site("--data", "acme_server=https://acme.lab.test:14999/dir")
    assert "no certificate for bot.lab.test" in said
    assert served_serial(droplet) == before
    converge.site()
    assert droplet.run("stackctl status").rc == 0


@pytest.mark.parametrize("tag", ["9.9.9"])
def test_a_release_of_a_tag_that_is_not_there_changes_nothing(lab: Place, tag: str) -> None:
    droplet = lab.reconnect("droplet1")
    before = droplet.check_output("cat /var/lib/toogoodtogo/state.json")
    refused = droplet.run(f"stackctl release {tag}")
    assert refused.rc == 2
    assert f":{tag}" in refused.stdout + refused.stderr
    assert droplet.check_output("cat /var/lib/toogoodtogo/state.json") == before
