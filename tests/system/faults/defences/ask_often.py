"""Requests a missing path in a burst.

Before and after the burst, requests the path once over a connection that stays open.

Runs on a client as `python3 -c`. The program stays below nginx's limit of requests per second, because a request
that nginx rejects for exceeding the limit counts little or nothing towards a ban. Arguments: the address, the host's
name, the number of requests. Prints JSON: how often each status came in the burst, and the status on the open
connection before and after the burst. null means no answer within five seconds.
"""

import json
import sys
import time
from collections import Counter
from http.client import HTTPConnection

NOTHING = "/.well-known/acme-challenge/nothing"
EVERY_S = 0.11
SEEN_WITHIN_S = 6
"""The seconds in which fail2ban notices the requests. fail2ban reads the log every second or two."""


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
