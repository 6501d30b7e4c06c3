"""release TAG: a new image live in the idle colour, or everything as it was.

STEPS is the whole story, in order. Up to the flip a failure is undone, step by step backwards; after it the new release serves
and only tidying is left. A kill at any point leaves one colour live, and the same command again finishes the job: every step
copes with what an earlier run left.
"""

import http.client
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from . import compose, durable, environment, state
from .errors import FailedError, PersonNeededError, RefusedError, StackError
from .paths import COLOURS, other
from .stack import DATA_SERVICES, Stack
from .state import Release, State

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
VERSION_LABEL = "org.opencontainers.image.version"
PULL_TIMEOUT = 900
KEPT_RELEASES = 3
# A SIGTERM at once would reset connections that wait in the old colour's backlog.
DRAIN_SECONDS = 1.0


@dataclass
class Work:
    """A release under way: what its steps hand on."""

    stack: Stack
    release: Release
    before: State = field(default_factory=State)
    colour: str = COLOURS[0]
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def our_tag(self) -> str:
        return f"{self.stack.paths.release_repository}:{self.release.id}"

    @property
    def project(self) -> str:
        return self.stack.paths.project(self.colour)

    @property
    def compose_environment(self) -> dict[str, str]:
        return self.stack.app_environment(self.colour, self.release, self.values)


class Step(NamedTuple):
    """`act` returns what it has to say; `undo` takes back what it may have done, be it half of it."""

    name: str
    act: Callable[[Work], str]
    undo: Callable[[Work], None] | None = None


def check_tag(tag: str) -> None:
    if not TAG.fullmatch(tag):
        raise RefusedError(f"{tag!r} is no image tag: letters, digits, _ . - and at most 128 of them")


def release(stack: Stack, tag: str) -> None:
    """Raises RefusedError when nothing was changed, FailedError when all was undone, PersonNeededError when it serves but
    something behind it is left to do."""
    started = stack.machine.now()
    work = Work(stack, Release(started.strftime("%Y%m%dT%H%M%SZ"), tag, "", "", None, _iso(stack)))
    reached: list[Step] = []
    try:
        for step in STEPS:
            reached.append(step)
            with stack.journal.step(step.name) as told:
                told.message = step.act(work)
    except BaseException as error:
        cause = _cause(error)
        stack.journal.show_log(cause.tail)
        if _serves(work):
            raise PersonNeededError(f"{tag} serves in {work.colour}, but {cause}: run the same command again") from error
        _undo(work, reached)
        raise cause from error


def _preflight(work: Work) -> str:
    stack, paths = work.stack, work.stack.paths
    work.values = environment.load(paths.next_environment)
    stack.journal.secrets = work.values
    work.before = state.load(paths)
    work.colour = other(work.before.active) if work.before.active else COLOURS[0]
    work.release = replace(work.release, env_sha256=environment.env_sha256(work.values))
    if not paths.app_yaml.exists():
        raise RefusedError(f"{paths.app_yaml} is missing: converge the site (make site)")
    if stack.config.data:
        well = {container.service for container in stack.docker.containers(paths.data_project) if container.well}
        unwell = [service for service in DATA_SERVICES if service not in well]
        if unwell:
            raise RefusedError(f"{' and '.join(unwell)} not healthy: systemctl restart {paths.unit}, or see its log")
    return f"{work.release.tag} as {work.release.id} into {work.colour}"


def _pull(work: Work) -> str:
    """Pin the image by its digest, and tag it as ours."""
    docker, repository, tag = work.stack.docker, work.stack.config.repository, work.release.tag
    live = work.before.release
    pulled = work.stack.machine.run(["docker", "pull", "--quiet", f"{repository}:{tag}"], timeout=PULL_TIMEOUT)
    if not pulled.code:
        image = docker.image(f"{repository}:{tag}")
        digest = next((d for d in image.digests if d.startswith(f"{repository}@")), None) if image else None
    elif live and live.tag == tag:
        image, digest = docker.image(live.image), live.image
    else:
        image = digest = None
    if not image or not digest:
        raise RefusedError(f"{repository}:{tag} can't be had: {pulled.reason}: check the tag and the registry's login")
    version = image.labels.get(VERSION_LABEL)
    if version != tag:
        raise RefusedError(f"{repository}:{tag} says it is version {version!r} (label {VERSION_LABEL}): build it anew")
    work.release = replace(work.release, image=digest)
    docker.call("the image can't be tagged", ["docker", "tag", digest, work.our_tag])
    return digest if not pulled.code else f"{digest}, as it runs now: the registry says {pulled.reason}"


def _untag(work: Work) -> None:
    work.stack.machine.run(["docker", "rmi", work.our_tag])


def _save_environment(work: Work) -> str:
    durable.write(work.stack.paths.snapshot(work.release.id), environment.canonical(work.values))
    return f"{len(work.values)} values"


def _forget_environment(work: Work) -> None:
    work.stack.paths.snapshot(work.release.id).unlink(missing_ok=True)


def _migrate(work: Work) -> str:
    stack, limit = work.stack, work.stack.config.migrate_timeout
    _remove_migrations(work)
    if not stack.config.migrate:
        return "not declared"
    argv = compose.migrate(work.project, stack.paths.app_yaml, compose.migrate_name(stack.paths, work.release))
    ran = stack.machine.run(argv, work.compose_environment, limit)
    if ran.code == 124:
        raise FailedError(f"migrations took longer than {limit} s", ran.tail())
    if ran.code:
        raise FailedError(f"migrations failed with exit code {ran.code}", ran.tail())
    return ""


def _remove_migrations(work: Work) -> None:
    """A one-shot container outlives its client, whether that was killed now or in an earlier run."""
    docker = work.stack.docker
    for colour in COLOURS:
        docker.remove(docker.containers(work.stack.paths.project(colour), one_off=True))


def _start(work: Work) -> str:
    stack = work.stack
    stack.remove_colour(work.colour)
    # Before the flip, so that whatever the link says, state knows what runs there.
    state.save(stack.paths, work.before.with_colour(work.colour, work.release))
    argv = compose.up(work.project, stack.paths.app_yaml)
    stack.compose(f"{work.colour} doesn't start", argv, work.compose_environment)
    return ""


def _take_down(work: Work) -> None:
    work.stack.remove_colour(work.colour)
    state.save(work.stack.paths, work.before)


def _wait_for_health(work: Work) -> str:
    seconds = work.stack.config.healthy_timeout
    work.stack.wait_until_well(work.project, "health", seconds, fail_early=True)
    return ""


def _open_socket(work: Work) -> str:
    work.stack.systemctl("start", work.stack.paths.socket_unit(work.colour))
    return ""


def _probe(work: Work) -> str:
    """Ask as nginx will: connecting proves nothing, the socket accepts while nobody is behind it."""
    stack, unix_socket = work.stack, work.stack.paths.socket(work.colour)

    def look() -> str | None:
        try:
            answer = stack.machine.get(unix_socket, "/ready")
        except (OSError, http.client.HTTPException) as error:
            return f"/ready: {error or type(error).__name__}"
        return None if answer.status == 200 else f"/ready answers {answer.status}"

    try:
        stack.wait("probe", stack.config.healthy_timeout, look)
        version = json.loads(stack.machine.get(unix_socket, "/health").body)["version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"no good answer: {error or type(error).__name__}", _logs(work)) from None
    if version != work.release.tag:
        raise FailedError(f"/health says version {version!r}, not {work.release.tag}: build the image anew", _logs(work))
    return f"ready, version {version}"


def _flip(work: Work) -> str:
    state.activate(work.stack.paths, work.colour)
    return work.colour


def _record(work: Work) -> str:
    live = replace(work.release, since=_iso(work.stack))
    state.save(work.stack.paths, replace(work.before, active=work.colour).with_colour(work.colour, live))
    return ""


def _drain(work: Work) -> str:
    work.stack.machine.sleep(DRAIN_SECONDS)
    return ""


def _stop_old(work: Work) -> str:
    work.stack.remove_colour(other(work.colour))
    return other(work.colour)


def _prune(work: Work) -> str:
    """Forget all but the last releases. Never one that a colour's record names: a rollback needs it."""
    paths, docker, machine = work.stack.paths, work.stack.docker, work.stack.machine
    kept = {release.id for release in state.load(paths).colours.values() if release}
    snapshots = {path.stem for path in paths.secrets.glob("*.json")} - {paths.next_environment.stem}
    kept |= set(sorted(snapshots)[-KEPT_RELEASES:])
    images = docker.images_of(paths.release_repository)
    needed = {images[release_id] for release_id in kept if release_id in images}
    for release_id, image in images.items():
        if release_id not in kept:
            # The image by all of its names, unless a kept release is the same image: then our name for it alone.
            names = ["--force", image] if image not in needed else [f"{paths.release_repository}:{release_id}"]
            machine.run(["docker", "rmi", *names])
    for release_id in snapshots - kept:
        paths.snapshot(release_id).unlink()
    return f"kept {', '.join(sorted(kept))}"


STEPS = (
    Step("preflight", _preflight),
    Step("image", _pull, _untag),
    Step("snapshot", _save_environment, _forget_environment),
    Step("migrate", _migrate, _remove_migrations),
    Step("start", _start, _take_down),
    Step("health", _wait_for_health),
    Step("socket", _open_socket),
    Step("probe", _probe),
    Step("flip", _flip),
    Step("record", _record),
    Step("drain", _drain),
    Step("stop", _stop_old),
    Step("prune", _prune),
)


def _cause(error: BaseException) -> StackError:
    """What to tell of it. Whatever isn't expected goes on as it is, after the undoing."""
    if isinstance(error, StackError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return FailedError("interrupted")
    return FailedError(f"{type(error).__name__}: {error}")


def _serves(work: Work) -> bool:
    """Past the flip? The link knows, even when the flip itself was cut short."""
    with suppress(StackError):
        return work.release.image != "" and state.load(work.stack.paths).active == work.colour
    return False


def _undo(work: Work, reached: list[Step]) -> None:
    for step in reversed(reached):
        if step.undo:
            try:
                step.undo(work)
            except (StackError, OSError) as error:
                work.stack.journal.tell(step.name, "failed", f"could not be undone: {error}; the next release will try")
            else:
                work.stack.journal.tell(step.name, "undone")


def _logs(work: Work) -> str:
    return "\n".join(work.stack.docker.logs(container) for container in work.stack.containers(work.colour))


def _iso(stack: Stack) -> str:
    return stack.machine.now().isoformat(timespec="seconds")
