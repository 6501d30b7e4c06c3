"""The machine is a copy: it boots from an image of another droplet, whose app still runs elsewhere.

cloud-init tells droplets apart by their instance ID, which DigitalOcean's metadata service gives to each droplet.
"""

from __future__ import annotations

import subprocess
import sys

from testinfra.host import Host

from tests.support.environment import ROOT, Environment
from tests.system.vm.machine import connect, cut_power, live, problems, wait_until_well

META_DATA = "/var/lib/cloud/seed/nocloud/meta-data"


def become_a_copy(vm: Environment, instance: str) -> Host:
    """Boot the machine with another instance ID, as a droplet that was made from an image of this one."""
    connect(vm).check_output(f"sed -i 's/^instance-id:.*/instance-id: {instance}/' {META_DATA} && sync")
    cut_power()
    host = connect(vm)
    host.run("systemctl is-system-running --wait")
    return host


def converge(vm: Environment, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyinfra", "-y", f"inventories/{vm.name}.py", "deploys/site.py", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def running(host: Host) -> set[str]:
    return set(host.check_output("docker ps --format '{{.Names}}'").split())


def answer(vm: Environment) -> str:
    domain = vm.settings.values.domain
    return vm.ask_as_telegram(f"https://{domain}/webhook/telegram", "--request POST").split()[1]


def test_a_copy_runs_no_app_until_it_is_promoted(vm: Environment, machine: Host) -> None:
    tag, id_before = live(machine), machine.check_output("cat /etc/machine-id")
    host = become_a_copy(vm, "another-droplet")
    (problem,) = problems(host)
    assert "made from an image of another droplet" in problem
    data = {vm.settings.paths.docker.data_container(service) for service in ("postgres", "redis")}
    assert running(host) == data
    assert answer(vm) == "503"
    assert host.run(f"stackctl release {tag}").rc == 2
    refused = converge(vm)
    assert (refused.returncode, "make promote" in refused.stderr + refused.stdout) == (1, True)
    promoted = converge(vm, "--data", "isolated=false")
    assert promoted.returncode == 0, promoted.stderr[-4000:]
    host = wait_until_well(vm)
    assert (live(host), answer(vm)) == (tag, "401")
    assert host.check_output("cat /etc/machine-id") != id_before


def test_the_same_droplet_is_no_copy(vm: Environment, machine: Host) -> None:
    """Control: after a power cut, the same machine with the same instance ID serves again."""
    tag = live(machine)
    cut_power()
    assert live(wait_until_well(vm)) == tag
    assert answer(vm) == "401"
