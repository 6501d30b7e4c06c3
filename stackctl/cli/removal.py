"""The verb `remove-foreign`, which a converge calls."""

from stackctl.cli.call import Call
from stackctl.host import foreign


def remove(call: Call) -> int:
    stack = call.stack
    for gone in foreign.remove(stack.paths, stack.config, stack.machine, call.arguments.names):
        call.log.emit("foreign", "done", f"removed {gone}")
    return 0
