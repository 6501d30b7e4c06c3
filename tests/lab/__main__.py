"""The command `python -m tests.lab VERB`, which docs/how-to/lab.md describes."""

import argparse
import os
import sys

from tests.lab import host, keys, lab
from tests.lab.host import LabError
from tests.lab.layout import MOST_DROPLETS, by_name

ON_A_MACHINE = {"reboot": lab.reboot, "crash": lab.crash, "destroy": lab.destroy, "recreate": lab.recreate}


def main() -> int:
    """Run the command and return 0. After a failure, print the cause and the next step, and return 1."""
    arguments = _arguments()
    try:
        if arguments.verb == "ssh":
            ssh = ["ssh", "-F", str(keys.SSH_CONFIG), by_name(arguments.name).name, *arguments.command]
            os.execvp(ssh[0], ssh)  # noqa: S606  ssh takes over the terminal
        host.check()
        if arguments.verb == "up":
            lab.up(arguments.droplets, vm=arguments.vm)
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
        print("lab: interrupted. Next: run the same command again to continue.", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Run the lab: droplets and the services around them, on this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="create and boot the missing machines")
    up.add_argument("--droplets", type=int, default=1, choices=range(MOST_DROPLETS + 1), metavar="N")
    up.add_argument("--vm", action="store_true", help="also the virtual machine, which has a kernel of its own")
    verbs.add_parser("down", help="remove the lab except its cache")
    verbs.add_parser("status", help="show which machines are running")
    ssh = verbs.add_parser("ssh", help="log in to a machine, or run a command on it")
    ssh.add_argument("name")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    for verb, text in (
        ("reboot", "reboot a machine cleanly"),
        ("crash", "kill a machine and boot it again"),
        ("destroy", "remove a machine"),
        ("recreate", "replace a machine with a new, bare one"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
