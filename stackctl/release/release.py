"""release TAG and rollback: another release live in the idle colour, or everything as it was.

STEPS is the whole story of a release, in order; ROLLBACK takes of it what going back needs. Up to `record` a failure is
undone, step by step backwards; after it the new release serves and only tidying is left. A kill at any point leaves one
colour live, and the same command again finishes the job: every step copes with what an earlier run left.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from stackctl.app import app_env, images, lifecycle, schema, state, webhook
from stackctl.app.stack import DRAIN_SECONDS, Stack
from stackctl.app.state import Release, Revision, State
from stackctl.app.telegram import Telegram
from stackctl.backup import create
from stackctl.core import names
from stackctl.core.errors import FailedError, RefusedError, StackError
from stackctl.core.events import trim
from stackctl.core.paths import COLOURS, other
from stackctl.core.steps import Step, carry_out, take
from stackctl.release import preflight, probe, watch
from stackctl.release.watch import Flip
from stackctl.services import compose
from stackctl.services.postgres import Postgres

TAG = re.compile(rf"(?P<tag>{names.TAG})(@(?P<digest>sha256:[0-9a-f]{{64}}))?", re.ASCII)
KEPT_RELEASES = 3


@dataclass
class Work:
    """A release under way: what its steps hand on."""

    stack: Stack
    release: Release
    digest: str | None = None
    """What the image has to be, where that was asked for."""
    again: bool = False
    """Part of a converge, which mends what is live: the tag's image stays the one that is."""
    watched: bool = True
    """After its flip. Going back isn't, and doesn't wait for a Telegram that doesn't answer."""
    back: bool = False
    """A rollback, which leaves what is live."""
    settles: bool = False
    """What a killed release left gives way before."""
    before: State = field(default_factory=State)
    colour: str = ""
    """Empty until it is chosen."""
    values: Mapping[str, str] = field(default_factory=dict)
    pending: Sequence[Revision] = ()
    failed_before: Mapping[str, str] = field(default_factory=dict)
    """The public paths that what serves didn't answer before the flip."""
    flip: Flip | None = None
    """What was known just before it."""

    @property
    def project(self) -> str:
        return self.stack.paths.project(self.colour)

    @property
    def compose_environment(self) -> dict[str, str]:
        return self.stack.web_environment(self.colour, self.release, self.values)

    @property
    def lasts(self) -> str:
        return f"{self.release.tag} serves in {self.colour}" if _recorded(self) else ""

    @property
    def serving(self) -> str:
        return self.stack.serving

    @property
    def remedy(self) -> str:
        return f"stackctl {self.stack.journal.op} {self.release.tag}"

    @property
    def telegram(self) -> Telegram | None:
        return Telegram(self.stack.machine, self.values) if self.stack.config.tells_telegram else None


def parse(tag: str) -> tuple[str, str | None]:
    """TAG or TAG@sha256:… as both its parts, or RefusedError."""
    match = TAG.fullmatch(tag)
    if not match:
        raise RefusedError(f"{tag!r} is no image tag: letters, digits, _ . - and at most 128 of them")
    return match["tag"], match["digest"]


def release(stack: Stack, tag: str, *, again: bool = False, dry_run: bool = False) -> None:
    """Put the image live. `again`: the live tag's, with the image that it has now. `dry_run`: say what would happen.

    Raises what carry_out does.
    """
    name, digest = parse(tag)
    work = Work(stack, Release(stack.journal.run, name, "", "", None, ""), digest, again)
    work.settles = lifecycle.astray(stack)
    if not dry_run:
        _carry_out(work, STEPS)
        return
    try:
        take(stack, work, PLAN)
    finally:
        stack.remove_one_shots()
        _forget_image(work)


def rollback(stack: Stack, tag: str | None) -> None:
    """Put a release live that was before, as it was: `target`. One that was cut short is finished.

    Raises as `release` does.
    """
    before = state.load(stack.paths)
    chosen = target(before, tag)
    if not stack.docker.image(chosen.image):
        raise RefusedError(f"the image of {chosen.tag} ({chosen.id}) is gone: stackctl release {chosen.tag}")
    if stack.config.migrate and (reason := schema.barred(before.revisions, chosen)):
        raise RefusedError(f"{chosen.tag} can't serve: {reason}: release a version that can")
    settles = before.unproven and lifecycle.astray(stack)
    live = before.kept[0] if settles else before.release
    work = Work(stack, chosen, watched=False, back=True, settles=settles)
    _carry_out(work, FINISH if live and live.id == chosen.id else ROLLBACK)


def target(before: State, tag: str | None) -> Release:
    """The release before the live one, or the newest kept one of this tag. RefusedError when there is none.

    A rollback that was killed after its flip has the same target again.
    """
    found = next((known for known in before.kept if known.tag == tag), None) if tag else before.back
    if found:
        return found
    names = ", ".join(dict.fromkeys(known.tag for known in before.earlier))
    if names and not tag:
        raise RefusedError(
            f"there is no earlier release but one that a rollback has left ({names}). Nothing was changed. "
            f"Next: stackctl rollback {before.earlier[0].tag}, if you want just that one"
        )
    what = f"no release of {tag} is kept" if tag else "there is no earlier release to go back to"
    raise RefusedError(f"{what} (kept: {names or 'none'}): stackctl release TAG")


def _carry_out(work: Work, steps: Sequence[Step[Work]]) -> None:
    """A release that was killed before it was recorded proved nothing: what was recorded is so again, if it runs.

    Whatever is refused afterwards has failed: something was changed.
    """
    if not work.settles:
        carry_out(work, steps)
        return
    try:
        carry_out(work, (_SETTLE, *steps))
    except RefusedError as error:
        raise FailedError(f"{error}; what an interrupted release had left was taken back before") from error


def _settle(work: Work) -> str:
    return lifecycle.settle(work.stack)


def _preflight(work: Work) -> str:
    stack, paths = work.stack, work.stack.paths
    work.values = app_env.load(paths.next_environment)
    work.before = state.load(paths)
    if work.settles:
        work.before = replace(work.before, active=work.before.proven)
    work.colour = other(work.before.active) if work.before.active else COLOURS[0]
    work.release = replace(work.release, env_sha256=app_env.env_sha256(work.values))
    preflight.check(stack, work.values)
    preflight.check_room(stack)
    return f"{work.release.tag} as {work.release.id} into {work.colour}"


def _preflight_of_rollback(work: Work) -> str:
    """It neither pulls nor dumps: that the disk is nearly full is no reason to refuse it."""
    stack, paths = work.stack, work.stack.paths
    work.values = app_env.load(paths.snapshot(work.release.id))
    work.before = state.load(paths)
    try:
        state.save(paths, work.before)
    except OSError as error:
        # Found out now, and not when the kept colour was removed to undo what can't be written down.
        raise RefusedError(f"{error}: make room on the disk (df -h), then {work.remedy}") from None
    work.colour = other(work.before.active) if work.before.active else COLOURS[0]
    preflight.check(stack, work.values)
    return f"{work.release.tag} of {work.release.since} into {work.colour}"


def _preflight_of_finishing(work: Work) -> str:
    work.values = app_env.load(work.stack.paths.snapshot(work.release.id))
    work.before = state.load(work.stack.paths)
    work.colour = work.before.active or COLOURS[0]
    return f"{work.release.tag} serves in {work.colour} already"


def _image(work: Work) -> str:
    live = work.before.release
    stays = live if work.again and live and live.tag == work.release.tag else None
    pinned, message = images.pin(work.stack, work.release, digest=work.digest, live=live, stays=stays)
    work.release = replace(work.release, image=pinned)
    return message


def _forget_image(work: Work) -> None:
    images.prune(work.stack, _kept(state.load(work.stack.paths)))


def _schema(work: Work) -> str:
    if not work.stack.config.migrate:
        return "the image has none"
    work.stack.remove_one_shots()
    report = schema.read(work.stack, work.project, work.compose_environment, work.release)
    work.pending = report.pending
    work.release = replace(work.release, schema=report.head)
    work.before = replace(work.before, revisions=schema.applied(work.before.revisions, report))
    if reason := schema.conflict(work.before.revisions, report, work.before.release):
        raise RefusedError(reason)
    return f"at {report.current or 'nothing'}, pending: {schema.named(report.pending)}"


def _tell_plan(work: Work) -> str:
    for line in _plan(work):
        work.stack.journal.tell("plan", "progress", line)
    return ""


def _save_environment(work: Work) -> str:
    app_env.save(work.stack.paths.snapshot(work.release.id), work.values)
    return f"{len(work.values)} values"


def _forget_environment(work: Work) -> None:
    work.stack.paths.snapshot(work.release.id).unlink(missing_ok=True)


def _backup(work: Work) -> str:
    stack = work.stack
    if not stack.config.data:
        return "the database is on another host, which makes its own"
    made = create.of_release(stack, stack.config.data, work.release.id)
    return f"{stack.paths.backup(made.id)}, {made.bytes / 1e6:.1f} MB"


def _migrate(work: Work) -> str:
    pending = work.pending
    if not pending:
        return "nothing is pending"
    # Before they run: should we be killed amid them, a rollback must not take them for absent.
    work.before = replace(work.before, revisions=(*work.before.revisions, *pending))
    state.save(work.stack.paths, work.before)
    schema.migrate(work.stack, work.project, work.compose_environment, work.release)
    work.pending = ()
    return schema.named(pending)


def _note_what_was_applied(work: Work) -> None:
    """Lest a contract that didn't come to its end bars a rollback. Where it can't be asked, the next release asks."""
    work.stack.remove_one_shots()
    if not work.pending:
        return
    with suppress(StackError):
        report = schema.read(work.stack, work.project, work.compose_environment, work.release)
        work.before = replace(work.before, revisions=schema.applied(work.before.revisions, report))
        state.save(work.stack.paths, work.before)


def _remove_one_shots(work: Work) -> None:
    work.stack.remove_one_shots()


def _start(work: Work) -> str:
    stack = work.stack
    there = work.before.colours[work.colour]
    if not there or there.id != work.release.id:
        stack.remove_colour(work.colour)
    # Before the flip, so that whatever the link says, state knows what runs there.
    state.save(stack.paths, work.before.with_colour(work.colour, work.release))
    stack.bring_up(work.colour, compose.up(work.project, stack.paths.app_yaml), work.compose_environment)
    return ""


def _take_down(work: Work) -> None:
    work.stack.remove_colour(work.colour)
    state.save(work.stack.paths, work.before)
    if work.before.active:
        webhook.mend_and_tell(work.stack)


def _wait_for_health(work: Work) -> str:
    work.stack.wait_until_well(work.project, "health", work.stack.config.healthy_timeout, fail_early=True)
    return ""


def _open_socket(work: Work) -> str:
    unit = work.stack.paths.socket_unit(work.colour)
    work.stack.systemctl("start", unit)
    return unit


def _probe(work: Work) -> str:
    stack, live = work.stack, work.before.release
    try:
        said = probe.probe(stack, work.colour, work.release.tag, work.values)
        if work.watched and live and work.before.active:
            work.failed_before = probe.failing(stack, work.before.active, _environment_of(work, live))
        if work.watched and (worse := _failing(work)):
            raise FailedError(next(iter(worse.values())))
        return said
    except FailedError as error:
        error.tail = _logs(work)
        raise


def _failing(work: Work) -> dict[str, str]:
    """What the new colour doesn't answer, and the one before it did."""
    found = probe.failing(work.stack, work.colour, work.values)
    return {path: seen for path, seen in found.items() if path not in work.failed_before}


def _environment_of(work: Work, live: Release) -> Mapping[str, str]:
    """Of the live release; where that is lost, ours will do to ask it."""
    with suppress(StackError):
        return app_env.load(work.stack.paths.snapshot(live.id))
    return work.values


def _flip(work: Work) -> str:
    work.flip = Flip.now(work.stack, work.telegram if work.watched else None)
    state.activate(work.stack.paths, work.colour)
    return work.colour


def _flip_back(work: Work) -> None:
    if state.load(work.stack.paths).active != work.colour:
        return
    if work.before.active:
        state.activate(work.stack.paths, work.before.active)
        # Whoever was on the way to the new colour gets through before it ends.
        work.stack.machine.sleep(DRAIN_SECONDS)
    else:
        state.deactivate(work.stack.paths)


def _watch(work: Work) -> str:
    try:
        flip = work.flip or Flip.now(work.stack, work.telegram)
        return watch.watch(work.stack, work.colour, work.telegram, flip, lambda: _failing(work))
    except FailedError as error:
        error.tail = _logs(work)
        raise


def _hand_over(work: Work) -> str:
    stack = work.stack
    stack.stop_worker()
    if not stack.config.works:
        stack.docker.remove(stack.worker)
        return "this droplet is isolated" if stack.config.isolated else "the app has none"
    stack.bring_up_worker(work.release, compose.up(stack.paths.worker_project, stack.paths.worker_yaml))
    stack.wait_until_well(stack.paths.worker_project, "worker", stack.config.healthy_timeout, fail_early=True)
    return ""


def _hand_back(work: Work) -> None:
    stack, former = work.stack, work.before.worker
    _flip_back(work)  # first: requests don't wait for a job to end
    stack.stop_worker()
    stack.docker.remove(stack.worker)
    if former and stack.config.works:
        stack.bring_up_worker(former, compose.up(stack.paths.worker_project, stack.paths.worker_yaml))


def _record(work: Work) -> str:
    live = work.release = replace(work.release, since=work.stack.machine.now().isoformat(timespec="seconds"))
    worker = live if work.stack.config.works else None
    before, serving = work.before, work.before.serving(work.colour, live, KEPT_RELEASES)
    # The one that was recorded last: what was killed before that, say, is kept by nobody.
    fled = before.kept[0].id if work.back and before.kept and before.kept[0].id != live.id else None
    if fled and fled not in serving.left:
        serving = replace(serving, left=(*serving.left, fled))
    state.save(work.stack.paths, replace(serving, worker=worker))
    return ""


def _set_webhook(work: Work) -> str:
    return webhook.ensure(work.stack)


def _drain(work: Work) -> str:
    if not work.before.active:
        return "nothing served before"
    since = work.stack.machine.monotonic() - work.flip.monotonic if work.flip else 0.0
    work.stack.machine.sleep(max(0.0, DRAIN_SECONDS - since))
    return ""


def _stop_old(work: Work) -> str:
    idle = other(work.colour)
    work.stack.stop_colour(idle)
    return idle if work.stack.containers(idle) else "nothing served before"


def _prune(work: Work) -> str:
    """Never what a rollback needs, nor what a colour's record names."""
    stack, paths = work.stack, work.stack.paths
    current = state.load(paths)
    trim(paths.history)
    kept = _kept(current)
    images.prune(stack, kept)
    for path in paths.secrets.glob("*.json"):
        if path != paths.next_environment and path.stem not in kept:
            path.unlink()
    if stack.config.data:
        Postgres(stack.docker, paths, stack.config.data).forget_logins(_logins(paths.secrets))
    return f"kept {', '.join(f'{known.tag} ({known.id})' for known in current.kept)}"


def _kept(current: State) -> set[str]:
    """The ids of the releases whose image and environment may be needed."""
    return {known.id for known in (*current.kept, *current.colours.values(), current.worker) if known}


def _logins(secrets: Path) -> set[str]:
    """The users of the databases that kept environments name."""
    values = [value for path in secrets.glob("*.json") for value in app_env.load(path).values()]
    return {urlsplit(value).username or "" for value in values if value.startswith("postgresql://")}


_SETTLE = Step("settle", "a release was interrupted before its end", _settle)
_PREFLIGHT = Step("preflight", "the declaration is whole, data is well, there is room", _preflight)
_IMAGE = Step("image", "pull it, pin it by its digest, tag it as ours", _image, _forget_image)
_SCHEMA = Step("schema", "ask the new image what the database lacks", _schema, _remove_one_shots)
_SNAPSHOT = Step("snapshot", "keep the environment it starts with", _save_environment, _forget_environment)
_BACKUP = Step("backup", "dump the database", _backup)
_MIGRATE = Step("migrate", "from the new image, once", _migrate, _note_what_was_applied)
_START = Step("start", "in the idle colour, beside what serves", _start, _take_down)
_HEALTH = Step("health", "wait for it", _wait_for_health)
_SOCKET = Step("socket", "open the colour's socket", _open_socket)
_PROBE = Step("probe", "ask through the socket, as nginx will", _probe)
_FLIP = Step("flip", "point nginx at it", _flip, _flip_back)
_WATCH = Step("watch", "look at it before it is recorded", _watch)
_WORKER = Step(
    "worker", "where there is one: the old one ends after its job, the new one starts", _hand_over, _hand_back
)
_RECORD = Step("record", "write down that it serves", _record)
_WEBHOOK = Step("webhook", "tell Telegram, when that differs", _set_webhook)
_DRAIN = Step("drain", "let requests that are under way end", _drain)
_STOP = Step("stop", "end what served before, and keep it for a rollback", _stop_old)
_PRUNE = Step("prune", f"keep the last {KEPT_RELEASES} releases, and forget others", _prune)

_TELL_PLAN = Step("plan", "what is about to happen", _tell_plan)

PLAN = (_PREFLIGHT, _IMAGE, _SCHEMA, _TELL_PLAN)
_SERVE = (_START, _HEALTH, _SOCKET, _PROBE, _FLIP)
# Telegram comes last: when it can't be reached, all the rest is done.
_TIDY = (_WORKER, _RECORD, _DRAIN, _STOP, _PRUNE, _WEBHOOK)
STEPS = (*PLAN, _SNAPSHOT, _BACKUP, _MIGRATE, *_SERVE, _WATCH, *_TIDY)
# It never migrates, and it isn't watched: what would it go back to?
ROLLBACK = (Step("preflight", _PREFLIGHT.what, _preflight_of_rollback), *_SERVE, *_TIDY)
# Of one that was cut short after its flip.
FINISH = (Step("preflight", "an earlier run came this far", _preflight_of_finishing), *_TIDY)


def _plan(work: Work) -> list[str]:
    """What a release would do, a line each."""
    live, config = work.before.release, work.stack.config
    was = f"{live.tag} in {work.before.active} gives way" if live else "the first one"
    lines = ["a release was interrupted: what was recorded before it is brought back first"] if work.settles else []
    lines.append(f"{work.release.tag} ({work.release.image}) goes live in {work.colour}; {was}")
    if live and live.env_sha256 != work.release.env_sha256:
        names = app_env.differing(work.stack.paths.snapshot(live.id), work.values)
        lines.append(f"environment: {', '.join(names) or 'what was before is lost'} differ")
    if config.migrate:
        lines.append(f"migrations: {schema.named(work.pending)}")
    if any(revision.kind == "contract" for revision in work.pending):
        lines.append("a contract is among them: there is no rollback past what is live now")
    lines.append("the database is dumped before" if config.data else "the database is on another host")
    if live:
        lines.append(f"the old colour stays warm for {config.watch} s, then it is stopped and kept")
    if live and config.works:
        lines.append("the worker gives way after its job")
    return lines


def _recorded(work: Work) -> bool:
    """Past the point of no return? What was written knows, even when the writing was cut short."""
    with suppress(StackError):
        current = state.load(work.stack.paths)
        return current.active == work.colour and current.kept[:1] == (work.release,)
    return False


def _logs(work: Work) -> str:
    return "\n".join(work.stack.docker.logs(container) for container in work.stack.containers(work.colour))
