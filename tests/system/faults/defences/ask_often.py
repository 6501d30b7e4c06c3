"""Runs on a client, as `python3 -c`: asks for what isn't there, often, and over a connection that was open before.

A few in a second, as many as nginx lets through: what it slows down counts for no ban, or far less.
Arguments: the address, the host's name, how often. Prints JSON: the burst's statuses and how often each, and what the
connection that was kept says before and after (null: nothing, within five seconds).
"""

import json
import sys
import time
from collections import Counter
from http.client import HTTPConnection

NOTHING = "/.well-known/acme-challenge/nothing"
EVERY_S = 0.11
SEEN_WITHIN_S = 6
"""fail2ban looks into the log each second or two."""


def main(address: str, name: str, times: str) -> None:
    kept = HTTPConnection(address, 80, timeout=5)
    before = ask(kept, name)
    burst: Counter[int | None] = Counter()
    for _ in range(int(times)):
        time.sleep(EVERY_S)
        burst[ask(HTTPConnection(address, 80, timeout=5), name)] += 1
    time.sleep(SEEN_WITHIN_S)
    answered = {str(status): number for status, number in burst.items()}
    print(json.dumps({"before": before, "burst": answered, "after": ask(kept, name)}))


def ask(connection: HTTPConnection, name: str) -> int | None:
    try:
        connection.request("GET", NOTHING, headers={"Host": name})
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return None
    return answer.status


main(*sys.argv[1:])
