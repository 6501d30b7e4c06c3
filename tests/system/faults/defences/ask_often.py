"""Asks for a path that doesn't exist, again and again, and also over a connection that was open before.

It runs on a client as `python3 -c`. It asks a few times a second, as often as nginx lets through: a request that nginx
slows down counts little or nothing towards a ban. Arguments: the address, the host's name, the number of requests.
Prints JSON: how often each status came in the burst, and the status on the kept connection before and after it (null:
no answer within five seconds).
"""

import json
import sys
import time
from collections import Counter
from http.client import HTTPConnection

NOTHING = "/.well-known/acme-challenge/nothing"
EVERY_S = 0.11
SEEN_WITHIN_S = 6
"""fail2ban reads the log every second or two."""


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
