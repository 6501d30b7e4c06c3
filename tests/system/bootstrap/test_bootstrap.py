"""A bare droplet converges to the full site, although converges are killed at random and no certificate is available.

This suite runs before all others that need a droplet. The rest of `make test` checks the droplet that this suite
leaves.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab import demo
from tests.lab import lab as machines
from tests.lab.layout import by_name
from tests.support import converge
from tests.support.environment import Environment

KILLS = 3
SEED = 20261123
TRUSTED = "Obtain the certificate"


@contextmanager
def authority_out_of_reach(lab: Environment) -> Iterator[None]:
    """Block the network path to the ACME authority.

    Pebble itself keeps running, because a restart would change its root.
    """
    world = lab.connect("world", sudo=False)
    rule = "INPUT -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
    for program in ("iptables", "ip6tables"):
        world.check_output(f"{program} -I {rule}")
    try:
        yield
    finally:
        for program in ("iptables", "ip6tables"):
            world.check_output(f"{program} -D {rule}")


def made_anew_unless_bare(lab: Environment) -> None:
    machines.up(1)
    if lab.reconnect("droplet1").file("/usr/local/bin/stackctl").exists:
        machines.recreate(by_name("droplet1"))


def test_converges_killed_at_random_end_in_the_declared_state(lab_as_it_is: Environment) -> None:
    """While the authority is unreachable, a converge ends with a placeholder certificate and reports this failure."""
    lab = lab_as_it_is
    with authority_out_of_reach(lab):
        made_anew_unless_bare(lab)
        moments = random.Random(SEED)
        for _ in range(KILLS):
            running = converge.start()
            time.sleep(moments.uniform(3, 20))
            assert running.poll() is None, running.communicate()[0]
            running.kill()
            running.wait()
        said = converge.failing_site()
        assert "no certificate for bot.lab.test" in said, said[-4000:]
    droplet = lab.reconnect("droplet1")
    assert converge.planned() == {f"certificate | {TRUSTED}"}

    status = droplet.run("stackctl status --json")
    assert status.rc == 4
    certificate = json.loads(status.stdout)["certificate"]
    assert certificate["placeholder"] is True
    assert certificate["cause"]
    answer = lab.ask_as_telegram("https://bot.lab.test/webhook/telegram", "--insecure")
    assert answer.startswith("HTTP/2 503"), "nginx must answer 503 before the first release"
    assert "retry-after: 5" in answer

    # The hourly timer starts the service that requests certificates.
    timer = "systemctl list-timers --all --output=json toogoodtogo-certificate.timer"
    assert json.loads(droplet.check_output(timer))[0]["activates"] == "toogoodtogo-certificate.service"
    droplet.check_output("systemctl start toogoodtogo-certificate.service")


def test_a_released_droplet_is_as_declared(lab_as_it_is: Environment) -> None:
    demo.release(demo.TAG)
    assert converge.changed(converge.site()) == set()
