"""`python -m tests.lab VERB`: see docs/how-to/lab.md."""

import argparse
import os
import sys

from tests.lab import host, keys, lab
from tests.lab.host import LabError
from tests.lab.layout import MOST_DROPLETS, by_name

ON_A_MACHINE = {"reboot": lab.reboot, "crash": lab.crash, "destroy": lab.destroy, "recreate": lab.recreate}


def main() -> int:
    """Do what the command line says; 0 when done, 1 with the cause and the next step otherwise."""
    arguments = _arguments()
    try:
        if arguments.verb == "ssh":
            ssh = ["ssh", "-F", str(keys.SSH_CONFIG), by_name(arguments.name).name, *arguments.command]
            os.execvp(ssh[0], ssh)  # noqa: S606  the terminal is ssh's from here on
        host.check()
        if arguments.verb == "up":
            lab.up(arguments.droplets)
        elif arguments.verb == "down":
            lab.down()
        elif arguments.verb == "status":
            print(lab.status())
        else:
            ON_A_MACHINE[arguments.verb](by_name(arguments.name))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted. Next: the same command again; it goes on from here.", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="The lab: droplets and their world, on this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="make and boot what is missing")
    up.add_argument("--droplets", type=int, default=1, choices=range(1, MOST_DROPLETS + 1), metavar="N")
    verbs.add_parser("down", help="leave nothing behind but the cache")
    verbs.add_parser("status", help="what is on")
    ssh = verbs.add_parser("ssh", help="log in, or run a command")
    ssh.add_argument("name")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    for verb, text in (
        ("reboot", "reboot in order"),
        ("crash", "kill and boot again"),
        ("destroy", "remove a machine"),
        ("recreate", "replace a machine by a new, bare one"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
