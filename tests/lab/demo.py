"""`make demo`: a bare droplet becomes a home for the bot and answers Telegram; run again, it changes nothing."""

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
from tests.lab.layout import CHECKOUT, ENV_FILE, WORLD, by_name

TAG = "1.0.0"
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
A Telegram update ({update_id}) went to {WEBHOOK} and was taken.
What now runs, after {time.monotonic() - began:.0f} s:

  {DROPLET:<11} {address}   hardened, firewalled; nginx, PostgreSQL, Redis, and the bot {release["tag"]}
  world       {WORLD.ipv4}    DNS, ACME, registry and Telegram of the lab
  neighbour   {by_name("neighbour").ipv4}    a client (and an attacker) on the droplet's network

What to type next:
  make status                what runs on the droplet, and what is wrong with it
  make release TAG=1.1.0     put another version live
  make plan                  what a converge would change: nothing now; change a file on the droplet and look again
  make test                  the checks that CI runs for each push
  make lab-ssh               a shell on the droplet
  make lab-down              take it all down
A droplet of your own at DigitalOcean: docs/getting-started.md"""
    )
    return 0


@cache
def converged_and_released() -> None:
    """The lab up, its first droplet converged and with a release. Once a process; quick when it is so already."""
    host.check()
    lab.up(1)
    forget_a_former_world()
    have_a_repository()
    converge()
    live = status()["release"]
    # A world made anew has a Telegram that was told nothing: that is a release's to do.
    if live is None or not webhook_is_set():
        tag = live["tag"] if live else TAG
        say(f"releasing the bot {tag}")
        release(tag)


def forget_a_former_world() -> None:
    """A world made anew has another root, as no real authority has: the certificate is obtained anew then."""
    untrusted = 60  # curl's exit code
    looked = ssh("neighbour", "curl -sS --max-time 5 -o /dev/null --cacert /root/acme-root.pem https://bot.lab.test/")
    if looked.returncode == untrusted:
        say("the droplet's certificate is not of this world's authority: it will be obtained anew")
        ssh(DROPLET, "cd /etc/letsencrypt 2>/dev/null && sudo rm -rf live archive renewal accounts")


def have_a_repository() -> None:
    """What `make offsite` does; a world made anew has lost it."""
    made = [sys.executable, "-m", "deploys.offsite.setup", "inventories/lab.py"]
    if subprocess.run(made, cwd=CHECKOUT, check=False).returncode:
        raise LabError("the repository off the droplet can't be made, see above: mend it and run make demo again")


def release(tag: str) -> None:
    pyinfra("deploys/release.py", "--data", f'tag="{tag}"')


def converge() -> None:
    say("converging the droplet: pyinfra inventories/lab.py deploys/site.py (about a minute when it is bare)")
    pyinfra("deploys/site.py")


def pyinfra(*arguments: str) -> None:
    """Runs pyinfra on the lab; its progress goes to the terminal."""
    run = subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", "inventories/lab.py", *arguments], cwd=CHECKOUT, check=False
    )
    if run.returncode:
        raise LabError(f"pyinfra {arguments[0]} failed, see above: mend it and run make demo again")


def status(droplet: str = DROPLET) -> Any:
    """`stackctl status --json` of a droplet."""
    return json.loads(ssh(droplet, "sudo stackctl status --json").stdout)


def ssh(machine: str, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command on a machine of the lab."""
    argv = ["ssh", "-F", ".lab/ssh_config", machine, command]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def deliver_an_update(text: str = "/offers") -> int:
    """Has the lab's Telegram deliver one update to the bot's webhook, and waits until it was taken."""
    say(f"sending {text} through {WEBHOOK}")
    (update_id,) = post("/lab/updates", {"count": 1, "text": text})["update_ids"]
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    while time.monotonic() < deadline:
        if delivery(update_id)["deliveries"]:
            return int(update_id)
        time.sleep(0.2)
    seen = delivery(update_id)
    raise LabError(
        f"update {update_id} was not taken: tried {seen['attempts']} times, last answer {seen['last_status']}"
    )


def webhook_is_set() -> bool:
    """Whether the lab's Telegram knows where to send updates."""
    token = read_env_file(ENV_FILE)["TELEGRAM_BOT_TOKEN"]
    return bool(post(f"/bot{token}/getWebhookInfo", {})["result"]["url"] == WEBHOOK)


def delivery(update_id: int) -> Any:
    """How often an update was tried and taken: {"attempts", "deliveries", "last_status"}."""
    answer = requests.get(f"{TELEGRAM}/lab/updates", params={"from": update_id, "to": update_id}, timeout=10)
    return answer.json()["updates"][0]


def calls(droplet: str = DROPLET) -> list[str]:
    """What the lab's Telegram was asked by a droplet, its containers included."""
    address = str(by_name(droplet).ipv4)
    told = requests.get(f"{TELEGRAM}/lab/calls", timeout=10).json()["calls"]
    return [call["method"] for call in told if call["from"] == address]


def post(path: str, document: dict[str, Any]) -> Any:
    answer = requests.post(f"{TELEGRAM}{path}", json=document, timeout=10)
    if answer.status_code != requests.codes.ok:
        raise LabError(f"the lab's Telegram answered {answer.status_code}: {answer.json().get('description')}")
    return answer.json()


if __name__ == "__main__":
    sys.exit(main())
