"""`make demo` converges a bare droplet, releases the bot and delivers an update.

A second `make demo` changes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import cache
from typing import Any

import requests

from deploys.secrets.env_file import read_env_file
from tests.lab import host, lab
from tests.lab.host import LabError, say
from tests.lab.layout import CHECKOUT, DOMAIN, ENV_FILE, VM, WORLD, by_name

TAG = "1.0.0"
ENVIRONMENT = "lab"
DROPLET = "droplet1"
TELEGRAM = f"http://{WORLD.ipv4}:8081"
WEBHOOK = "https://bot.lab.test/webhook/telegram"
DELIVERY_TIMEOUT_S = 60


def main() -> int:
    began = time.monotonic()
    try:
        converged_and_released()
        update_id = deliver_an_update()
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    address, release = by_name(DROPLET).ipv4, status()["release"]
    print(
        f"""
A Telegram update ({update_id}) was delivered to {WEBHOOK}.
Running after {time.monotonic() - began:.0f} s:

  {DROPLET:<11} {address}   hardened, firewalled; nginx, PostgreSQL, Redis, and the bot {release["tag"]}
  world       {WORLD.ipv4}    DNS, ACME, registry, S3 store and Telegram of the lab
  neighbour   {by_name("neighbour").ipv4}    a client (and an attacker) on the droplet's network

Next commands:
  make status                show what is running on the droplet, and any problems
  make release TAG=1.1.0     release another version
  make plan                  show what a converge would change: nothing, until you change a file on the droplet
  make test                  run the checks that CI runs for each push
  make lab-ssh               open a shell on the droplet
  make lab-down              remove the lab
To use a droplet at DigitalOcean: docs/getting-started.md"""
    )
    return 0


@cache
def converged_and_released(environment: str = ENVIRONMENT) -> None:
    """Start the lab, converge a machine and release the bot: the first droplet, or the virtual machine.

    A second call in the same process does nothing.
    """
    host.check()
    is_vm = environment == VM.name
    lab.up(0 if is_vm else 1, vm=is_vm)
    machine, domain = (VM.name, f"{VM.name}.{DOMAIN}") if is_vm else (DROPLET, f"bot.{DOMAIN}")
    drop_old_certificate(machine, domain)
    make_repository(environment)
    converge(environment)
    live = status(machine)["release"]
    # In a new world, Telegram knows no webhook until a release sets the webhook.
    if live is None or not webhook_is_set(domain):
        tag = live["tag"] if live else TAG
        say(f"Releasing the bot {tag}")
        release(tag, environment)


def drop_old_certificate(machine: str, domain: str) -> None:
    """Delete the machine's certificate if an earlier world issued the certificate.

    Each world has its own root certificate.
    """
    untrusted = 60  # curl's exit code
    looked = ssh("neighbour", f"curl -sS --max-time 5 -o /dev/null --cacert /root/acme-root.pem https://{domain}/")
    if looked.returncode == untrusted:
        say("Deleting the droplet's certificate, which a former world issued. The converge obtains a new one")
        ssh(machine, "cd /etc/letsencrypt 2>/dev/null && sudo rm -rf live archive renewal accounts")


def make_repository(environment: str = ENVIRONMENT) -> None:
    """Create the off-site repository, as `make offsite` does, because a new world has no repository."""
    made = [sys.executable, "-m", "deploys.offsite.setup", f"inventories/{environment}.py"]
    if subprocess.run(made, cwd=CHECKOUT, check=False).returncode:
        raise LabError("The off-site repository was not created, see above. Next: fix the cause, then `make demo`.")


def release(tag: str, environment: str = ENVIRONMENT) -> None:
    pyinfra("deploys/release.py", "--data", f'tag="{tag}"', environment=environment)


def converge(environment: str = ENVIRONMENT) -> None:
    took = "about a minute for a bare droplet" if environment == ENVIRONMENT else "15 minutes if QEMU emulates"
    say(f"Converging the droplet: pyinfra inventories/{environment}.py deploys/site.py ({took})")
    pyinfra("deploys/site.py", environment=environment)


def pyinfra(*arguments: str, environment: str = ENVIRONMENT) -> None:
    """Run pyinfra on an environment, and show pyinfra's progress on the terminal."""
    run = subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", f"inventories/{environment}.py", *arguments], cwd=CHECKOUT, check=False
    )
    if run.returncode:
        raise LabError(f"pyinfra {arguments[0]} failed, see above. Next: fix the cause, then run the same command.")


def status(droplet: str = DROPLET) -> Any:
    """Return the output of `stackctl status --json` on a droplet."""
    return json.loads(ssh(droplet, "sudo stackctl status --json").stdout)


def ssh(machine: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine of the lab."""
    argv = ["ssh", "-F", ".lab/ssh_config", machine, command]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def deliver_an_update(text: str = "/offers") -> int:
    """Make the lab's Telegram deliver one update to the bot's webhook, and wait until the bot accepts it."""
    say(f"Sending {text} to {WEBHOOK}")
    (update_id,) = post("/lab/updates", {"count": 1, "text": text})["update_ids"]
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    while time.monotonic() < deadline:
        if delivery(update_id)["deliveries"]:
            return int(update_id)
        time.sleep(0.2)
    seen = delivery(update_id)
    raise LabError(
        f"Update {update_id} was not accepted: {seen['attempts']} attempts, the last answer was {seen['last_status']}."
        " Next: make status."
    )


def webhook_is_set(domain: str = f"bot.{DOMAIN}") -> bool:
    """Return whether the lab's Telegram sends updates to this domain."""
    token = read_env_file(ENV_FILE)["TELEGRAM_BOT_TOKEN"]
    return bool(post(f"/bot{token}/getWebhookInfo", {})["result"]["url"] == f"https://{domain}/webhook/telegram")


def delivery(update_id: int) -> Any:
    """Return {"attempts", "deliveries", "last_status"} of an update."""
    answer = requests.get(f"{TELEGRAM}/lab/updates", params={"from": update_id, "to": update_id}, timeout=10)
    return answer.json()["updates"][0]


def calls(droplet: str = DROPLET) -> list[str]:
    """Return the methods that a droplet and its containers called on the lab's Telegram."""
    address = str(by_name(droplet).ipv4)
    told = requests.get(f"{TELEGRAM}/lab/calls", timeout=10).json()["calls"]
    return [call["method"] for call in told if call["from"] == address]


def post(path: str, document: dict[str, Any]) -> Any:
    answer = requests.post(f"{TELEGRAM}{path}", json=document, timeout=10)
    if answer.status_code != requests.codes.ok:
        raise LabError(f"The lab's Telegram answered {answer.status_code}: {answer.json().get('description')}")
    return answer.json()


if __name__ == "__main__":
    sys.exit(main())
