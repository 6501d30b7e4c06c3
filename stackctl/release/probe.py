"""Sends requests to a colour through the colour's socket, in the same way as nginx after the flip."""

import http.client
import json
from collections.abc import Mapping

from stackctl.app.app_env import SECRET
from stackctl.app.stack import Stack
from stackctl.core.errors import FailedError

# An update without content changes nothing in the app (docs/reference/app-contract.md).
UPDATE = json.dumps({"update_id": 0}).encode()


MOST_PATHS = 5


def failing(stack: Stack, colour: str, values: Mapping[str, str]) -> dict[str, str]:
    """Request each public path from this colour.

    Return each path that gets a 5xx or no answer, with a description of the failure. The watch sends these requests,
    because there may be no other traffic by which to judge a release. nginx's rate limits do not count these requests,
    because they go through the colour's socket.
    """
    config, unix_socket, found = stack.config, stack.paths.socket(colour), dict[str, str]()
    for path in [*([config.webhook_path] if config.webhook_path else []), *config.public_paths][:MOST_PATHS]:
        try:
            if path == config.webhook_path:
                status = stack.machine.request_over_socket(unix_socket, path, UPDATE, _of_telegram(values))[0]
            else:
                status = stack.machine.status_over_socket(unix_socket, path)
        except (OSError, http.client.HTTPException) as error:
            found[path] = f"{path}: {error or type(error).__name__}"
        else:
            if status >= 500:
                found[path] = f"{path} answers {status}"
    return found


def _of_telegram(values: Mapping[str, str]) -> dict[str, str]:
    # If the live release is from before the app had a webhook, the live release's app environment has no secret.
    return {"X-Telegram-Bot-Api-Secret-Token": values.get(SECRET, ""), "Content-Type": "application/json"}


def probe(stack: Stack, colour: str, tag: str, values: Mapping[str, str]) -> str:
    """Probe the colour, and return a summary of the answers. Raise FailedError at the first bad answer."""
    config, unix_socket = stack.config, stack.paths.socket(colour)

    def not_ready() -> str | None:
        ended = next((container.end for container in stack.containers(colour) if container.end), None)
        if ended:
            raise FailedError(ended)
        try:
            status, _ = stack.machine.request_over_socket(unix_socket, config.ready_path)
        except (OSError, http.client.HTTPException) as error:
            return f"{config.ready_path}: {error or type(error).__name__}"
        return None if status == 200 else f"{config.ready_path} answers {status}"

    answers = ["ready"]
    try:
        stack.wait("probe", config.healthy_timeout, not_ready)
        if config.version_path:
            version = json.loads(stack.machine.request_over_socket(unix_socket, config.version_path)[1])["version"]
            if version != tag:
                raise FailedError(
                    f"{config.version_path} reports version {version!r}, not {tag}", next_step="build the image again"
                )
            answers.append(f"version {version}")
        if config.webhook_path:
            status, _ = stack.machine.request_over_socket(
                unix_socket, config.webhook_path, UPDATE, _of_telegram(values)
            )
            if not 200 <= status <= 299:
                raise FailedError(f"{config.webhook_path} answers {status} to an empty update")
            answers.append("accepts updates")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"the probe got no valid answer: {error or type(error).__name__}") from None
    return ", ".join(answers)
