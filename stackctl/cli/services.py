"""The verbs `boot`, `halt`, `before-docker` and `maintenance`."""

from stackctl.app import lifecycle, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.cli.call import Call
from stackctl.core import durable, lock
from stackctl.core.errors import RefusedError
from stackctl.restore import settle

# A release may be migrating the database when `boot` starts. TimeoutStartSec of APP.service is much longer than this
# timeout.
BOOT_LOCK_TIMEOUT_S = 600


def boot(call: Call) -> int:
    if _installed(call):
        stack = call.stack
        with lock.exclusive(call.paths.work, call.holder, BOOT_LOCK_TIMEOUT_S):
            settle.undo(stack)
            lifecycle.boot(stack)
            settle.finish(stack)
            settle.remove_leftovers(stack)
    return 0


def halt(call: Call) -> int:
    if _installed(call):
        lifecycle.halt(call.stack)
    return 0


def before_docker(call: Call) -> int:
    """On a copy, tell Docker to start no container by itself.

    An image of a running droplet contains running containers. Docker starts such containers again before `boot` could
    stop them, and the worker would run jobs a second time. The option is deprecated, but there is no other option.
    """
    options = call.paths.docker_options
    if call.paths.config.exists() and call.stack.is_copy:
        durable.write(options, b"DOCKER_OPTS=--restart=false\n", 0o644)
    else:
        options.unlink(missing_ok=True)
    return 0


def maintenance(call: Call) -> int:
    _maintenance(call.stack, call.arguments.mode)
    return 0


def _installed(call: Call) -> bool:
    found = call.paths.config.exists()
    if not found:
        call.log.emit(call.arguments.verb, "done", "nothing is installed yet")
    return found


def _maintenance(stack: Stack, mode: str) -> None:
    if mode == "on":
        durable.write(stack.paths.maintenance, b"", 0o644)
    elif half := unfinished_restore.load(stack.paths):
        raise RefusedError(half.remedy)
    else:
        stack.paths.maintenance.unlink(missing_ok=True)
    stack.log.emit("maintenance", "progress", f"maintenance is {mode}, from the next request on")
