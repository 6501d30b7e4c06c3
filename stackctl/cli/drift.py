"""Finds drift: differences between the running containers and the declared state.

Releasing the live tag again repairs the drift.
"""

from stackctl.app import app_env, webhook
from stackctl.app.state import State
from stackctl.cli.observed import Observed
from stackctl.core.config import Config
from stackctl.core.errors import StackError
from stackctl.core.machine import Machine
from stackctl.core.paths import APP_SERVICES, Paths, other
from stackctl.services.docker import Container


def lines(seen: Observed) -> list[str]:
    """Return the reasons to release the app again."""
    if seen.unfinished:
        return []  # only the restore may start the containers that the restore has stopped
    if seen.is_copy:
        return []  # a copy runs no app, and a release would be refused
    current, there, found = seen.current, seen.containers, list[str]()
    if not there.error:
        found += _app(current, there.colours, seen.expected_sha256) + _socket(seen.paths, current, seen.machine)
        found += [] if seen.work else _worker(seen.config, current, there.worker)
    if not seen.work:  # a boot or a release in progress may still start the missing containers
        found += _interrupted(current, there.colours) + _webhook(seen.telegram, current)
    return found


def stale(seen: Observed) -> list[str]:
    """Return the live services whose containers were made from an earlier Compose file, app environment or image."""
    if seen.is_copy or not seen.current.active or seen.expected_sha256 is None:
        return []
    # During a release, the worker may still belong to the former release.
    worker = seen.containers.worker if seen.config.works and not seen.work else []
    live = [*seen.containers.colours[seen.current.active], *worker]
    return [one.service for one in live if one.labels.get(seen.paths.docker.sha256_label) != seen.expected_sha256]


def environment_differs(paths: Paths, current: State) -> bool:
    """Return whether the declared app environment differs from the live release's app environment.

    If the declared app environment cannot be read, return False, because the next release reports this problem.
    """
    try:
        declared = app_env.env_sha256(app_env.load(paths.next_environment))
    except StackError:
        return False
    return current.release is not None and declared != current.release.env_sha256


def _app(current: State, of_colour: dict[str, list[Container]], expected: str | None) -> list[str]:
    colour, release = current.active, current.release
    if colour is None:
        return []
    if release is None or expected is None:
        return [f"the record of the release in {colour} is lost"]
    found = {container.service for container in of_colour[colour]}
    lines = [f"{service} has no container" for service in APP_SERVICES if service not in found]
    for container in of_colour[colour]:
        if not container.serves:
            lines.append(f"{container.service} is {container.condition}")
        if container.image != release.image:
            lines.append(f"{container.service} runs another image than the live release: {container.image}")
    return lines


def _worker(config: Config, current: State, of_worker: list[Container]) -> list[str]:
    if config.isolated:
        return [f"{c.service} is {c.condition} though this droplet is isolated" for c in of_worker if c.serves]
    if not config.worker or not current.active:
        return []
    if not of_worker:
        return ["worker has no container"]
    return [f"{c.service} is {c.condition}" for c in of_worker if not c.serves]


def _socket(paths: Paths, current: State, machine: Machine) -> list[str]:
    if current.active is None:
        return []
    unit = paths.units.socket(current.active)
    return [f"{unit} is not active"] if machine.run(["systemctl", "is-active", "--quiet", unit]).code else []


def _interrupted(current: State, of_colour: dict[str, list[Container]]) -> list[str]:
    """Report a colour that a killed release left running. If no release is live, report nothing."""
    idle = other(current.active) if current.active else None
    return (
        [f"{idle} still runs, because a release was interrupted"]
        if idle and any(c.well for c in of_colour[idle])
        else []
    )


def _webhook(telegram: webhook.Look, current: State) -> list[str]:
    if telegram.wanted and current.webhook != telegram.wanted:
        return ["the webhook of the live release was not sent to Telegram"]
    return telegram.drift
