"""release TAG: a new image live in the idle colour, or everything as it was.

STEPS is the whole story, in order. Up to the flip a failure is undone, step by step backwards; after it the new
release serves and only tidying is left. A kill at any point leaves one colour live, and the same command again finishes
the job: every step copes with what an earlier run left.
"""

import http.client
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from . import compose, durable, environment, state
from .errors import FailedError, PersonNeededError, RefusedError, StackError
from .machine import TIMED_OUT
from .paths import COLOURS, DATA_SERVICES, other
from .stack import Stack
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
    again: bool
    """Part of a converge, which mends what is live: the tag's image stays the one that is."""
    before: State = field(default_factory=State)
    colour: str = ""
    """Empty until it is chosen."""
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
    what: str
    act: Callable[[Work], str]
    undo: Callable[[Work], None] | None = None


def check_tag(tag: str) -> None:
    """Docker's grammar of a tag, or RefusedError."""
    if not TAG.fullmatch(tag):
        raise RefusedError(f"{tag!r} is no image tag: letters, digits, _ . - and at most 128 of them")


def release(stack: Stack, tag: str, *, again: bool = False) -> None:
    """Put the image live. `again`: the live tag's, with the image that it has now.

    Raises RefusedError when nothing was changed, FailedError when all was undone, PersonNeededError when the new
    release serves and something behind it is left to do.
    """
    work = Work(stack, Release(f"{stack.machine.now():%Y%m%dT%H%M%SZ}", tag, "", "", None, _now(stack)), again)
    reached: list[Step] = []
    try:
        for step in STEPS:
            reached.append(step)
            stack.journal.step(step.name, partial(step.act, work), step.what)
    except BaseException as error:
        cause = _expected(error)
        stack.journal.show_log(cause.tail if cause else "")
        if _serves(work):
            what = cause or repr(error)
            raise PersonNeededError(f"{tag} serves in {work.colour}, but {what}: run the same again") from error
        _undo(work, reached)
        if cause is None:
            raise
        raise cause from error


def _preflight(work: Work) -> str:
    stack, paths = work.stack, work.stack.paths
    work.values = environment.load(paths.next_environment)
    work.before = state.load(paths)
    work.colour = other(work.before.active) if work.before.active else COLOURS[0]
    work.release = replace(work.release, env_sha256=environment.env_sha256(work.values))
    if not paths.app_yaml.exists():
        raise RefusedError(f"{paths.app_yaml} is missing: converge the site (make site)")
    if stack.config.data:
        well = {container.service for container in stack.docker.containers(paths.data_project) if container.well}
        unwell = [service for service in DATA_SERVICES if service not in well]
        if unwell:
            raise RefusedError(f"{' and '.join(unwell)} not healthy: systemctl restart {paths.unit}, then docker logs")
    return f"{work.release.tag} as {work.release.id} into {work.colour}"


def _pull(work: Work) -> str:
    docker, repository, tag = work.stack.docker, work.stack.config.repository, work.release.tag
    live = work.before.release
    if work.again and live and live.tag == tag and docker.image(live.image):
        # A converge mends what runs; it must not bring in what was pushed under the same tag since.
        work.release = replace(work.release, image=live.image)
        docker.call("the image can't be tagged", ["docker", "tag", live.image, work.our_tag])
        return f"{live.image}, which is live"
    pulled = work.stack.machine.run(["docker", "pull", "--quiet", f"{repository}:{tag}"], timeout=PULL_TIMEOUT)
    image = digest = None
    if not pulled.code:
        image = docker.image(f"{repository}:{tag}")
        ours = f"{repository.removeprefix('docker.io/').removeprefix('library/')}@"  # as Docker shortens its own
        digest = next((name for name in image.digests if name.startswith(ours)), None) if image else None
    elif live and live.tag == tag:
        image, digest = docker.image(live.image), live.image
    if not image or not digest:
        raise RefusedError(f"{repository}:{tag} can't be had: {pulled.reason}: check the tag and the registry's login")
    version = image.labels.get(VERSION_LABEL)
    if version != tag:
        raise RefusedError(f"{repository}:{tag} says it is version {version!r} (label {VERSION_LABEL}): build it anew")
    work.release = replace(work.release, image=digest)
    docker.call("the image can't be tagged", ["docker", "tag", digest, work.our_tag])
    return f"{digest}, which is here; the registry: {pulled.reason}" if pulled.code else digest


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
        return "the image has none"
    argv = compose.migrate(work.project, stack.paths.app_yaml, f"{stack.paths.app}-migrate-{work.release.id}")
    ran = stack.machine.run(argv, work.compose_environment, limit)
    if ran.code == TIMED_OUT:
        raise FailedError(
            f"migrations took longer than {limit} s: see what they wait for, then release again", ran.tail()
        )
    if ran.code:
        raise FailedError(f"migrations failed (exit code {ran.code}): mend them, then release", ran.tail())
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
    stack.bring_up(work.colour, compose.up(work.project, stack.paths.app_yaml), work.compose_environment)
    return ""


def _take_down(work: Work) -> None:
    work.stack.remove_colour(work.colour)
    state.save(work.stack.paths, work.before)


def _wait_for_health(work: Work) -> str:
    work.stack.wait_until_well(work.project, "health", work.stack.config.healthy_timeout, fail_early=True)
    return ""


def _open_socket(work: Work) -> str:
    unit = work.stack.paths.socket_unit(work.colour)
    work.stack.systemctl("start", unit)
    return unit


def _probe(work: Work) -> str:
    stack, unix_socket = work.stack, work.stack.paths.socket(work.colour)

    def not_ready() -> str | None:
        try:
            status, _ = stack.machine.get(unix_socket, "/ready")
        except (OSError, http.client.HTTPException) as error:
            return f"/ready: {error or type(error).__name__}"
        return None if status == 200 else f"/ready answers {status}"

    try:
        stack.wait("probe", stack.config.healthy_timeout, not_ready)
        version = json.loads(stack.machine.get(unix_socket, "/health")[1])["version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"no good answer: {error or type(error).__name__}", _logs(work)) from None
    if version != work.release.tag:
        raise FailedError(f"/health says version {version!r}, not {work.release.tag}: build it anew", _logs(work))
    return f"ready, version {version}"


def _flip(work: Work) -> str:
    state.activate(work.stack.paths, work.colour)
    return work.colour


def _record(work: Work) -> str:
    live = replace(work.release, since=_now(work.stack))
    state.save(work.stack.paths, replace(work.before, active=work.colour).with_colour(work.colour, live))
    return ""


def _drain(work: Work) -> str:
    work.stack.machine.sleep(DRAIN_SECONDS)
    return ""


def _stop_old(work: Work) -> str:
    work.stack.remove_colour(other(work.colour))
    return other(work.colour)


def _prune(work: Work) -> str:
    """Never one that a colour's record names: a rollback needs it."""
    paths, docker, machine = work.stack.paths, work.stack.docker, work.stack.machine
    kept = {release.id for release in state.load(paths).colours.values() if release}
    snapshots = {path.stem for path in paths.secrets.glob("*.json")} - {paths.next_environment.stem}
    kept |= set(sorted(snapshots)[-KEPT_RELEASES:])
    images = docker.images_of(paths.release_repository)
    needed = {images[release_id] for release_id in kept if release_id in images}
    for release_id in images.keys() - kept:
        # The image by all its names, unless a kept release is the same image: then our name for it alone.
        ours, image = f"{paths.release_repository}:{release_id}", images[release_id]
        machine.run(["docker", "rmi", ours] if image in needed else ["docker", "rmi", "--force", image])
    for release_id in snapshots - kept:
        paths.snapshot(release_id).unlink()
    return f"kept {', '.join(sorted(kept))}"


STEPS = (
    Step("preflight", "the declaration is whole, the data services are well", _preflight),
    Step("image", "pull it, pin it by its digest, tag it as ours", _pull, _untag),
    Step("snapshot", "keep the environment it starts with", _save_environment, _forget_environment),
    Step("migrate", "from the new image, once", _migrate, _remove_migrations),
    Step("start", "the idle colour, beside the live one", _start, _take_down),
    Step("health", "wait for it", _wait_for_health),
    Step("socket", "open the colour's socket", _open_socket),
    Step("probe", "ask through the socket, as nginx will", _probe),
    Step("flip", "point nginx at it", _flip),
    Step("record", "write down that it serves", _record),
    Step("drain", "let the old colour's last connections in", _drain),
    Step("stop", "end the old colour", _stop_old),
    Step("prune", f"forget all but {KEPT_RELEASES} releases", _prune),
)


def _expected(error: BaseException) -> StackError | None:
    """The error to end with, or None for a fault of our own: that one goes on as it is, once all is undone."""
    if isinstance(error, KeyboardInterrupt):
        return FailedError("interrupted")
    if isinstance(error, OSError):
        return FailedError(f"{error}: see the machine's own log (journalctl -b)")
    return error if isinstance(error, StackError) else None


def _serves(work: Work) -> bool:
    """Past the flip? The link knows, even when the flip itself was cut short."""
    with suppress(StackError):
        return state.load(work.stack.paths).active == work.colour
    return False


def _undo(work: Work, reached: list[Step]) -> None:
    for step in reversed(reached):
        if step.undo:
            try:
                step.undo(work)
            except (StackError, OSError) as error:
                work.stack.journal.tell(step.name, "failed", f"not undone, the next release will: {error}")
            else:
                work.stack.journal.tell(step.name, "undone")


def _logs(work: Work) -> str:
    return "\n".join(work.stack.docker.logs(container) for container in work.stack.containers(work.colour))


def _now(stack: Stack) -> str:
    return stack.machine.now().isoformat(timespec="seconds")
