"""The verbs that change nothing: `status`, `history`, `logs` and `exec`."""

import json
from typing import NoReturn

from stackctl.cli import containers, status
from stackctl.cli.call import Call
from stackctl.core import history


def status_now(call: Call) -> int:
    stack = call.stack
    report = status.report(stack.paths, stack.config, stack.machine)
    print(json.dumps(report, indent=2) if call.arguments.json else status.text(report), file=call.log.out)
    return 4 if report["problems"] else 0


def past(call: Call) -> int:
    runs = history.runs(call.stack.paths)
    print(json.dumps(runs, indent=2) if call.arguments.json else history.text(runs), file=call.log.out)
    return 0


def logs(call: Call) -> int:
    return containers.logs(call.stack, call.arguments.service, call.arguments.lines, follow=call.arguments.follow)


def execute(call: Call) -> NoReturn:
    containers.execute(call.stack, call.arguments.command)
